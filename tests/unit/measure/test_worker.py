"""Cells measured in real processes: what a record holds, what passes no gate, and measurements from outside."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from unit.measure import tiny_cell

from ceilings import artifacts, host, plugins
from ceilings.environment import SCRIPTS, executing
from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json
from ceilings.measure import catalogue, worker
from ceilings.measure.supervisor import supervise
from ceilings.schemas.run import HOST_SPEED, LATENCIES
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

PLUGIN = """
from ceilings.measure.catalogue import Measurement
from ceilings.quantity import Quantity

MEASUREMENTS = [
    Measurement(
        "pairs",
        "pairs",
        ("cpu", "cuda"),
        (Quantity("pair_p50_ms", "pair p50", "ms", "number", "Two calls in a row.", "Latency",
                  source="series.latency_pair.latency_ns", scale=1e-6),),
        "Latency of two calls in a row.",
    )
]
"""

PAIRS = '''
def measure(bench):
    """The series ``latency_pair``."""

    def pair(slot):
        bench.runner.launch(slot)
        return bench.runner.launch(slot)

    return {"latency_pair": bench.closed_loop(pair)}
'''

OUTSIDE = """
import json
from ceilings.measure import catalogue
columns = [one.column for one in catalogue.quantities()]
print(json.dumps([catalogue.task_entries("cpu"), columns, catalogue.modules("cpu")]))
"""


def test_a_record_holds_every_measurement_of_the_task(tmp_path):
    record = supervise(tiny_cell.make(tmp_path, catalogue.task_entries("cpu")))
    assert record["status"] == "ok", record["failure"]
    assert list(record["series"]) == ["latency", "throughput"]
    latency = record["series"]["latency"]
    assert set(latency) == {*LATENCIES, *HOST_SPEED}
    assert len(latency["latency_ns"]) >= 20 and latency["gpu_ns"] is None
    assert record["parity"]["relative_l2"] < 1e-6 and record["parity"]["rows"] == 8
    assert record["parity"]["tolerance"] == 1e-3
    assert {"import", "load", "first_run"} <= set(record["cold_start_ns"])
    assert record["memory"]["peak_rss_bytes"] > 1e6 and record["memory"]["peak_device_bytes"] is None
    assert set(record["provenance"]["sources"]) == {"inputs", "reference", "workload", "artifact"}


WHOLE = """import json, sys; open(sys.argv[2], "w").write(json.dumps({"status": "ok"}))"""


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("import a_package_that_is_not_here", ("runtime-error", "ModuleNotFoundError: No module named")),
        ("raise RuntimeError('no kernel\\nfor this type')", ("runtime-error", "RuntimeError: no kernel")),
        ("raise SystemExit(3)", ("runtime-error", "exit status 3")),
        ("pass", ("runtime-error", "left no whole record")),
        ("import sys; open(sys.argv[2], 'w').write('{\"status\": \"o')", ("runtime-error", "left no whole record")),
        ("import sys; open(sys.argv[2], 'w').write('[]')", ("runtime-error", "left no whole record")),
        ("import os; os.kill(os.getpid(), 9)", ("crashed", "ended by SIGKILL; the system may have run out of memory")),
        ("import os; os.kill(os.getpid(), 36)", ("crashed", "ended by signal 36")),
        ("import time; time.sleep(60)", ("timed-out", "no result after 1 s")),
        (f"import os; os.write(1, b'\\xff'); os.write(2, b'\\xff'); {WHOLE}", None),
        (f"import subprocess; subprocess.Popen(['sleep', '60']); {WHOLE}", None),  # it holds what it inherited
    ],
)
def test_however_a_worker_ends_is_a_record(tmp_path, monkeypatch, program, failure):
    (tmp_path / "faulty_worker.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    record = supervise({"spec": {"protocol": {"time_limit_seconds": 1}, "threads": 1}}, "faulty_worker")
    if failure is None:
        assert record["status"] == "ok"
    else:
        assert record["status"] == "failed" and record["series"] == {}
        assert record["failure"]["kind"] == failure[0] and failure[1] in record["failure"]["message"]


def test_a_measurement_that_raises_is_named(tmp_path, monkeypatch):
    package = tmp_path / "plugin" / "measure" / "measurements"
    package.mkdir(parents=True)
    (package.parents[1] / "catalogue.py").write_text("")
    (package / "broken.py").write_text("def measure(bench):\n    raise KeyError('no such counter')\n")
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "plugin"))
    record = supervise(tiny_cell.make(tmp_path, [["closed-loop", "closed_loop"], ["counters", "broken"]]))
    assert record["failure"] == {
        "kind": "runtime-error",
        "message": "the measurement counters raised KeyError: 'no such counter'",
    }


def test_what_the_user_can_mend_is_no_record(tmp_path, monkeypatch):
    (tmp_path / "faulty_worker.py").write_text("raise SystemExit('error: the pool is damaged')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match="the pool is damaged"):
        supervise({"spec": {"protocol": {"time_limit_seconds": 1}, "threads": 1}}, "faulty_worker")


def test_what_is_not_asked_for_is_not_measured(tmp_path):
    record = supervise(tiny_cell.make(tmp_path, catalogue.task_entries("cpu", ["closed-loop"])))
    assert record["status"] == "ok" and list(record["series"]) == ["latency"]


def test_every_output_passes_the_gate(tmp_path):
    record = supervise(tiny_cell.make(tmp_path, catalogue.task_entries("cpu"), error=1.0))
    assert record["status"] == "failed" and record["failure"]["kind"] == "parity"
    assert record["series"] == {} and record["memory"]["peak_rss_bytes"] > 0


def test_a_measurement_from_outside_the_package(tmp_path, monkeypatch):
    """A plug-in folder: a row, a module, and nothing of the library is touched."""
    folder = tmp_path / "mine"
    (folder / "measure/measurements").mkdir(parents=True)
    (folder / "catalogue.py").write_text(PLUGIN)
    (folder / "measure/measurements/pairs.py").write_text(PAIRS)
    monkeypatch.setenv(plugins.VARIABLE, "")  # restored at the end
    plugins.activate([folder])
    done = subprocess.run([sys.executable, "-c", OUTSIDE], env=executing(1), capture_output=True, text=True, check=True)
    entries, columns, modules = json.loads(done.stdout)
    assert entries == [["closed-loop", "closed_loop"], ["saturated", "saturated"], ["pairs", "pairs"]]
    assert "pair_p50_ms" in columns and "ceilings.measure.measurements.pairs" in modules
    record = supervise(tiny_cell.make(tmp_path, entries))
    assert record["status"] == "ok", record["failure"]
    series = record["series"]
    assert list(series) == ["latency", "throughput", "latency_pair"]
    single, pair = (min(series[name]["latency_ns"]) for name in ("latency", "latency_pair"))
    assert pair > 1.3 * single


def test_what_padding_gives_does_not_count():
    """Of an output with a sequence; one vector an input counts whole, even if it is as wide as the sequence is long."""
    dims = ("batch", "sequence")
    outputs = (TensorSpec("tokens", "float32", (*dims, 2)), TensorSpec("vector", "float32", ("batch", 3)))
    workload = Workload(TASKS["token-classification"], (TensorSpec("mask", "int64", dims, "mask"),), outputs)
    elements = [{"mask": np.array([[1, 1, 0]])}]
    reference = {"tokens": np.ones((1, 1, 3, 2), np.float32), "vector": np.ones((1, 1, 3), np.float32)}
    padded = {name: array.copy() for name, array in reference.items()}
    padded["tokens"][0, 0, 2] = np.nan
    assert worker.gate(workload, elements, padded, reference, 1e-3)["relative_l2"] == 0
    padded["vector"][0, 0, 2] = 2
    with pytest.raises(CellFailure, match=r"relative L2 difference from the FP32 reference is 0\.577; allowed 0\.001"):
        worker.gate(workload, elements, padded, reference, 1e-3)
    padded["vector"][0, 0, 2] = np.nan
    with pytest.raises(CellFailure, match="the output vector has a NaN"):
        worker.gate(workload, elements, padded, reference, 1e-3)
    with pytest.raises(CellFailure, match="output vector has shape"):
        worker.gate(workload, elements, padded | {"vector": padded["vector"][..., :2]}, reference, 1e-3)


def test_what_could_not_be_made_is_a_failed_record_without_a_process(tmp_path):
    """The worker would call the empty graph an error of another kind."""
    task = tiny_cell.make(tmp_path, catalogue.task_entries("cpu"))
    with artifacts.made(tmp_path / "fp32.json", [task["artifact"]], "graph"):
        raise CellFailure("unsupported", "no such operator")
    device = host.detect({}).device("cpu")
    arguments = [
        *("--device", device, "--runtime", "onnxruntime-cpu", "--model", "tiny", "--precision", "fp32"),
        *("--shape", "b2-s4", "--spec", json.dumps(task["spec"]), "--output", tmp_path / "run1.json"),
        *(part for name in ("artifact", "inputs", "reference", "workload") for part in (f"--{name}", task[name])),
    ]
    subprocess.run([sys.executable, SCRIPTS / "measure_latency.py", *arguments], check=True, env=executing(1))
    record = read_json(tmp_path / "run1.json")
    assert record["status"] == "failed" and record["series"] == {}
    assert record["failure"] == {"kind": "unsupported", "message": "no such operator"}
    assert record["cell"] == {**task["cell"], "device": device}


def test_a_regression_that_says_the_same_of_every_input_fails():
    one = TensorSpec("x", "float32", ("batch", 1), "reals")
    workload = Workload(TASKS["sequence-classification"], (one,), (TensorSpec("score", "float32", ("batch", 1)),))
    scores = 3 + 0.01 * np.arange(8, dtype=np.float32).reshape(1, 8, 1)
    elements = [{"x": scores[0]}]
    assert worker.gate(workload, elements, {"score": scores}, {"score": scores}, 0.02)["top1_agreement"] is None
    with pytest.raises(CellFailure, match=r"is 1 of what the reference differs by between inputs; allowed 0\.5"):
        worker.gate(workload, elements, {"score": np.full_like(scores, scores.mean())}, {"score": scores}, 0.02)


def test_a_wrong_row_among_many_right_ones_fails():
    one = TensorSpec("x", "float32", ("batch", 1), "reals")
    workload = Workload(TASKS["sentence-embedding"], (one,), (TensorSpec("vector", "float32", ("batch", 8)),))
    reference = np.random.default_rng(0).choice([-1, 1], size=(2, 32, 8)).astype(np.float32)
    wrong = reference.copy()
    wrong[1, 7, :5] *= -1
    with pytest.raises(CellFailure, match=r"one row of the outputs differs .* by 1\.58 of its norm; allowed 1$"):
        worker.gate(workload, [{"x": reference[0, :, :1]}] * 2, {"vector": wrong}, {"vector": reference}, 0.25)


def test_a_reference_that_does_not_depend_on_the_input_is_flagged():
    elements = [{"x": np.array([number])} for number in (1.0, 2.0)]
    same, other = np.ones((2, 1, 3)), np.arange(6.0).reshape(2, 1, 3)
    assert worker.constant(elements, {"y": same}) and not worker.constant(elements, {"y": same, "z": other})
    assert "one input" in worker.constant([elements[0]], {"y": other[:1]})[0]
