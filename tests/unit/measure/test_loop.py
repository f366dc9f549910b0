"""The timing loop and its stop rule, on work of known length."""

import threading
import time

import numpy as np
import pytest

from ceilings.measure.loop import closed_loop, saturated
from ceilings.measure.stopping import NS, Protocol

pytestmark = pytest.mark.timing

PROTOCOL = Protocol(
    warmup_seconds=0.02,
    warmup_max_seconds=0.2,
    min_iterations=10,
    min_seconds=0.05,
    max_seconds=0.3,
    precision=0.05,
    saturated_seconds=0.2,
    concurrency=2,
    time_limit_seconds=10,
)


def wait(seconds):
    end = time.perf_counter_ns() + int(seconds * NS)
    while time.perf_counter_ns() < end:
        pass


def test_latency_of_known_work_is_found():
    series = closed_loop(lambda slot: wait(0.002), ["a"], PROTOCOL)
    assert np.median(series["latency_ns"]) == pytest.approx(2e6, rel=0.02)
    assert sum(series["warmup_ns"]) >= 0.02 * NS
    assert series["stop_reason"] == "precise" and series["warmup_stable"]


def test_the_host_s_speed_is_taken_once_a_block():
    series = closed_loop(lambda slot: wait(0.002), ["a"], PROTOCOL)
    at, ns = series["host_at"], series["host_ns"]
    assert at[0] == 0 and at == sorted(set(at)) and at[-1] < len(series["latency_ns"])
    assert len(at) == len(ns) and 2e3 < np.median(ns) < 1e6
    assert sum(ns) < 0.01 * series["elapsed_ns"]


def test_iterations_go_through_the_pool_in_order():
    seen = []
    series = closed_loop(seen.append, ["a", "b", "c"], PROTOCOL)
    measured = seen[len(series["warmup_ns"]) :]
    assert measured == [["a", "b", "c"][i % 3] for i in range(len(measured))]


def test_noisy_work_stops_at_the_cap_and_says_so():
    lengths = iter(np.random.default_rng(0).uniform(0.001, 0.02, 10_000))
    series = closed_loop(lambda slot: wait(next(lengths)), ["a"], PROTOCOL)
    assert series["stop_reason"] == "time-cap"
    assert 0.29 * NS <= sum(series["latency_ns"]) < 0.5 * NS


def test_at_least_the_minimum_of_iterations_however_slow():
    series = closed_loop(lambda slot: wait(0.05), ["a"], PROTOCOL)
    assert len(series["latency_ns"]) >= 10


def test_growing_latency_is_no_plateau():
    growing = [int(1e6 * 1.08**i) for i in range(60)]
    assert not PROTOCOL.warm(growing)
    assert PROTOCOL.warm([5_000_000] * 100)
    assert not PROTOCOL.warm([5_000_000])


def test_saturated_counts_what_concurrent_callers_complete():
    """Callers that only wait do not slow each other down: two of them give twice the rate."""
    series = saturated(lambda slot: time.sleep(0.01), ["a"], PROTOCOL, batch=4)
    assert series["inferences_per_s"] == pytest.approx(2 * 4 / 0.01, rel=0.15)


def test_saturated_work_that_excludes_itself_gains_nothing():
    lock = threading.Lock()

    def exclusive(slot):
        with lock:
            time.sleep(0.01)

    series = saturated(exclusive, ["a"], PROTOCOL, batch=4)
    assert series["inferences_per_s"] == pytest.approx(4 / 0.01, rel=0.15)


def test_a_caller_that_begins_late_has_the_others_wait_for_it(monkeypatch):
    """On a busy machine a thread may begin after another would have stopped: all must be at work in the window."""

    class Uneven(threading.Barrier):
        def wait(self, timeout=None):
            place = super().wait(timeout)
            time.sleep(0.3 * place)  # longer than the whole window
            return place

    monkeypatch.setattr(threading, "Barrier", Uneven)
    series = saturated(lambda slot: time.sleep(0.01), ["a"], PROTOCOL, batch=4)
    assert series["seconds"] >= 0.2
    assert series["inferences_per_s"] == pytest.approx(2 * 4 / 0.01, rel=0.15)


def test_slow_work_still_gives_a_rate():
    series = saturated(lambda slot: time.sleep(0.3), ["a"], PROTOCOL, batch=1)
    assert series["completions"] == pytest.approx(2, rel=0.05)
    assert series["inferences_per_s"] == pytest.approx(2 / 0.3, rel=0.05)
