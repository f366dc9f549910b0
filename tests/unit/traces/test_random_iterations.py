"""What must hold of any iteration that a device could have run: a thread and a stream, simulated."""

from __future__ import annotations

import random

import numpy as np
import pytest
from unit.traces.events import Events

from ceilings.taxonomy import PATH_SHARES
from ceilings.traces.budget import Account
from ceilings.traces.path import critical_path
from ceilings.traces.replay import Replay


def iteration(seed: int, waits: bool = True) -> Events:
    """Launches, graphs, copies, calls that ask, and waits in the middle and at the end.

    Args:
        waits: Without, the thread goes on until the device is done by itself, and waits last of all for nothing.
    """
    draw, events, now, done = random.Random(seed), Events(), 0.0, 0.0
    think, work = draw.choice([0.2, 2, 8, 60]), draw.choice([0.5, 3, 12, 40])

    def lengths(delivered: float, count: int = 1) -> list[tuple[float, float]]:
        nonlocal done
        ran = []
        for _ in range(count):
            begin = max(delivered + draw.uniform(0.3, 4), done + draw.uniform(0.05, 1.2))
            done = begin + 0.5 + draw.expovariate(1 / work)
            ran.append((begin, done))
        return ran

    for _ in range(draw.randint(1, 25)):
        now += draw.expovariate(1 / think) + 0.05
        end = now + draw.uniform(1, 6)
        match draw.choice(["launch"] * 6 + ["graph", "copy", "ask"] + ["blocking", "wait"] * waits):
            case "launch":
                events.launch(now, end, *lengths(draw.uniform(now + 0.5, end)))
            case "graph":
                nodes = [(*ran, "gemm", 7, k + 1) for k, ran in enumerate(lengths(end - 0.5, draw.randint(1, 8)))]
                events.launch(now, end, *nodes, name="cudaGraphLaunch_v10000")
            case "copy":
                events.copy(
                    events.call(now, end, "cudaMemcpyAsync_v3020"), *lengths(end)[0], kind=draw.choice([1, 2, 8])
                )
            case "blocking":
                (ran,) = lengths(now + 0.5)
                end = max(end, done + draw.uniform(0.5, 5))
                events.copy(events.call(now, end, "cudaMemcpy_v3020"), *ran, kind=draw.choice([1, 2]))
            case "ask":
                events.call(now, end, "cudaEventQuery_v3020")
            case "wait":
                end = max(end, done + draw.uniform(0.5, 5))
                events.call(now, end, "cudaStreamSynchronize_v3020")
        now = end
    now = (now if waits else max(now, done)) + draw.uniform(0.1, 5)
    end = max(now, done) + draw.uniform(0.5, 5)
    events.call(now, end, "cudaStreamSynchronize_v3020")
    events.mark(0, end + draw.uniform(0, 3))
    return events


def accounted(events: Events):
    capture = events.capture()
    account, marks = Account(capture), capture.marks
    (one,) = account.iterations()
    return one, account.recorded(int(marks.start[0]), int(marks.end[0]), int(marks.thread[0]))


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_the_path_is_the_iteration_and_the_replay_the_recording(first):
    for seed in range(first, first + 50):
        one, recorded = accounted(iteration(seed))
        assert one.shares.min() >= 0 and one.shares.sum() == pytest.approx(one.length)
        replay = Replay(recorded)
        run = replay.run(1)
        assert abs(run.length - one.length) <= 2
        if len(recorded.work.begin):
            assert np.abs(run.work.begin - recorded.work.begin).max() <= 2
        hosts = [replay.run(speed) for speed in np.arange(0, 1.6, 0.25)]
        for values in ([run.length for run in hosts], [run.submitted for run in hosts]):
            assert np.diff(values).min() >= -2
        assert np.diff([replay.run(1, device).length for device in np.arange(0, 2.1, 0.5)]).min() >= -2
        assert hosts[0].length >= (recorded.work.end - recorded.work.begin).sum() - 2  # the device alone
        for run in hosts:
            shares = critical_path(run.work, run.calls, 0, run.length)
            assert shares.min() >= 0 and shares.sum() == pytest.approx(run.length)


def test_no_kernel_lies_on_the_path_of_a_host_that_never_waits():
    for seed in range(200):
        one, _ = accounted(iteration(seed, waits=False))
        assert dict(zip(PATH_SHARES, one.shares, strict=True))["kernel"] == 0
