"""What the captured process does, against a device that only keeps a diary."""

from __future__ import annotations

import json
import re
import types

import pytest

pytest.importorskip("cuda.bindings")

from ceilings.cuda import device as cuda
from ceilings.errors import UserError
from ceilings.measure import gpu_loop
from ceilings.traces import nvtx, target
from ceilings.traces.perfetto import without_machine

STREAM = types.SimpleNamespace(native="stream")
WARM = {"warmup_seconds": 0.0, "warmup_max_seconds": 0.01, "time_limit_seconds": 60}


def test_a_captured_iteration_is_a_timed_one_with_marks_for_the_clock(diary):
    regime = gpu_loop.Regime(
        lambda item: diary.append(f"prepare {item}"), lambda item: diary.append(f"launch {item}"), ["a", "b"]
    )
    gpu_loop.block(regime, STREAM, (cuda.Event(), cuda.Event()), 3, gpu_loop.Samples())
    timed = [call for call in diary if call != "elapsed"]
    diary.clear()
    target.iterate(regime, STREAM, 3, (lambda: diary.append("begin"), lambda: diary.append("end")))
    assert [call for call in diary if call not in ("begin", "end")] == timed
    assert diary[:8] == ["prepare a", "wait", "record", "begin", "launch a", "record", "wait", "end"]


def test_a_warm_up_ends_at_its_cap(diary):
    regime = gpu_loop.Regime(lambda _: None, lambda _: None, [0])
    latencies, stable = target.warm_up(regime, STREAM, target.warm_protocol(WARM))
    assert latencies and stable in (True, False)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_pytorchs_own_trace_holds_the_iterations_and_nothing_of_the_machine(diary, tmp_path):
    """The profiler and its work are real; the stream and its events are the diary's, for here is no GPU."""
    torch = pytest.importorskip("torch")
    matrix = torch.ones(64, 64)
    regime = gpu_loop.Regime(lambda _: None, lambda item: item @ item, [matrix])
    recorder = target.recorder("torch", tmp_path / "raw.json")
    marks = recorder.start()
    target.iterate(regime, STREAM, 5, marks)
    recorder.stop()
    raw = (tmp_path / "raw.json").read_text()
    trace = without_machine(json.loads(raw))
    text = json.dumps(trace)
    assert str(tmp_path) in raw and str(tmp_path) not in text and not {"host_name", "traceName"} & trace.keys()
    named = [
        event["args"]["name"] for event in trace["traceEvents"] if event["name"] in ("process_name", "thread_name")
    ]
    assert named and not [name for name in named if not re.fullmatch(r"process|thread \d+", name)]
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    iterations = [event for event in slices if event["name"] == "iteration"]
    products = [event for event in slices if event["name"] == "aten::matmul"]
    assert len(iterations) == len(products) == 5
    for around, inside in zip(iterations, products, strict=True):
        assert around["ts"] <= inside["ts"] and inside["ts"] + inside["dur"] <= around["ts"] + around["dur"]


def test_nvtx_has_the_two_calls():
    try:
        begin, end = nvtx.ranges("iteration")
    except UserError as error:
        pytest.skip(str(error))
    begin()
    end()
