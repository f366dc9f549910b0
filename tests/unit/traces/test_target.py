"""What the captured process does, against a device that only keeps a diary."""

from __future__ import annotations

import types

import pytest

pytest.importorskip("cuda.bindings")

from ceilings.errors import UserError
from ceilings.measure import cuda, gpu_loop
from ceilings.traces import nvtx, target

STREAM = types.SimpleNamespace(native="stream")
WARM = {"warmup_seconds": 0.0, "warmup_max_seconds": 0.01, "time_limit_seconds": 60}


@pytest.fixture
def diary(monkeypatch):
    """Replaces CUDA in both loops: every call is written down and succeeds."""
    said = []

    def call(name, *values):
        def do(*_):
            said.append(name)
            return (0, *values)

        return do

    fake = types.SimpleNamespace(
        cudaEventRecord=call("record"),
        cudaStreamSynchronize=call("wait"),
        cudaEventElapsedTime=call("elapsed", 0.25),
    )
    for module in (gpu_loop, target):
        monkeypatch.setattr(module, "cudart", fake)
    monkeypatch.setattr(cuda, "Event", lambda timing=True: types.SimpleNamespace(native="event"))
    return said


def test_a_captured_iteration_is_a_timed_one_with_marks_for_the_clock(diary):
    regime = gpu_loop.Regime(
        lambda item: diary.append(f"prepare {item}"), lambda item: diary.append(f"launch {item}"), ["a", "b"]
    )
    gpu_loop.block(regime, STREAM, (cuda.Event(), cuda.Event()), 3, gpu_loop.Samples())
    timed = [said for said in diary if said != "elapsed"]
    diary.clear()
    target.iterate(regime, STREAM, 3, (lambda: diary.append("begin"), lambda: diary.append("end")))
    assert [said for said in diary if said not in ("begin", "end")] == timed
    assert diary[:8] == ["prepare a", "wait", "record", "begin", "launch a", "record", "wait", "end"]


def test_a_warm_up_ends_at_its_cap(diary):
    regime = gpu_loop.Regime(lambda _: None, lambda _: None, [0])
    latencies, stable = target.warm_up(regime, STREAM, target.warm_protocol(WARM))
    assert latencies and stable in (True, False)


def test_nvtx_has_the_two_calls():
    try:
        begin, end = nvtx.ranges("iteration")
    except UserError as error:
        pytest.skip(str(error))
    begin()
    end()
