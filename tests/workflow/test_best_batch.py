"""The real pipeline searches the best batch under a limit, and searches again exactly what a change touches."""

from __future__ import annotations

import copy
import json
import shutil

import pandas as pd
import pytest
from tiny import PROJECT, STUDY, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TABLES = "results/tables/tables.json"
SEARCH = {"cells": ["onnxruntime-cpu/tiny/fp32/s16"], "limit_ms": 500, "most": 2}


def study(**search):
    made = copy.deepcopy(STUDY)
    made["sweeps"]["one"] |= {"runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1]}
    made["protocol"] |= {"processes": 3, "measurements": []}
    return made | {"noise_cells": [], "best_batch": {**SEARCH, **search}}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best_batch") / "project"
    folder.mkdir()
    for name in ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "docs"):
        source = PROJECT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy2(source, folder)
    project = Project(folder)
    project.configure(study())
    project.snakemake(TABLES)
    return project


def test_a_search_is_a_record_and_its_answer_a_row(project):
    (path,) = project.folder.glob("results/best_batch/*/onnxruntime-cpu/tiny/fp32/s16.json")
    steps = json.loads(path.read_text())["steps"]
    (row,) = pd.read_parquet(project.folder / "results/tables/best_batches.parquet").to_dict("records")
    assert [step["batch"] for step in steps] == [1, 2, row["best"]]
    assert (row["status"], row["limit_ms"], row["largest"]) == ("ok", 500, 2)
    sizes = pd.read_parquet(project.folder / "results/tables/searched_batches.parquet")
    assert sizes["batch"].tolist() == [step["batch"] for step in steps]


def test_a_change_of_the_limit_searches_again_and_measures_nothing_else(project):
    assert not project.planned(TABLES)
    project.configure(study(limit_ms=400))
    assert project.planned(TABLES) == {"search_batch": 1, "collect_cells": 1}
    project.configure(study(cells=["onnxruntime-cpu/tiny/fp32/*"]))
    assert not project.planned(TABLES)
    project.configure(study())
