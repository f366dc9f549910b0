"""``results/trends.html``: earlier trees up to these results, and nothing to do the second time."""

import sys
from pathlib import Path

import pytest
from tiny import PROJECT, STUDY, Project

sys.path.insert(0, str(PROJECT / "tests" / "unit" / "report"))
import planted_study as planted

from ceilings.report.tables.collect import collect

DEVICE, CONFIGURATION = "nvidia-h200", ("onnxruntime-cuda", "fp32")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two earlier trees, and results that are a fifth slower."""
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "docs"):
        (tmp_path / name).symlink_to(PROJECT / name)
    for seed, (below, median) in enumerate({"trees/t9": 10.0, "trees/t10": 10.0, ".": 12.0}.items()):
        maker = planted.StudyMaker(tmp_path / below, lambda *_, median=median: median, seed=seed, runs=4, between=0.004)
        maker.measure(DEVICE, [CONFIGURATION], [(1, 16), (8, 16)])
        if below != ".":
            collect(maker.plan()).write(tmp_path / below / "results" / "tables")
    sweep = STUDY["sweeps"]["one"] | {"models": [planted.TEXT], "runtimes": [CONFIGURATION[0]], "precisions": ["fp32"]}
    project = Project(tmp_path)
    project.configure(
        STUDY
        | {"models": {planted.TEXT: STUDY["models"]["tiny"]}, "devices": [DEVICE], "sweeps": {"one": sweep}}
        | {"protocol": STUDY["protocol"] | {"processes": 4}, "trends": {"trees": "trees"}}
    )
    return project


@pytest.mark.slow
def test_trends_is_a_target(project):
    target = "results/trends.html"
    project.snakemake(target)
    page = (project.folder / "results" / "trends.md").read_text()
    assert "3 trees in this order: t9, t10, results" in page and page.count("t10 to results") == 2
    assert (project.folder / target).read_text().count("<svg") == 2
    assert not project.planned(target)
    earlier = project.folder / "trees" / "t9" / "results" / "tables"
    (earlier / "cells.csv").write_text("nobody reads it")
    assert not project.planned(target)
    for file in earlier.iterdir():
        file.unlink()
    earlier.rmdir()
    assert project.planned(target) == {"trend_results": 1}


def test_a_folder_that_is_not_there_is_refused(project):
    for file in ("t9", "t10"):
        (project.folder / "trees" / file).rename(project.folder / file)
    (project.folder / "trees").rmdir()
    done = project.snakemake("results/trends.html", "--dry-run", check=False)
    assert done.returncode == 1 and "trends.trees: trees is no folder" in done.stdout + done.stderr
