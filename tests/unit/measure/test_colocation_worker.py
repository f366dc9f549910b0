"""Co-locations measured for real: instances as threads and as processes, on ONNX Runtime's kernels."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from unit.measure import colocation_cell, tiny_cell
from unit.measure.colocation_cell import CELL

from ceilings import host as hosts
from ceilings import records
from ceilings.errors import CellFailure, UserError
from ceilings.measure import colocation_worker
from ceilings.measure.colocation import ROUNDS, Placed, company, placed
from ceilings.measure.instance import Instance, ProcessHost, ThreadHost, Window
from ceilings.statistics.interference import log_gains, paces, references

SCRIPTS = Path(colocation_worker.__file__).parents[2]
MACHINE = [(0, 4), (1, 5), (2, 6), (3, 7)]


def record_of(task, measured, cores="shared"):
    content = {
        **{"device": "cpu-here", "group": "tiny", "how": task["how"], "cores": cores, "run": 1, "log": None},
        **{"cells": [CELL] * sum(one["member"] for one in task["instances"]), "protocol": task["protocol"]},
    }
    return records.sealed("colocation", content | measured)


def test_shared_cores_are_for_all_and_split_ones_for_each_alone():
    assert placed(["a", "b"], "shared", 4, MACHINE) == [Placed("a", 4), Placed("b", 4)]
    split = placed(["a", "a"], "split", 3, MACHINE)
    assert split == [Placed("a", 2, (0, 4, 1, 5)), Placed("a", 2, (2, 6, 3, 7)), Placed("a", 3, (), member=False)]
    assert company(split) == [(0, 1)]
    assert [one.processors for one in placed(["a", "b", "c"], "split", 1, MACHINE)[:3]] == [(0, 4), (1, 5), (2, 6)]
    with pytest.raises(ValueError, match="4 cores cannot be split among 5"):
        placed(["a"] * 5, "split", 1, MACHINE)


def test_of_four_each_pair_of_cells_computes_together_and_all_do():
    assert company(placed(["a", "a", "b", "b"], "shared", 1, MACHINE)) == [(0, 1), (0, 2), (2, 3), (0, 1, 2, 3)]


def test_a_long_request_that_crosses_the_end_of_its_window_counts():
    """Of requests of 1 and 10 in turn, windows of any place hold as many of each: none is missing for its length."""
    spans, end = [], 0
    for turn in range(400):
        spans.append((end, end + (10 if turn % 2 else 1)))
        end = spans[-1][1]
    counted = [
        latency for at in range(30, 1000, 37) for latency in colocation_worker.within(spans, at, at + 37)["latency_ns"]
    ]
    assert abs(counted.count(10) - counted.count(1)) <= 2


class Watch:
    """Of a card whose counters say what is used, or do not."""

    def __init__(self, shares):
        self.shares = shares

    def begin(self):
        pass

    def end(self):
        return self.shares


class Quick:
    """An instance whose one request fills each window."""

    pid = os.getpid()

    def call(self, command, window):
        done = concurrent.futures.Future()
        done.set_result([(window.begins_ns, window.closes_ns + 1), (window.closes_ns - 1, window.closes_ns + 1)])
        self.window = window
        return done


@pytest.mark.parametrize(
    ("shares", "long"),
    [({"activity": {"sm": 0.4}}, 1), ({"activity": {"sm": None}}, 3), ({"activity": None}, 3), (None, 1)],
    ids=["counters", "a counter without a value", "utilisation alone", "separate cards"],
)
def test_instances_settle_for_long_only_where_what_is_used_is_known_by_looking_back(monkeypatch, shares, long):
    monkeypatch.setattr(colocation_worker, "LOOKING_BACK_SECONDS", 0.05)
    monkeypatch.setitem(colocation_worker.SETTLING_SECONDS, "cuda", 0.01)
    cell = dict(zip(("runtime", "model", "precision", "shape"), CELL.split("/"), strict=True))
    instance = Quick()
    led = colocation_worker._Led({"gpu": "GPU-1", "instances": [{"cell": cell}]}, [instance], Watch(shares))
    settled = []
    for _ in range(3):
        window = led.window([0], 0.001)
        settled.append(window["opened_ns"] - instance.window.begins_ns)
    assert settled == [50_000_000] * long + [10_000_000] * (3 - long)


@pytest.mark.parametrize("how", ["threads", "processes"])
def test_instances_are_measured_alone_and_in_company_in_the_same_processes(tmp_path, monkeypatch, how):
    task = colocation_cell.make(tmp_path, how)
    monkeypatch.setitem(colocation_worker.SETTLING_SECONDS, "cpu", 0.01)
    record = record_of(task, colocation_worker.measure(task))
    assert (record["status"], record["failure"]) == ("ok", None)
    kinds = [(window["round"], window["reference"], window["instances"]) for window in record["windows"]]
    company_at = [at for at, (_, reference, _) in enumerate(kinds) if not reference]
    assert kinds[0][:2] == (0, True) and len(company_at) == ROUNDS
    assert all(kinds[at][2] == [0, 1] for at in company_at)
    for window in record["windows"]:
        length = window["closed_ns"] - window["opened_ns"]
        for one in window["answers"].values():
            # All of them are at work in all of the window: nothing but what lies between two requests is missing.
            assert sum(one["latency_ns"][:-1]) <= length
            assert len(one["latency_ns"]) - 1 <= one["completions"] <= len(one["latency_ns"]) + 1
    assert all(one["parity"]["relative_l2"] < 1e-3 and one["answers"] >= 2 for one in record["instances"])
    assert all(len(references(record, at)) == ROUNDS + 1 and len(paces(record, (0, 1), at)) == ROUNDS for at in (0, 1))
    assert len(log_gains(record, (0, 1), {0: 0, 1: 1})) == ROUNDS
    sources = record["provenance"]["sources"]
    assert {f"{CELL} artifact", f"{CELL} inputs"} <= set(sources)
    assert record["provenance"]["packages"]["onnxruntime"]


def test_wrong_answers_of_one_instance_in_company_end_the_run_by_name(tmp_path):
    task = colocation_cell.make(tmp_path, error=1.0)
    measured = colocation_worker.measure(task)
    assert (measured["status"], measured["failure"]["kind"]) == ("failed", "parity")
    assert measured["failure"]["message"].startswith(f"{CELL}, instance 2: ")
    assert "windows" not in measured


def test_an_instance_keeps_to_its_processors(tmp_path):
    processor = max(os.sched_getaffinity(0))
    task = {**tiny_cell.make(tmp_path, []), "processors": [processor]}
    host = ThreadHost(task)
    assert host.call("load").result()["pass_ns"] > 0
    assert host._thread.submit(os.sched_getaffinity, 0).result() == {processor}
    assert os.sched_getaffinity(0) >= {processor} and threads_elsewhere()
    host.close()


def threads_elsewhere():
    """Whether the thread that leads may still run on every processor of this process."""
    return os.sched_getaffinity(0) == os.sched_getaffinity(os.getpid())


def test_requests_go_on_until_the_window_has_closed_and_through_the_pool(tmp_path):
    host = ThreadHost({**tiny_cell.make(tmp_path, []), "processors": []})
    host.call("load").result()
    begins = time.perf_counter_ns() + 5_000_000
    spans = host.call("answer", Window(begins, begins + 20_000_000)).result()
    assert spans[0][0] >= begins and spans[-2][1] < begins + 20_000_000 <= spans[-1][1]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert host._instance._turn == len(spans)
    host.close()


def test_a_process_that_ends_is_a_failure_of_its_cell(tmp_path):
    host = ProcessHost({**tiny_cell.make(tmp_path, []), "processors": []}, {})
    assert host.call("load").result()["pass_ns"] > 0
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(CellFailure, match="ended by SIGKILL") as failure:
        host.call("facts").result()
    assert failure.value.kind == "crashed"
    host.close()


def test_an_instance_that_ends_in_company_ends_the_run_by_name(tmp_path):
    task = colocation_cell.make(tmp_path, "processes")
    hosts = [ProcessHost(one, {}) for one in task["instances"]]
    led = colocation_worker._Led(task, hosts, None)
    for at in (0, 1):
        led.one(at, "load")
    os.kill(hosts[1].pid, signal.SIGKILL)
    with pytest.raises(CellFailure, match=f"{CELL}, instance 2: the process ended by SIGKILL"):
        led.window([0, 1], 0.05)
    for host in hosts:
        host.close()


def test_an_instance_with_another_clock_is_refused(tmp_path):
    task = colocation_cell.make(tmp_path, "processes")
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nhere = time.perf_counter_ns\ntime.perf_counter_ns = lambda: here() + 600_000_000\n"
    )
    hosts = [
        ProcessHost(one, {"PYTHONPATH": path})
        for one, path in zip(task["instances"], (SCRIPTS, f"{tmp_path}:{SCRIPTS}"), strict=True)
    ]
    led = colocation_worker._Led(task, hosts, None)
    with pytest.raises(CellFailure, match=f"{CELL}, instance 2: its clock has another time") as failure:
        led.refuse_other_clocks()
    assert failure.value.kind == "runtime-error"
    for host in hosts:
        host.close()


def test_a_window_without_an_answer_is_repeated_with_twice_its_length(tmp_path):
    task = {**colocation_cell.make(tmp_path), "physical_cores": 1}
    led = colocation_worker._Led(task, [], None)
    asked = []

    def window(of, seconds):
        asked.append(seconds)
        return {"answers": {str(at): {"latency_ns": [5] * (at == 0 or len(asked) > 2)} for at in of}}

    led._window = window
    assert led.window([0, 1], 0.1)["answers"]["1"]["latency_ns"] == [5]
    assert asked == [0.1, 0.2, 0.4]
    assert led.flags[1] == f"{CELL}, instance 2, began no request within 0.2 s; a longer window followed"
    assert led.flags[2:] == [f"{CELL}, instance {at}, began fewer than 10 requests in a window (1)" for at in (1, 2)]
    led._window = lambda of, seconds: {"answers": {str(at): {"latency_ns": [5] * 10} for at in of}}
    led.window([0, 1], 0.1)
    assert len(led.flags) == 4
    led._window = lambda of, seconds: {"answers": {str(at): {"latency_ns": []} for at in of}}
    with pytest.raises(CellFailure, match=r"instance 1, answered no request within 1.6 s"):
        led.window([0, 1], 0.1)


@pytest.mark.parametrize(("broken", "error"), [(True, UserError), (False, CellFailure)])
def test_what_goes_wrong_in_a_process_is_what_it_is_in_a_thread(tmp_path, broken, error):
    task = {**tiny_cell.make(tmp_path, [], error=1.0), "processors": []}
    if broken:
        (tmp_path / "fp32.onnx").write_bytes(b"no graph")
    messages = []
    for host in (ThreadHost(task), ProcessHost(task, {})):
        with pytest.raises(error) as raised:
            host.call("load").result()
            host.call("check", Window(0, 0)).result()
        messages.append(str(raised.value))
        host.close()
    assert messages[0] == messages[1] and messages[0]


def test_the_program_writes_a_record(tmp_path):
    task = tiny_cell.make(tmp_path, [])
    spec = {
        **{"cells": [CELL, CELL], "threads": 1, "variables": {}, "protocol": colocation_cell.PROTOCOL},
        "executions": {CELL: {key: task["spec"][key] for key in ("module", "options", "packages", "tolerance")}},
    }
    device = hosts.detect({}).device("cpu")
    command = [
        *(sys.executable, SCRIPTS / "measure_colocation.py", "--device", device, "--group", "twins"),
        *("--how", "threads", "--spec", json.dumps(spec), "--output", tmp_path / "run1.json"),
        *("--member", CELL, *(task[name] for name in ("artifact", "inputs", "reference", "workload"))),
    ]
    alone = {**os.environ, "CEILINGS_LOCKS": str(tmp_path)}  # tests beside each other do not wait for each other
    subprocess.run(command, check=True, timeout=100, env=alone)
    record = records.read(tmp_path / "run1.json", "colocation")
    assert (record["status"], record["cells"], record["cores"]) == ("ok", [CELL, CELL], "shared")
    many = [*command[:6], "--how", "threads-split", *command[8:]]
    cells = [CELL] * 8 * len(hosts.physical_cores())
    many[many.index("--spec") + 1] = json.dumps({**spec, "cells": cells})
    subprocess.run(many, check=True, timeout=100, env=alone)
    failed = records.read(tmp_path / "run1.json", "colocation")
    assert "cannot be split among" in failed["failure"]["message"]


class OnStream:
    """A double of a ``CudaRunner`` with its stream: it says what it was asked, and computes nothing."""

    def __init__(self, fails=False):
        self.asked, self.fails, self.exposed_stream = [], fails, self

    def activate(self, slot):
        self.asked.append(f"copy {slot}")

    def synchronize(self):
        self.asked.append("wait")

    def launch(self, slot):
        if self.fails:
            raise RuntimeError("CUDA error: out of memory")
        self.asked.append(f"launch {slot}")

    @contextlib.contextmanager
    def failures(self):
        try:
            yield
        except RuntimeError as error:
            raise CellFailure("out-of-memory", str(error)) from error


def on_stream(runner):
    instance = Instance({})
    instance._runner, instance._slots, instance._stream = runner, ["a", "b"], runner.exposed_stream
    return instance


def test_on_a_gpu_a_request_is_timed_from_an_idle_stream_to_its_end():
    runner = OnStream()
    spans = on_stream(runner).answer(Window(0, time.perf_counter_ns() + 100_000))
    one = ["copy a", "wait", "launch a", "wait", "copy b", "wait", "launch b", "wait"]
    assert runner.asked[: 4 * len(spans)] == (one * len(spans))[: 4 * len(spans)] == runner.asked


def test_a_failure_of_a_gpu_s_runtime_in_company_has_its_kind():
    with pytest.raises(CellFailure, match="CUDA error") as failure:
        on_stream(OnStream(fails=True)).answer(Window(0, time.perf_counter_ns() + 100_000))
    assert failure.value.kind == "out-of-memory"
