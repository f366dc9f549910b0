"""The record of predictions is only appended to, and its cells join the study when they should."""

from __future__ import annotations

import copy
import json

import pytest

from ceilings.errors import UserError
from ceilings.host import Gpu, Host
from ceilings.study import prediction_log as log
from ceilings.study.lacking import lacking
from ceilings.study.next_cells import next_study
from ceilings.study.study import Study

LAPTOP = Host("cpu-test", "Test CPU", 4, None, "no CUDA device on this machine")
SWEEP = {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1], "sequences": [32]}
CONFIG = {"study": "s", "models": {"m": {"architecture": "distilbert"}}, "sweeps": {"one": SWEEP}}
INT8, LARGER = "onnxruntime-cpu/m/int8/b1-s32", "onnxruntime-cpu/m/fp32/b4-s32"


def prediction(cell=INT8, device="cpu-test", factor=(0.2, 1.5)):
    before = {"before": "onnxruntime-cpu/m/fp32/b1-s32", "per_inference": False}
    return {"cell": cell, "device": device, "model": "m", "lever": "x", "factor": list(factor), **before}


def add(path, *predictions, study="s", made="2026-11-26T10:00:00+00:00"):
    return log.append(path, study, made, {"cells.parquet": "ab"}, predictions)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def asked(**changes):
    study = Study({**CONFIG, **changes}, LAPTOP)
    return {cell.identity for cell in study.cells if not cell.aa_of}


def test_rounds_are_appended_and_what_says_the_same_is_not(tmp_path):
    path = tmp_path / "predictions.json"
    assert log.read(path) == []
    assert add(path, prediction()) and not add(path, prediction(), made="2026-11-27T10:00:00+00:00")
    first = log.read(path)
    assert add(path, prediction(factor=(0.3, 1.2))) and add(path, prediction(), study="another")
    assert log.read(path)[:1] == first and len(log.read(path)) == 3


def change_range(record):
    record["rounds"][0]["predictions"][0]["factor"] = [0.5, 0.6]


def change_date(record):
    record["rounds"][0]["made"] = "2020-01-01T00:00:00+00:00"


def drop_first(record):
    del record["rounds"][0]


def drop_digest(record):
    del record["rounds"][1]["digest"]


def another_schema(record):
    record["schema_version"] = 9


@pytest.mark.parametrize("change", [change_range, change_date, drop_first, drop_digest, another_schema])
def test_a_changed_record_is_refused(tmp_path, change):
    path = tmp_path / "predictions.json"
    add(path, prediction())
    add(path, prediction(factor=(0.3, 1.2)))
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"predictions\.json.*; restore it"):
        log.read(path)


def test_a_proposed_cell_joins_the_study_while_it_is_asked_for(folder):
    base = asked()
    add(folder / "predictions.json", prediction(), prediction(LARGER))
    assert asked() == base
    assert asked(next="run") == {*base, INT8, LARGER}


def test_a_withdrawn_proposal_is_not_measured(folder):
    add(folder / "predictions.json", prediction(), prediction(LARGER))
    add(folder / "predictions.json", prediction(LARGER))
    assert asked(next="run") - asked() == {LARGER}


def test_a_cell_that_was_begun_stays_in_the_study_with_its_prediction(folder):
    base = asked()
    add(folder / "predictions.json", prediction(), prediction(LARGER))
    run = folder / "benchmarks/cpu-test" / INT8 / "run1.json"
    run.parent.mkdir(parents=True)
    run.write_text("{}")
    add(folder / "predictions.json")  # nothing is proposed any more
    assert asked() == asked(next="run") == {*base, INT8}
    plan = json.loads(Study(CONFIG, LAPTOP).plan())
    assert [one["cell"] for one in plan["predictions"]] == [INT8]


@pytest.mark.parametrize(
    "other",
    [
        prediction(device="nvidia-h200"),
        prediction("onnxruntime-cpu/gone/int8/b1-s32"),
        prediction("no-such-runtime/m/int8/b1-s32"),
        prediction("onnxruntime-cpu/m/fp16/b1-s32"),
    ],
)
def test_predictions_of_other_machines_models_and_runtimes_add_nothing(folder, other):
    add(folder / "predictions.json", other)
    add(folder / "predictions.json", prediction(), study="another study")
    assert asked(next="run") == asked()


def test_a_model_that_no_longer_takes_a_predicted_shape_is_no_error(folder):
    add(folder / "predictions.json", prediction("onnxruntime-cpu/m/fp32/b1-s64"), prediction(INT8))
    shorter = {"m": {"architecture": "distilbert", "weights": "random", "config": {"max_position_embeddings": 32}}}
    assert asked(next="run", models=shorter) - asked(models=shorter) == {INT8}


def test_a_sweep_of_the_user_keeps_its_name(folder):
    add(folder / "predictions.json", prediction())
    config = {**copy.deepcopy(CONFIG), "next": "run"}
    config["sweeps"]["next-1"] = {**SWEEP, "batches": [2]}
    study = Study(config, LAPTOP)
    assert study.config["sweeps"]["next-1"]["batches"] == [2]
    assert {cell.identity for cell in study.cells} >= {INT8, "onnxruntime-cpu/m/fp32/b2-s32"}


def test_the_study_of_proposed_cells_has_these_and_no_other():
    cells = ["onnxruntime-cpu/m/fp32/b1-s32", INT8]
    config = {**CONFIG, "noise_cells": [LARGER], "quality": {"cells": ["torch-eager/*"]}, "next": "run"}
    study = Study(next_study(config, cells), LAPTOP)
    assert {cell.identity for cell in study.cells if not cell.aa_of} == set(cells)


def test_what_the_machine_lacks_is_named_with_a_remedy_for_its_devices_alone():
    planner = Study(CONFIG, LAPTOP)._planner
    cells = {cell for entry in lacking([LAPTOP], ["m"], planner.availability) for cell in entry["cells"]}
    assert not any("cuda" in cell or "tensorrt" in cell for cell in cells)
    gpu = Host("cpu-test", "Test CPU", 4, Gpu("nvidia-test", "NVIDIA Test", "GPU-0", "580.1", (9, 0), 80 << 30), None)
    planner = Study(CONFIG, gpu)._planner
    entries = lacking([gpu], ["m"], planner.availability)
    named = {cell: entry for entry in entries for cell in entry["cells"]}
    assert named["tensorrt/m/fp16"]["remedy"] and all(entry["remedy"] for entry in entries)
