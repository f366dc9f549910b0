"""Turns with a slower iteration against planted ones, and false alarms of series that have none."""

from __future__ import annotations

import numpy as np
import pytest
from unit.statistics.test_levels import STEADY

from ceilings.statistics.returning import Returning, returning

WITHOUT = {name: made for name, made in STEADY.items() if name != "steps that grow with each request"}


@pytest.mark.parametrize("kind", WITHOUT)
@pytest.mark.parametrize("size", [60, 200])
def test_a_series_without_a_turn_is_hardly_ever_flagged(kind, size):
    random = np.random.default_rng(0)
    assert sum(returning(WITHOUT[kind](random, size)) is not None for _ in range(40)) <= 1


@pytest.mark.parametrize("period", [2, 3, 7, 20])
def test_a_slower_iteration_is_seen_wherever_its_turn_begins(period):
    random = np.random.default_rng(period)
    values = np.exp(random.normal(0, 0.03, 20 * period + 5))
    values[period // 2 :: period] *= 1.5
    found = returning(values)
    assert found is not None and found.period == period and found.ratio == pytest.approx(1.5, rel=0.05)


def test_one_that_misses_some_of_its_turns_is_seen_and_one_that_misses_half_is_not():
    random = np.random.default_rng(1)
    values = np.exp(random.normal(0, 0.03, 400))
    slow = np.arange(3, 400, 5)
    values[slow[np.arange(len(slow)) % 20 > 0]] *= 2
    assert returning(values).period == 5
    values = np.exp(random.normal(0, 0.03, 400))
    values[random.choice(slow, len(slow) // 2, replace=False)] *= 2
    assert returning(values) is None


@pytest.mark.parametrize("values", [[], [1.0] * 10, [1.0, 2.0] * 7, [3.0] * 500])
def test_short_and_constant_series_have_none(values):
    assert returning(values) is None


def test_two_values_in_turn_are_enough_eight_times():
    assert returning([1.0, 2.0] * 8) == Returning(2, 2.0)
