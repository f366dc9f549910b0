"""Changing shapes in the real pipeline: their records, the report of them, and what is made anew."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
from tiny import STUDY, SUMMARY

from ceilings import host, records
from ceilings.report.catalogue import CHANGING, SHOWS, plots_of

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

CELL = "onnxruntime-cpu/tiny/fp32"
SET = "onnxruntime-cpu+arena=off"
SEQUENCES = {
    "lengths": {"order": "alternating", "shapes": ["b1-s8", "b1-s16", "b1-s12"], "requests": 9},
    "batches": {"order": "alternating", "axes": {"batch": [1, 2], "sequence": [16]}, "requests": 8},
}
RESULTS = f"results/changing/{host.detect({}).cpu_slug}"
FOLDER = f"{RESULTS}/{CELL}"
REPORT = {"collect_cells": 1, "draw_plot": len(plots_of({CHANGING})), "write_summary": 1}


def changing(change=lambda study: None):
    study = copy.deepcopy(STUDY) | {"sequences": copy.deepcopy(SEQUENCES)}
    study["sweeps"]["set"] = {**STUDY["sweeps"]["one"], "runtimes": [SET], "precisions": ["fp32"], "batches": [1]}
    study["changing"] = {"cells": [f"{CELL}/*", f"{SET}/tiny/fp32/lengths"], "buckets": {"most": 2}}
    study["protocol"] |= {"processes": 1}
    change(study)
    return study


def test_records_report_and_what_is_made_anew(project):
    project.configure(changing())
    project.snakemake(SUMMARY)
    for name, kind in (("lengths", "run"), ("lengths", "padded"), ("batches", "run")):
        record = records.read(project.folder / FOLDER / name / f"{kind}1.json", "changing")
        assert (record["status"], record["padded"]) == ("ok", kind == "padded")
    assert not (project.folder / FOLDER / "batches/buckets.json").exists()  # of one length, so there is nothing to pad
    set_ = records.read(project.folder / RESULTS / SET / "tiny/fp32/lengths/run1.json", "changing")
    assert set_["runtime"]["session"]["cpu_arena"] is False
    chosen = records.read(project.folder / FOLDER / "lengths/buckets.json", "buckets")
    assert [point["buckets"] for point in chosen["curve"]] == [1, 2]
    assert set(padded_shapes(project)) == set(chosen["buckets"])
    hold_report(project)
    hold_what_is_made_anew(project)


def padded_shapes(project):
    return records.read(project.folder / FOLDER / "lengths/padded1.json", "changing")["requests"]["shapes"]


def hold_report(project):
    """Every table and picture of changing shapes, and the section, with both sequences."""
    summary = (project.folder / SUMMARY).read_text()
    section = summary.split("## Changing shapes")[1].split("\n## ")[0]
    assert "lengths, 3 shapes" in section and "batches, 2 shapes" in section and "Padded to buckets" in section
    table = pd.read_csv(project.folder / "results/tables/changing.csv")
    assert list(table["status"]) == ["ok"] * 3 and (table["processes"] == 1).all()
    assert list(table["levers"].fillna("")) == ["", "", "arena off"]
    for plot, part in SHOWS.items():
        if part == CHANGING:
            assert (project.folder / f"results/plots/{plot}.png").stat().st_size > 20_000, plot


def hold_what_is_made_anew(project):
    """Snakemake's plans after changes; nothing runs."""

    def planned(change):
        project.configure(changing(change))
        return project.planned()

    assert planned(lambda study: None) == {}
    two = {"measure_changing": 2, "choose_buckets": 2, "measure_padded": 2, **REPORT}
    assert planned(lambda study: study["sequences"]["lengths"].update(requests=12)) == two
    fewer = {"choose_buckets": 2, "measure_padded": 2, **REPORT}
    assert planned(lambda study: study["changing"]["buckets"].update(most=1)) == fewer
    (project.folder / FOLDER / "lengths/padded1.json").unlink()
    assert planned(lambda study: None) == {"measure_padded": 1, **REPORT}
