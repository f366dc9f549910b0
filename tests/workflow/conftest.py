"""A copy of the project in which the tiny study has run once, and one that a test may change."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import pytest
from tiny import PROJECT, STUDY, SUMMARY, Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """The tiny study, run to its summary once for all workers. Tests copy it: they must not change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent  # the folders of all workers lie in this one
    folder = shared / "finished"
    with open(shared / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build(shared / "unfinished")
            (shared / "unfinished").rename(folder)
    project = Project(folder)
    project.most_threads = int((folder / "most_threads").read_text())
    return project


def build(folder: Path) -> None:
    """A checkout below ``folder`` with the tiny study's results."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs"):
        source = PROJECT / name
        ignore = shutil.ignore_patterns("__pycache__")
        (shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy2(source, folder))
    project = Project(folder)
    project.configure(STUDY)
    project.snakemake(SUMMARY)
    (folder / "most_threads").write_text(str(project.most_threads))


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project that a test may change."""
    copy = tmp_path / "project"
    # Copies times too, so that nothing looks newer than it is. Another worker may be writing bytecode.
    shutil.copytree(finished.folder, copy, ignore=shutil.ignore_patterns("*.pyc.*"))
    return Project(copy)
