"""Captures of changing shapes that are real: ONNX Runtime and PyTorch on this machine's processor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unit.measure import changing_cell
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER

from ceilings import host as hosts
from ceilings import records
from ceilings.models import pool
from ceilings.traces import changing_target, health, store
from ceilings.traces.changing_target import AGAIN, captured_order
from ceilings.traces.shape_change import change_record
from ceilings.workload.shape import Shape
from ceilings.workload.shape_order import Requests
from ceilings.workload.workload import Workload

SCRIPTS = Path(changing_target.__file__).parents[2]
FETCH = SCRIPTS / "fetch_weights.py"
SETTLING = changing_target.SETTLING


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "weights"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {**sizes, "vocab_size": 100, "max_position_embeddings": 64}
    model = {"name": "tiny", "weights": "random", "seed": 2, "architecture": "bert", "config": config}
    model["task"] = "question-answering"
    subprocess.run([sys.executable, FETCH, "--model", json.dumps(model), "--output-dir", folder], check=True)
    return folder


def task_of(folder: Path, weights: Path, module: str, names: list[str], **options) -> dict:
    """What the capturing process is given: a tiny model, and requests of these shapes."""
    requests = Requests.of(map(Shape.parse, names)).to_json()
    workload, inputs = Workload.read(weights), {}
    for name in requests["shapes"]:
        shape = Shape.parse(name)
        made = tiny.element(ANSWERER, shape.batch, shape["sequence"])
        zeros = {tensor.name: np.zeros(tensor.sizes(shape), np.int64) for tensor in workload.inputs}
        arrays = {key: value[np.newaxis] for key, value in (zeros | made).items()}
        seal = np.array(pool.sealed(arrays, "random", 1.0))
        inputs[name] = str(folder / f"{name}.npz")
        named = {f"{pool.PREFIX}{key}": array for key, array in arrays.items()}
        pool.save(inputs[name], **named, sha256=seal, source=np.array("random"), real_share=np.array(1.0))
    return {
        "cell": {"device": "cpu-here", "runtime": "x", "model": "tiny", "precision": "fp32", "sequence": "mixed"},
        "spec": {"module": module, "threads": 1, "options": options, "requests": requests, "iterations": 6},
        "source": "torch",
        "raw": str(folder / "raw.sqlite"),
        "artifact": str(weights),
        "inputs": inputs,
        "workload": str(weights),
    }


def captured(task: dict):
    made = changing_target.run(task)
    capture = store.read(task["raw"])
    capture.meta.update(made)
    health.refuse_cut_short(capture, task["raw"])
    return capture


def test_every_shape_of_a_sequence_comes_again_behind_it():
    first, marked = captured_order([0, 1, 0, 2, 1], iterations=3, repeats=4)
    assert first == [1, 2] and marked[:3] == [0, 1, 0]
    assert marked[3:] == [0] * 5 + [1] * 5 + [2] * 5


def test_programs_capture_and_account_for_a_session_of_onnx_runtime(tmp_path):
    task = changing_cell.make(tmp_path)
    device = hosts.detect({}).device("cpu")
    spec = {**task["spec"], "source": "onnxruntime", "iterations": 20}
    inputs = [paths["inputs"] for paths in task["pools"].values()]
    subprocess.run(
        [
            *(sys.executable, SCRIPTS / "capture_changing.py", "--device", device, "--runtime", "onnxruntime-cpu"),
            *("--model", "tiny", "--precision", "fp32", "--sequence", "mixed", "--spec", json.dumps(spec)),
            *("--artifact", task["artifact"], "--inputs", *inputs, "--workload", task["workload"]),
            *("--output", tmp_path / "capture.sqlite"),
        ],
        check=True,
    )
    command = [sys.executable, SCRIPTS / "account_change.py", "--capture", tmp_path / "capture.sqlite"]
    subprocess.run([*command, "--output", tmp_path / "change.json"], check=True)
    record = records.read(tmp_path / "change.json", "shape-change")
    assert record["requests"] == 2 + 20 + 3 * (SETTLING + AGAIN + 1)
    for comparison in (record["changes"], record["first"]):
        parts = {part["part"]: part for part in comparison["host"]}
        assert set(parts) <= {"operators", "operators that grow the arena", "other code"} and "operators" in parts
        assert sum(part["cost_ns"] for part in parts.values()) == pytest.approx(comparison["cost_ns"]["mean"])
        assert comparison["device"] == [] and comparison["counts"] == {}


@pytest.mark.slow
def test_a_capture_of_eager_pytorch_has_its_operators_and_compiles_nothing(tmp_path, weights):
    capture = captured(task_of(tmp_path, weights, "torch_changing_cpu", ["b1-s16", "b2-s8", "b1-s16"]))
    record = change_record(capture)
    parts = {part["part"]: part for part in record["changes"]["host"]}
    assert set(parts) == {"operators", "other code"}
    assert parts["operators"]["again_ns"] > 0.1 * record["changes"]["again_ns"]
    assert record["changes"]["only"] == []


@pytest.mark.slow
def test_a_first_appearance_compiles_and_a_return_checks_guards_only(tmp_path, weights):
    task = task_of(tmp_path, weights, "torch_compile_changing_cpu", ["b1-s16", "b2-s8", "b1-s16"], sizes="constant")
    record = change_record(captured(task))
    first, changes = record["first"], record["changes"]
    compiling = next(part for part in first["host"] if part["part"] == "compiling")
    assert compiling["again_ns"] == 0 and compiling["cost_ns"] > 0.5 * first["cost_ns"]["mean"]
    assert first["only"][0]["name"] == "dynamo"
    assert "compiling" not in {part["part"] for part in changes["host"]}
    assert "checking guards" in {part["part"] for part in changes["host"]}
    assert changes["cost_ns"]["mean"] < 0.1 * first["cost_ns"]["mean"]
