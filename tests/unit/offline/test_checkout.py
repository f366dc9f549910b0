"""The project as it goes to a host: the files of its revision, and none that nobody asked for."""

from __future__ import annotations

import subprocess
import tarfile

import pytest

from ceilings.errors import UserError
from ceilings.offline import checkout


def git(folder, *arguments):
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    (folder / "rules").mkdir(parents=True)
    (folder / "Snakefile").write_text("rule all:\n")
    (folder / "rules/run.sh").write_text("#!/bin/sh\n")
    (folder / "rules/run.sh").chmod(0o755)
    (folder / ".gitignore").write_text("results\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    (folder / "results").mkdir()
    (folder / "results/summary.md").write_text("mine")
    return folder


def packed(archive):
    with tarfile.open(archive) as tar:
        return {one.name: (oct(one.mode), tar.extractfile(one).read().decode()) for one in tar}


def test_the_files_of_the_revision_are_packed(project, tmp_path):
    revision, names = checkout.pack(project, tmp_path / "p.tar.gz", changes=False)
    assert revision == git(project, "rev-parse", "--short=12", "HEAD").strip()
    assert names == [".gitignore", "Snakefile", "rules/run.sh"] == list(packed(tmp_path / "p.tar.gz"))
    assert packed(tmp_path / "p.tar.gz")["rules/run.sh"] == ("0o755", "#!/bin/sh\n")


def test_equal_files_make_an_equal_archive(project, tmp_path):
    checkout.pack(project, tmp_path / "a.tar.gz", changes=False)
    (project / "Snakefile").touch()
    checkout.pack(project, tmp_path / "b.tar.gz", changes=False)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def change(project):
    (project / "Snakefile").write_text("rule other:\n")


def add(project):
    (project / "mine study.yaml").write_text("study: mine\n")


def rename(project):
    git(project, "mv", "Snakefile", "Workflow")


@pytest.mark.parametrize(("edit", "name"), [(change, "Snakefile"), (add, "mine study.yaml"), (rename, "Workflow")])
def test_what_is_not_committed_is_refused_or_carried_and_named(project, tmp_path, edit, name):
    edit(project)
    with pytest.raises(UserError, match=rf"uncommitted: .*{name}; commit .* make kit CHANGES=carry"):
        checkout.pack(project, tmp_path / "p.tar.gz", changes=False)
    revision, names = checkout.pack(project, tmp_path / "p.tar.gz", changes=True)
    assert revision.endswith("+changes") and name in names
    assert packed(tmp_path / "p.tar.gz")[name][1] == (project / name).read_text()


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no git checkout; pack from a clone"):
        checkout.pack(tmp_path, tmp_path / "p.tar.gz", changes=False)
