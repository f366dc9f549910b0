"""Replays: of recorded iterations as they were, and of hand-made ones at other speeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from unit.traces import planted
from unit.traces.events import Events

from ceilings.report.render.budget_sentences import doubt
from ceilings.report.tables.budget_rows import budget_row, replayed
from ceilings.report.tables.keys import KEY
from ceilings.traces import store
from ceilings.traces.budget import Account
from ceilings.traces.budget_record import budget_record
from ceilings.traces.path import critical_path
from ceilings.traces.replay import Replay

DATA = sorted((Path(__file__).parent / "data").glob("*.sqlite"))


def recorded(capture):
    marks = capture.marks
    account = Account(capture)
    return [
        account.recorded(int(start), int(end), int(thread))
        for start, end, thread in zip(marks.start, marks.end, marks.thread, strict=True)
    ]


def only(events: Events):
    (one,) = recorded(events.capture())
    return Replay(one)


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_at_the_recorded_speed_a_replay_is_the_recording(path):
    """Captures of an H200: every operation begins when it did, and the critical path is the same."""
    for one in recorded(store.read(path)):
        run = Replay(one).run(host=1.0)
        assert one.whole and abs(run.length - one.length) <= 2
        assert np.abs(run.work.begin - one.work.begin).max() <= 2
        before = critical_path(one.work, one.calls, 0, one.length)
        assert critical_path(run.work, run.calls, 0, run.length) == pytest.approx(before, abs=10)


def test_a_host_twice_as_fast_halves_what_waits_for_it():
    events = Events()
    events.mark(0, 100)
    for number in range(8):
        events.launch(10 + 10 * number, 14 + 10 * number, (15 + 10 * number, 18 + 10 * number))
    events.call(90, 94, "cudaStreamSynchronize")
    replay = only(events)
    run = replay.run(host=0.5)
    assert run.submitted == 45_000
    assert run.length == 46_000 + 4_000 + 3_000  # the last kernel ends at 46, the host notices, and returns


def test_a_fast_host_makes_kernels_queue_up():
    """20 us of work every 25 us for a host that needs 25: with half of that the device decides."""
    events = Events()
    events.mark(0, 220)
    for number in range(8):
        events.launch(10 + 25 * number, 14 + 25 * number, (15 + 25 * number, 35 + 25 * number))
    events.call(191, 213, "cudaStreamSynchronize")
    replay = only(events)
    slow, fast = replay.run(1.0), replay.run(0.5)
    assert slow.length == 220_000
    # 7 us until the first is delivered, 1 to reach the device, 8 kernels, 3 to notice, 3.5 until the iteration ends
    assert fast.length == 7_000 + 1_000 + 160_000 + 3_000 + 3_500
    kernel, launch, host, _, sync = critical_path(fast.work, fast.calls, 0, fast.length)
    assert (kernel, launch, host, sync) == (160_000, 3_000, 8_500, 3_000)
    assert replay.run(1.0, device=0).length == 220_000 - 19_000  # the last kernel alone had been waited for


def test_a_blocking_copy_waits_for_its_own_work_alone():
    events = Events()
    events.mark(0, 100)
    events.launch(10, 14, (16, 60))
    events.copy(events.call(20, 80, "cudaMemcpy_v3020"), 62, 70)
    run = only(events).run(host=0)
    assert run.length == (60 - 16) * 1000 + 2_000 + 2_000 + 8_000 + 10_000  # latency, kernel, gap, copy, to notice it


def test_polling_waits_for_nothing():
    events = Events()
    events.mark(0, 40)
    events.launch(0, 4, (6, 30))
    events.call(5, 6, "cudaStreamQuery")
    events.call(8, 34, "cudaStreamSynchronize")
    run = only(events).run(host=0.5)
    assert run.submitted == 4_000 and run.length == 4_000 // 2 + 2_000 + 24_000 + 4_000 + 3_000


def test_work_of_another_thread_cannot_be_replayed():
    events = Events()
    events.mark(0, 50)
    events.launch(10, 20, (22, 30), thread=2)
    events.call(5, 50, "cudaStreamSynchronize")
    assert not recorded(events.capture())[0].whole
    record = budget_record(events.capture())
    assert record["replays"] is None and replayed(record, 0.02) is None


def test_what_no_capture_tells_cannot_be_replayed():
    """A stream that waits for another, work of before, and a wait for a part of what was submitted."""
    events = Events()
    events.mark(0, 100)
    events.launch(5, 8, (10, 40))
    events.launch(9, 12, (41, 60, "gemm", 8))  # of another stream, behind an event of the first
    events.call(14, 90, "cudaDeviceSynchronize")
    assert not recorded(events.capture())[0].whole

    events = Events()
    events.launch(-20, -16, (-14, 10))
    events.mark(0, 100)
    events.launch(5, 8, (12, 40))
    events.call(10, 90, "cudaStreamSynchronize")
    assert not recorded(events.capture())[0].whole

    events = Events()
    events.mark(0, 100)
    events.launch(5, 8, (10, 40))
    events.launch(9, 12, (41, 120))
    events.call(14, 44, "cudaEventSynchronize")
    assert recorded(events.capture())[0].whole and budget_record(events.capture())["replays"] is None


def waiting(host: float = 1.0, gap: float = 2.0) -> Events:
    """The submitting call copies the result and waits for it: 40 us of host code, then 100 us more of the device."""
    events, now = Events(), 40 * host
    nodes = [(now + 2 + k * (20 + gap), now + 22 + k * (20 + gap), "gemm", 7, k + 1) for k in range(5)]
    events.launch(now - 5, now, *nodes, name="cudaGraphLaunch_v10000")
    done = nodes[-1][1]
    events.copy(events.call(now + 1, done + 5, "cudaMemcpyAsync_v3020"), done + 1, done + 3)
    events.call(done + 6, done + 7, "cudaStreamSynchronize_v3020")
    events.mark(0, done + 8)
    return events


@pytest.mark.parametrize(("latency", "verdict"), [(0.152, "kernel-bound"), (0.1, "unexplained")])
def test_a_submitting_call_that_waits_does_not_tell_how_fast_the_host_was(latency, verdict):
    """Its time is the device's: a host that takes none would submit as late. Only the recording can explain."""
    record = budget_record(waiting().capture())
    assert record["replays"]["submitted_ns"][0] > 0.1 * 1e6
    cell = {**dict.fromkeys(KEY, "x"), "runtime": "onnxruntime-cuda-noio", "budget": "x.budget.json"}
    measured = {"p50_ms": latency, "enqueue_p50_ms": latency - 0.002}
    row = budget_row(cell, measured, {"status": "ok", "source": "cupti", **record})
    assert (row["replayed_ms"], row["no_work_ms"], row["no_host_ms"]) == (None, None, None)
    assert row["verdict"] == verdict and "it cannot be replayed" in doubt(row)
    assert ("does not explain" in doubt(row)) == (verdict == "unexplained")


def test_the_report_picks_the_host_that_submits_as_fast_as_untraced():
    record = planted.accounted(planted.eager)
    at_once, half = (replayed(record, share * record["replays"]["submitted_ns"][20] / 1e6) for share in (1.0, 0.5))
    assert at_once["length_ms"] == pytest.approx(record["iteration_ns"]["median"] / 1e6, rel=0.01)
    assert half["length_ms"] == pytest.approx(at_once["length_ms"] / 2, rel=0.05)
    assert half["no_host_ms"] < half["no_work_ms"] <= half["length_ms"]
    slower = 2 * record["replays"]["submitted_ns"][-1] / 1e6
    assert replayed(record, slower) is None and replayed(record, None) is None
