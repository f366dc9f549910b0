"""Co-locations in the real pipeline: their records, the matrix in the report, and what is made anew."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
from tiny import STUDY, SUMMARY

from ceilings import host, records

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

ORT, TORCH = "onnxruntime-cpu/tiny/fp32/b1-s16", "torch-eager/tiny/fp32/b1-s16"
GROUPS = {
    "twins": {"cells": [ORT, ORT], "how": ["processes"]},
    "pair": {"cells": [ORT, TORCH], "how": ["threads"]},
}
FOLDER = f"results/colocation/{host.detect({}).cpu_slug}"
RUNS = [f"{FOLDER}/{way}/run1.json" for way in ("twins/processes", "pair/threads")]


def with_groups(change=lambda study: None):
    study = copy.deepcopy(STUDY) | {"colocation": copy.deepcopy(GROUPS)}
    study["protocol"] |= {"processes": 1}
    change(study)
    return study


def test_a_study_gets_its_matrix_and_each_group_is_made_anew_by_itself(project):
    project.configure(with_groups())
    project.snakemake(SUMMARY)
    for path in RUNS:
        record = records.read(project.folder / path, "colocation")
        assert record["status"] == "ok", record["failure"]
    folder = project.folder / "results"
    pairs = pd.read_csv(folder / "tables/interference.csv")
    assert set(zip(pairs["group"], pairs["slowed"], pairs["neighbour"], strict=True)) == {
        ("twins", ORT, ORT),
        ("pair", ORT, TORCH),
        ("pair", TORCH, ORT),
    }
    assert (pairs["slowdown"] > 0).all()
    assert (folder / "plots/interference.svg").is_file()
    summary = (folder / "summary.md").read_text()
    assert "## Co-location" in summary and "| twins | processes" in summary.replace("  ", "")
    hold_what_is_made_anew(project)


def hold_what_is_made_anew(project):
    def three(study):
        study["colocation"]["pair"]["cells"] = [ORT, TORCH, ORT]

    def longer(study):
        study["protocol"]["max_seconds"] = 0.06
        del study["colocation"]["pair"]

    assert project.planned() == {}
    project.configure(with_groups(three))
    assert project.planned()["measure_colocation"] == 1
    project.configure(with_groups(longer))
    planned = project.planned()
    assert planned["measure_latency"] > 0 and "measure_colocation" not in planned
    project.configure(with_groups())
    project.edit("workflow_scripts/ceilings/measure/instance.py", "EDITED = 1")
    planned = project.planned()
    assert planned["measure_colocation"] == len(RUNS) and "measure_latency" not in planned
