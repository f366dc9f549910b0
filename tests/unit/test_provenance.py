"""Which revision of the project a record names."""

from __future__ import annotations

import json
import subprocess

import pytest

from ceilings import files, provenance


@pytest.fixture
def unpacked(tmp_path):
    """A project as a kit leaves it, below a checkout of something else."""
    git = ("git", "-C", tmp_path, "-c", "user.name=A", "-c", "user.email=a@example.com")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "of another project"], check=True)
    project = tmp_path / "ceilings"
    (project / ".kit").mkdir(parents=True)
    (project / "Snakefile").write_text("rule all:\n")
    record(project, "0123456789ab")
    return project


def record(project, revision):
    digests = {"Snakefile": files.sha256(project / "Snakefile")}
    (project / provenance.UNPACKED).write_text(json.dumps({"revision": revision, "files": digests}))


def revision(project):
    return provenance.project_revision.__wrapped__(project)


def test_a_host_without_git_knows_what_was_unpacked(unpacked):
    assert revision(unpacked) == "0123456789ab"


def test_a_file_that_was_changed_or_removed_since_is_a_change(unpacked):
    (unpacked / "mine.yaml").write_text("study: mine\n")  # git does not count it either
    assert revision(unpacked) == "0123456789ab"
    (unpacked / "Snakefile").write_text("rule other:\n")
    assert revision(unpacked) == "0123456789ab+changes"
    (unpacked / "Snakefile").unlink()
    assert revision(unpacked) == "0123456789ab+changes"


def test_changes_that_were_packed_are_changes(unpacked):
    record(unpacked, "0123456789ab+changes")
    assert revision(unpacked) == "0123456789ab+changes"


def test_a_folder_of_no_revision_has_none(tmp_path):
    assert revision(tmp_path) is None
