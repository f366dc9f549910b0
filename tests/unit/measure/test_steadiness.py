"""What the flags of unsteady series say, with series as two cells of an H100 had them."""

from __future__ import annotations

import numpy as np

from ceilings.measure.steadiness import level_flags


def times(*levels, each=127, noise=0.02):
    """Requests of ``each`` steps at these levels in ms, in ns."""
    random = np.random.default_rng(0)
    return [int(1e6 * level * factor) for level in levels for factor in np.exp(random.normal(0, noise, each))]


def test_a_steady_cell_has_no_flag():
    steady = {"latency": {"latency_ns": times(2, 2, 2)}, "requests": {"token_ns": times(2.05, 2.05)}}
    assert level_flags(steady) == []


def test_a_change_within_a_series_is_said_with_both_levels():
    (flag,) = level_flags({"latency": {"latency_ns": times(2.03, 2.03, 2.03, 3.11)}})
    assert flag.startswith("latency changed its level within the series: 2.03 ms, then 3.1")
    assert flag.endswith("ms from about iteration 381 of 508 on")


def test_every_series_is_looked_at_and_others_are_let_be():
    cold = {"latency_cold": {"latency_ns": times(1, 2)}, "plugin": {"values": [1, 2]}, "number": 3, "empty": {}}
    (flag,) = level_flags(cold)
    assert flag.startswith("latency_cold changed")
    (flag,) = level_flags({"requests": {"token_ns": [], "first_token_ns": times(3, 4, each=40)}})
    assert flag.startswith("requests changed") and "from about request 4" in flag


def test_a_token_that_takes_longer_in_requests_is_said():
    series = {"latency": {"latency_ns": times(2, 2, 2, 3.1)}, "requests": {"token_ns": times(3.1, 3.1, 3.1)}}
    assert len(flags := level_flags(series)) == 2
    assert flags[1].startswith("a token takes 2.0") and "3.1 ms in the series requests" in flags[1]
    assert "more than 10% apart" in flags[1] and not any("; " in flag for flag in flags)  # which separates flags


def test_few_tokens_that_scatter_are_not_called_different():
    series = {"latency": {"latency_ns": times(2, noise=1)}, "requests": {"token_ns": times(2.4, each=12, noise=1)}}
    assert level_flags(series) == []


def changed(host_us, at=None):
    """The flag of a series that changed after 381 of 508 iterations, with the host's fixed work before and after."""
    before, after = host_us
    latency = times(2.03, 2.03, 2.03, 3.11)
    at = at or list(range(0, 508, 20))
    host = [round(1e3 * (after if done >= 381 else before)) for done in at]
    (flag,) = level_flags({"latency": {"latency_ns": latency, "host_at": at, "host_ns": host}})
    return flag


def test_a_change_of_the_host_s_speed_is_named():
    assert changed((20, 31)).endswith("(the host changed its speed: fixed work took 20 us before and 31 us after)")


def test_a_host_that_kept_its_speed_is_not_why():
    assert changed((20, 20.5)).endswith("(the host kept its speed: fixed work took 20 us before and 20.5 us after)")


def test_few_times_of_the_host_say_nothing():
    assert changed((20, 31), at=[0, 100, 200, 300, 400, 450]).endswith("of 508 on")
