"""A copy of the project in which the tiny study has run once, and one that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny import PROJECT, STUDY, SUMMARY, Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny study, run to its summary. Tests copy it: they must not change it."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    wanted = ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs")
    folder.mkdir()
    for name in wanted:
        source = PROJECT / name
        ignore = shutil.ignore_patterns("__pycache__")
        (shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy2(source, folder))
    project = Project(folder)
    project.configure(STUDY)
    project.snakemake(SUMMARY)
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project that a test may change."""
    copy = tmp_path / "project"
    shutil.copytree(finished.folder, copy)  # copies times too, so that nothing looks newer than it is
    return Project(copy)
