"""The program that searches the best batch, on ONNX Runtime's real kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from unit.measure import tiny_cell
from unit.planted_records import WEIGHTS

from ceilings import host as hosts
from ceilings import records
from ceilings.report.tables import gates
from ceilings.statistics import search_record
from ceilings.statistics.limit_search import answer

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"
CELL = {"device": hosts.detect({}).device("cpu"), "runtime": "onnxruntime-cpu", "model": "tiny", "precision": "fp32"}

pytestmark = pytest.mark.slow


def search(folder, executed=None, **changes):
    """The record of a search, and what the program printed.

    Args:
        executed: The graph that is measured, where it is another one than the reference's.
    """
    task = tiny_cell.make(folder, [["closed-loop", "closed_loop"]])
    records.write(folder / "provenance.json", "weights", WEIGHTS)
    wanted = {"limit_ms": 100.0, "limit_times": None, "percentile": "p50", "most": 2, "multiple": 1, "processes": 3}
    spec = task["spec"] | {"search": wanted | changes}
    command = [
        *(sys.executable, SCRIPTS / "search_batch.py", "--spec", json.dumps(spec), "--rest", "s4"),
        *(word for name, value in CELL.items() for word in (f"--{name}", value)),
        *("--artifact", executed or task["artifact"], "--weights-dir", folder, "--graph", task["artifact"]),
        *("--inputs", json.dumps({"pool": 3, "seed": 0, "lengths": None}), "--output", folder / "search.json"),
    ]
    alone = {**os.environ, "CEILINGS_LOCKS": str(folder)}  # tests beside each other do not wait for each other
    done = subprocess.run(command, check=True, timeout=100, capture_output=True, text=True, env=alone)
    return records.read(folder / "search.json", "best-batch"), done.stdout


def test_each_batch_is_measured_in_fresh_processes_and_the_best_once_more(tmp_path):
    record, printed = search(tmp_path)
    measured = search_record.measured(record["search"], record["steps"])
    best = answer(measured[:-1], 2).best
    assert [(step["batch"], step["again"]) for step in record["steps"]] == [(1, False), (2, False), (best, True)]
    assert all(len(step["runs"]) == 3 for step in record["steps"])
    first = {tuple(run["latency_ns"]) for step in record["steps"] for run in step["runs"]}
    assert len(first) == 9, "no process is counted twice"
    assert record["steps"][1]["runs"][0]["parity"]["rows"] == 8, "two elements of two outputs at batch 2"
    assert record["cell"] == CELL | {"rest": "s4"} and record["provenance"]["packages"]
    assert gates.best_batch(record, {"tolerances": {"fp32": 1e-3}}) is None
    assert [line.split(":")[0] for line in printed.splitlines()] == ["batch 1", "batch 2", f"batch {best} again"]


def test_wrong_outputs_end_the_search_at_its_smallest_batch(tmp_path):
    tiny_cell.make(tmp_path, [])
    wrong = onnx.load(tmp_path / "fp32.onnx")
    wrong.graph.node[1].op_type = "Sub"
    onnx.save(wrong, tmp_path / "wrong.onnx")
    record, _ = search(tmp_path, tmp_path / "wrong.onnx")
    assert (record["status"], record["failure"]["kind"]) == ("failed", "parity")
    assert record["failure"]["message"].startswith("at batch 1: ")
    assert [step["batch"] for step in record["steps"]] == [1]
