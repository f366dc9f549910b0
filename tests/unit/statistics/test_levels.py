"""Changes of level against planted ones, and false alarms of series that have none."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ceilings.statistics import levels
from ceilings.statistics.levels import CRITICAL, Change, change, log_bounds, widened
from ceilings.statistics.quantiles import Interval


def autocorrelated(random, n, rho=0.8):
    noise, values = random.normal(size=n + 100), np.zeros(n + 100)
    for i in range(1, n + 100):
        values[i] = rho * values[i - 1] + noise[i]
    return values[100:]


STEADY = {
    "independent": lambda random, n: np.exp(random.normal(0, 0.2, n)),
    "heavy tail": lambda random, n: 1 + random.pareto(1.2, n),
    "autocorrelated": lambda random, n: np.exp(0.1 * autocorrelated(random, n)),
    "bimodal": lambda random, n: np.where(random.random(n) < 0.5, 2.0, 3.0) * np.exp(random.normal(0, 0.02, n)),
    "short spells": lambda random, n: np.exp(0.4 * (np.cumsum(random.random(n) < 0.2) % 2) + random.normal(0, 0.02, n)),
    "steps that grow with each request": lambda random, n: (
        np.resize(np.linspace(2, 3, n // 4), n) * np.exp(random.normal(0, 0.02, n))
    ),
}


@pytest.mark.parametrize("kind", STEADY)
def test_a_steady_series_is_flagged_in_less_than_one_of_a_hundred(kind):
    random = np.random.default_rng(0)
    alarms = [change(STEADY[kind](random, 500)) for _ in range(300)]
    assert sum(alarm is not None for alarm in alarms) <= 2


def test_the_critical_value_is_exceeded_by_chance_as_the_table_says():
    """Table 1 of Shao and Zhang: 40.1 is exceeded by 5% of series and 68.6 by 1%; so 121.9 is not far out of place."""
    random = np.random.default_rng(1)
    values = np.array([levels._split(random.normal(size=32))[0] for _ in range(4000)])
    assert (values > 40.1).mean() == pytest.approx(0.05, abs=0.02)
    assert (values > 68.6).mean() == pytest.approx(0.01, abs=0.01)
    assert (values > CRITICAL).mean() < 0.005


def test_medians_of_blocks_are_numpys():
    values = np.random.default_rng(7).normal(size=101)
    edges = np.arange(14) * 101 // 13
    assert levels._medians(values, edges).tolist() == [
        float(np.median(values[start:end])) for start, end in itertools.pairwise(edges)
    ]


def test_the_statistic_is_that_of_its_definition():
    """Sums written out, split by split."""
    values = np.random.default_rng(2).normal(size=20)
    n, centred = len(values), values - values.mean()

    def bridges(part):
        return sum((sum(part[: t + 1]) - (t + 1) / len(part) * sum(part)) ** 2 for t in range(len(part)))

    expected = {}
    for k in range(1, n):
        normaliser = (bridges(list(centred[:k])) + bridges(list(centred[k:][::-1]))) / n**2
        expected[k] = sum(centred[:k]) ** 2 / n / normaliser
    assert levels._split(values)[0] == pytest.approx(max(expected.values()))
    squares = {k: values[:k].var() * k + values[k:].var() * (n - k) for k in expected}
    assert levels._split(values)[1] == min(squares, key=squares.get)


@pytest.mark.parametrize(("n", "at"), [(48, 24), (96, 72), (508, 381), (381, 127), (20_000, 5_000)])
def test_a_planted_change_is_located(n, at):
    random = np.random.default_rng(3)
    values = np.where(np.arange(n) < at, 2.03, 3.11) * np.exp(random.normal(0, 0.03, n))
    values[::17] *= 4  # single slow iterations
    changed = change(values)
    assert abs(changed.position - at) <= n / 32
    assert (changed.before, changed.after) == (pytest.approx(2.03, rel=0.03), pytest.approx(3.11, rel=0.03))


def test_an_excursion_before_does_not_hide_a_change():
    """As a host did it: a spell at a level between both, then the new one to the end."""
    values = np.full(508, 2.03) * np.exp(np.random.default_rng(4).normal(0, 0.02, 508))
    values[120:168] *= 1.22
    values[381:] *= 1.53
    assert abs(change(values).position - 381) <= 16


def test_small_changes_short_series_and_constants_are_none():
    random = np.random.default_rng(5)
    noise = np.exp(random.normal(0, 0.002, 500))
    assert change(noise * np.where(np.arange(500) < 250, 1.0, 1.04)) is None
    assert change(noise * np.where(np.arange(500) < 250, 1.0, 1.06)) is not None
    assert change([1.0] * 20 + [2.0] * 20) is None and change([]) is None
    assert change([3.0] * 500) is None
    assert (
        change([2] * 300 + [3] * 200) == Change(300, 2.0, 3.0) or abs(change([2] * 300 + [3] * 200).position - 300) < 16
    )


def test_bounds_are_medians_over_processes_at_their_lower_and_higher_levels():
    random = np.random.default_rng(6)

    def process(before, after):
        return np.where(np.arange(400) < 300, before, after) * np.exp(random.normal(0, 0.002, 400))

    assert log_bounds([process(1, 1), process(1.001, 1.001)]) == (0.0, 0.0)
    low, high = log_bounds([process(1, 1), process(1, 1.001), process(1, 1.5)])
    assert low == pytest.approx(0, abs=0.002) and high == pytest.approx(0, abs=0.002)  # one of three moves no median
    low, high = log_bounds([process(1, 1.5)] * 3)
    assert low == pytest.approx(0, abs=0.005) and high == pytest.approx(math.log(1.5), abs=0.005)


def test_a_ratio_is_widened_by_both_cells():
    ratio = Interval(0.79, 0.8, 0.81)
    assert widened(ratio, [(0, 0), (0, 0)], [1, -1]) == ratio
    wide = widened(ratio, [(0, math.log(1.5)), (-math.log(1.1), 0)], [1, -1])
    assert (wide.low, wide.estimate, wide.high) == (0.79, 0.8, pytest.approx(0.8 * 1.5 * 1.1))
