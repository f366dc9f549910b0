"""A search for the best batch on a real card: each batch runs in separate processes, also where it captures a graph."""

from __future__ import annotations

import json

import pytest
from gpu.tiny_artifacts import TOLERANCE, Artifacts, program

from ceilings import records
from ceilings.measure import catalogue
from ceilings.report.tables import gates
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.slices import SEARCHED

SEARCH = {"limit_ms": 1000.0, "limit_times": None, "percentile": "p50", "most": 4, "multiple": 2, "processes": 3}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return Artifacts(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("runtime", ["torch-cuda-eager", "onnxruntime-cuda", "onnxruntime-cuda-graph"])
def test_each_batch_is_measured_and_the_best_once_more(artifacts, tmp_path, runtime):
    task = artifacts.task(runtime)
    spec = {**task["spec"], "search": SEARCH, "measurements": catalogue.task_entries("cuda", SEARCHED)}
    of_weights = RUNTIMES[runtime].artifact == "weights"
    cell = {name: value for name, value in task["cell"].items() if name != "shape"}
    program(
        "search_batch",
        *(word for name, value in cell.items() for word in (f"--{name}", value)),
        *("--rest", "s32", "--spec", json.dumps(spec), "--weights-dir", artifacts.weights),
        *("--artifact", artifacts.weights / "model.safetensors" if of_weights else task["artifact"]),
        *("--inputs", json.dumps({"pool": 4, "seed": 0, "lengths": None}), "--output", tmp_path / "search.json"),
    )
    record = records.read(tmp_path / "search.json", "best-batch")
    print(runtime, record["status"], [(step["batch"], step["failure"]) for step in record["steps"]])
    assert record["status"] == "ok"
    assert [step["batch"] for step in record["steps"][:2]] == [2, 4] and record["steps"][2]["again"]
    assert all(run["memory"]["peak_device_bytes"] > 0 for step in record["steps"] for run in step["runs"])
    assert gates.best_batch(record, {"tolerances": TOLERANCE}) is None
