"""Whether a queue grows, against queues whose load is known."""

import doctest

import numpy as np
import pytest

from ceilings.report.tables import served_windows
from ceilings.report.tables.served_windows import GROWS, SHORT, STEADY, settling_requests, state

SERVICE = 0.01
"""Seconds of each request."""


def simulated(random, load, requests):
    """A window of a queue with Poisson arrivals and a constant service time, empty at its begin."""
    gaps = random.exponential(SERVICE / load, requests)
    waited, latencies = 0.0, []
    for gap in gaps:
        latencies.append(int((waited + SERVICE) * 1e9))
        waited = max(0.0, waited + SERVICE - gap)
    rate = load / SERVICE
    return {
        "kind": "open",
        "rate": rate,
        "began_ns": 0,
        "ended_ns": int(requests / rate * 1e9),
        "latency_ns": latencies,
    }


def states(load, requests, windows, share, times=60):
    """How often each state was seen, as a share of so many studies."""
    random = np.random.default_rng(7)
    seen = [state([simulated(random, load, requests) for _ in range(windows)], share) for _ in range(times)]
    return {one: seen.count(one) / times for one in (STEADY, GROWS, SHORT)}


@pytest.mark.parametrize("load", [0.5, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("windows", [2, 6])
def test_a_queue_that_is_sustained_does_not_grow_by_chance(load, windows):
    assert states(load, round(1.01 * settling_requests(load)), windows, load)[STEADY] > 0.75
    assert states(load, round(1.01 * settling_requests(load)), 6, load)[STEADY] > 0.95


@pytest.mark.parametrize("load", [1.1, 1.3, 2.0])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("windows", [2, 6])
def test_a_queue_that_grows_is_noticed(load, share, windows):
    assert states(load, 120, windows, load if share else None)[GROWS] > 0.9


def test_a_server_that_does_less_than_before_is_noticed():
    """Closed loops say that the rate is 0.7 of the throughput, and the queue grows in all windows."""
    assert states(1.5, 250, 6, 0.7)[GROWS] == 1


@pytest.mark.parametrize("load", [0.5, 0.7, 0.9])
def test_windows_that_end_before_the_queue_has_settled_are_short(load):
    assert states(load, round(0.3 * settling_requests(load)), 2, load)[SHORT] > 0.75
    random = np.random.default_rng(3)

    def mean(requests, times):
        return np.mean([np.mean(simulated(random, load, requests)["latency_ns"]) for _ in range(times)])

    steady = mean(30_000, 8)
    assert mean(round(settling_requests(load)), 300) / steady > 0.93
    assert mean(round(0.1 * settling_requests(load)), 300) / steady < 0.9


def test_without_closed_loops_most_chance_is_left_out():
    assert states(0.5, 300, 6, None)[STEADY] > 0.95


def test_documented_examples_hold():
    assert not doctest.testmod(served_windows).failed


@pytest.mark.parametrize("load", [1.1, 2.0, 4.0])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("requests", [6, 12, 20])
def test_windows_of_few_requests_show_no_steady_state_beyond_the_throughput(load, share, requests):
    assert states(load, requests, 6, load if share else None)[STEADY] == 0
