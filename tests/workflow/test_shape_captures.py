"""Captured changes of shape in the real pipeline: the record, the tables, the section, and what makes it anew."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
from tiny import STUDY, SUMMARY

from ceilings import host, records

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

CELL = "onnxruntime-cpu/tiny/fp32"
RECORD = f"results/changing/{host.detect({}).cpu_slug}/{CELL}/lengths/change.json"


def capturing(change=lambda study: None):
    study = copy.deepcopy(STUDY)
    study["sequences"] = {"lengths": {"order": "alternating", "shapes": ["b1-s8", "b1-s16"], "requests": 8}}
    study["changing"] = {"cells": [f"{CELL}/*"], "captures": [f"{CELL}/*"]}
    study["protocol"] |= {"processes": 1}
    study["traces"] = {"iterations": 20}
    change(study)
    return study


def test_a_captured_change_is_in_the_tables_and_in_the_summary(project):
    project.configure(capturing())
    project.snakemake(SUMMARY)
    record = records.read(project.folder / RECORD, "shape-change")
    assert record["status"] == "ok" and record["changes"]["requests"] >= 20
    costs = pd.read_csv(project.folder / "results/tables/shape_changes.csv")
    host_side = costs[(costs["side"] == "host") & (costs["compared"] == "change")]
    assert {"operators", "other code"} <= set(host_side["part"])
    section = (project.folder / SUMMARY).read_text().split("## What a change of shape consists of")[1].split("\n## ")[0]
    assert "lengths: a change takes" in section and "lengths: a first appearance takes" in section
    project.configure(capturing(lambda study: study["traces"].update(iterations=30)))
    planned = project.planned(RECORD)
    assert planned == {"capture_changing": 1, "account_change": 1}
