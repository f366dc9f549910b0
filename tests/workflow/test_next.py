"""What to measure next: planned, predicted, measured with one flag, and at rest after that."""

from __future__ import annotations

import json

import pytest
import yaml

NEXT = "results/next.md"
FLAG = ("--config", "next=run")
REPORTING = {"plan_study": 1, "collect_cells": 1, "write_next": 1}


@pytest.mark.slow
def test_proposed_cells_are_predicted_then_measured_and_no_others(project):
    assert project.planned(NEXT) == {"write_next": 1}
    project.snakemake(NEXT)
    assert not project.planned(NEXT)
    (round_,) = json.loads((project.folder / "results/predictions.json").read_text())["rounds"]
    cells = [one["cell"] for one in round_["predictions"]]
    assert cells and all(0 < one["factor"][0] < one["factor"][1] for one in round_["predictions"])
    page = (project.folder / NEXT).read_text()
    assert all(f"`{cell}`" in page for cell in cells) and "Predictions and what came" not in page
    before = (project.folder / "results/predictions.json").read_bytes()

    # Exactly these, each in as many processes as the study says; nothing of what was measured.
    jobs = project.planned(NEXT, *FLAG)
    assert jobs["measure_latency"] == 2 * len(cells)
    assert {name: jobs[name] for name in REPORTING} == REPORTING
    assert not project.planned()  # without the flag nothing changes

    project.snakemake(NEXT, *FLAG)
    assert not project.planned(NEXT, *FLAG)
    assert (project.folder / "results/predictions.json").read_bytes() == before
    page = (project.folder / NEXT).read_text()
    assert "Predictions and what came" in page and page.count(f"| {round_['made'][:10]}") == len(cells)

    # They stay in the study: the summary shows them without the flag, and times nothing again.
    assert "measure_latency" not in project.planned()
    project.snakemake("results/tables/cells.csv")
    table = (project.folder / "results/tables/cells.csv").read_text()
    runtime, model, precision, shape = cells[0].split("/")
    assert f",{runtime},,{model},{precision},{shape}," in table or (f"{runtime}" in table and shape in table)

    # The next round is planned only when it is asked for, and appended.
    project.snakemake(NEXT)
    rounds = json.loads((project.folder / "results/predictions.json").read_text())["rounds"]
    assert rounds[0] == round_ and not {one["cell"] for one in rounds[-1]["predictions"]} & set(cells)


@pytest.mark.slow
def test_the_proposed_study_is_one_and_times_no_cell_that_was_measured(project):
    project.snakemake(NEXT)
    study = yaml.safe_load((project.folder / "results/next.yaml").read_text())
    advice = json.loads((project.folder / "results/next.json").read_text())["advice"]
    proposed = {cell for one in advice if not one["missing"] and one["lever"] != "processes" for cell in one["cells"]}
    swept = {
        "/".join((*sweep["runtimes"], *sweep["models"], *sweep["precisions"], *sweep["shapes"]))
        for sweep in study["sweeps"].values()
    }
    assert swept == proposed | {one["before"] for one in advice if set(one["cells"]) & proposed}
    jobs = project.planned("results/summary.md", "--configfile", "results/next.yaml")
    # What is new: the proposed cells, and the second cell of the A/A pair where it is another one's than before.
    assert 2 * len(proposed) <= jobs["measure_latency"] <= 2 * (len(proposed) + 1)


def test_a_changed_record_of_predictions_is_refused(project):
    changed = {"study": "tiny", "made": "", "tables": {}, "predictions": [], "digest": "x"}
    record = project.folder / "results/predictions.json"
    record.write_text(json.dumps({"schema_version": 1, "rounds": [changed]}))
    done = project.snakemake("results/summary.md", "--dry-run", check=False)
    assert done.returncode and "round 1 was changed after it was written" in done.stdout + done.stderr
