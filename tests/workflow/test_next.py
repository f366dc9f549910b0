"""What to measure next: planned, predicted, measured with one flag, and at rest after that."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from tiny import STUDY

NEXT = "results/next.md"
FLAG = ("--config", "next=run")
REPORTING = {"plan_study": 1, "collect_cells": 1, "write_next": 1}


@pytest.fixture
def first_look(project):
    """A study of FP32 at one batch: INT8 and a larger batch are left to propose, whatever the noise."""
    sweep = {**STUDY["sweeps"]["one"], "precisions": ["fp32"], "batches": [1]}
    project.configure({**STUDY, "sweeps": {"one": sweep}})
    for folder in (project.folder / "results/benchmarks").glob("*/*/*/int8"):
        shutil.rmtree(folder)
    return project


@pytest.mark.slow
def test_proposed_cells_are_predicted_then_measured_and_no_others(first_look):
    assert "measure_latency" not in first_look.planned(NEXT)
    first_look.snakemake(NEXT)
    assert not first_look.planned(NEXT)
    (round_,) = json.loads((first_look.folder / "results/predictions.json").read_text())["rounds"]
    cells = [one["cell"] for one in round_["predictions"]]
    assert cells and all(0 < one["factor"][0] < one["factor"][1] for one in round_["predictions"])
    page = (first_look.folder / NEXT).read_text()
    assert all(f"`{cell}`" in page for cell in cells) and "Predictions and what came" not in page
    before = (first_look.folder / "results/predictions.json").read_bytes()

    # Exactly these, each in as many processes as the study says; nothing of what was measured.
    jobs = first_look.planned(NEXT, *FLAG)
    assert jobs["measure_latency"] == 2 * len(cells)
    assert {name: jobs[name] for name in REPORTING} == REPORTING
    assert "measure_latency" not in first_look.planned()  # without the flag nothing is timed

    first_look.snakemake(NEXT, *FLAG)
    assert not first_look.planned(NEXT, *FLAG)
    assert (first_look.folder / "results/predictions.json").read_bytes() == before
    page = (first_look.folder / NEXT).read_text()
    assert "Predictions and what came" in page and page.count(f"| {round_['made'][:10]}") == len(cells)

    # They stay in the study: the summary shows them without the flag, and times nothing again.
    assert "measure_latency" not in first_look.planned()
    first_look.snakemake("results/tables/cells.csv")
    table = (first_look.folder / "results/tables/cells.csv").read_text()
    runtime, model, precision, shape = cells[0].split("/")
    assert f",{runtime},,{model},{precision},{shape}," in table or (f"{runtime}" in table and shape in table)

    # The next round is planned only when it is asked for, and appended.
    first_look.snakemake(NEXT)
    rounds = json.loads((first_look.folder / "results/predictions.json").read_text())["rounds"]
    assert rounds[0] == round_ and not {one["cell"] for one in rounds[-1]["predictions"]} & set(cells)


@pytest.mark.slow
def test_the_proposed_study_is_one_and_times_no_cell_that_was_measured(first_look):
    first_look.snakemake(NEXT)
    study = yaml.safe_load((first_look.folder / "results/next.yaml").read_text())
    advice = json.loads((first_look.folder / "results/next.json").read_text())["advice"]
    proposed = {cell for one in advice if not one["missing"] and one["lever"] != "processes" for cell in one["cells"]}
    swept = {
        "/".join((*sweep["runtimes"], *sweep["models"], *sweep["precisions"], *sweep["shapes"]))
        for sweep in study["sweeps"].values()
    }
    assert swept == proposed | {one["before"] for one in advice if set(one["cells"]) & proposed}
    jobs = first_look.planned("results/summary.md", "--configfile", "results/next.yaml")
    # What is new: the proposed cells, and the second cell of the A/A pair where it is another one's than before.
    assert 2 * len(proposed) <= jobs["measure_latency"] <= 2 * (len(proposed) + 1)


def test_a_changed_record_of_predictions_is_refused(project):
    changed = {"study": "tiny", "made": "", "tables": {}, "predictions": [], "digest": "x"}
    record = project.folder / "results/predictions.json"
    record.write_text(json.dumps({"schema_version": 1, "rounds": [changed]}))
    done = project.snakemake("results/summary.md", "--dry-run", check=False)
    assert done.returncode and "round 1 was changed after it was written" in done.stdout + done.stderr
