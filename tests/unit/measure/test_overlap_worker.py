"""The process that measures schedules, whole, on a simulated device: what it records, and what it refuses."""

import argparse
import types
from pathlib import Path

import pytest

pytest.importorskip("cuda.bindings")

from unit.measure import tiny_cell
from unit.measure.simulated_cuda import SimulatedCuda, runner

import measure_overlap
from ceilings import records
from ceilings.measure import lanes, overlap_worker
from ceilings.measure.schedules import ONE, ROUNDS
from ceilings.statistics.pipelining import log_gains, log_repeats, parts

PROTOCOL = {"warmup_seconds": 0.0, "warmup_max_seconds": 0.2, "min_seconds": 0.0, "time_limit_seconds": 100}


class Watch:
    """NVML, where there is none."""

    def __init__(self, uuid, pids):
        assert uuid == "GPU-1" and pids

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def begin(self):
        pass

    def end(self):
        return {"activity": None}

    def flags(self):
        return []

    def facts(self):
        return {"refused": {}}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    def measure(error=0.0):
        device = SimulatedCuda().install(monkeypatch)
        bench = types.SimpleNamespace(refuse_other_device=lambda slug: None, memory=dict)
        for module in (lanes, overlap_worker):
            monkeypatch.setattr(module, "make_runner", lambda task: runner(device))
        monkeypatch.setattr(overlap_worker, "make_bench", lambda one: bench)
        monkeypatch.setattr(overlap_worker, "GpuWatch", Watch)
        monkeypatch.setattr(overlap_worker, "SHORTEST_SECONDS", 0.0)
        task = tiny_cell.make(tmp_path, [], error)
        spec = {**task["spec"], "protocol": PROTOCOL, "streams": [2], "variables": None}
        return task, overlap_worker.measure({**task, "spec": spec, "gpu": "GPU-1", "streams": [2]})

    return measure


def test_its_record_is_one_that_can_be_read(measured):
    task, found = measured()
    assert found["failure"] is None
    about = {"cell": task["cell"], "run": 1, "log": None, "streams": [2], "protocol": PROTOCOL}
    record = records.sealed("overlap", {**about, **found})
    assert record["bytes_in"] == record["bytes_out"] == 2 * 2 * 4 * 4 and record["batch"] == 2
    assert [one["name"] for one in record["schedules"]][:2] == [ONE, "sequential"]
    assert len(log_repeats(record)) == len(log_gains(record, "streams-2")) == ROUNDS
    assert parts(record).compute == 3000 and parts(record).host > 0
    assert record["checked"] >= sum(len(one["latency_ns"]) for one in record["windows"])


def test_it_says_that_one_element_shows_no_early_answer(measured):
    _, found = measured()
    assert found["elements"] == 1 and any("inputs.pool of 5 or more" in flag for flag in found["flags"])


def test_answers_that_differ_from_the_reference_get_no_number(measured):
    _, found = measured(error=1.0)
    assert found["status"] == "failed" and found["failure"]["kind"] == "parity"
    assert "windows" not in found


@pytest.mark.parametrize("error", [0.0, 1.0], ids=["measured", "failed"])
def test_the_program_writes_what_the_process_measured(measured, monkeypatch, tmp_path, error):
    task, found = measured(error)
    card = types.SimpleNamespace(uuid=lambda kind: "GPU-1")
    monkeypatch.setattr(measure_overlap.hosts, "having", lambda device, output, kind: card)
    monkeypatch.setenv("CEILINGS_LOCKS", str(tmp_path))
    seen = []
    monkeypatch.setattr(measure_overlap, "supervise", lambda given, worker: seen.append(given) or found)
    spec = {**task["spec"], "protocol": PROTOCOL, "streams": [2], "variables": None}
    files = {name: Path(task[name]) for name in ("artifact", "inputs", "reference", "workload")}
    output = tmp_path / "run1.json"
    measure_overlap.work(argparse.Namespace(**task["cell"], **files, spec=spec, run=1, log=None, output=output))
    record = records.read(output, "overlap")
    assert record["status"] == ("failed" if error else "ok") and ("windows" in record) != bool(error)
    assert seen[0]["streams"] == [2] and seen[0]["gpu"] == "GPU-1" and seen[0]["cell"] == task["cell"]
