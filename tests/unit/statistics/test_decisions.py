"""Equivalence, p values and their adjustment against planted truth."""

from __future__ import annotations

import numpy as np
import pytest

from ceilings.statistics.decisions import beyond, equivalence_interval, holm, p_value, t_tail, within
from ceilings.statistics.estimands import ESTIMANDS, MEAN, P50, P99
from ceilings.statistics.intervals import log_contrast, t_quantile
from ceilings.statistics.quantiles import Interval


def processes(random, count=4, *, between=0.01, median=1.0, n=101):
    return [median * np.exp(random.normal(0, between) + random.normal(0, 0.03, n)) for _ in range(count)]


@pytest.mark.parametrize("freedom", [1.0, 2.3, 4.0, 30.0])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.999])
def test_t_tail_is_the_quantiles_inverse(freedom, probability):
    assert t_tail(t_quantile(probability, freedom), freedom) == pytest.approx(1 - probability, rel=1e-3)


def test_t_tail_far_out():
    assert t_tail(12.706, 1) == pytest.approx(0.025, rel=1e-3)
    assert t_tail(40, 4) == pytest.approx(1.167e-06, rel=1e-3)  # of tables


def test_holm_of_a_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values_of_no_difference_are_not_small_too_often_and_of_one_they_are():
    random = np.random.default_rng(0)
    null = [p_value(processes(random), processes(random)) for _ in range(200)]
    assert np.mean(np.array(null) <= 0.05) <= 0.08
    assert np.mean(np.array(null) <= 0.5) > 0.3
    assert max(p_value(processes(random), processes(random, median=1.2)) for _ in range(50)) < 0.01
    assert p_value(processes(random, 1), processes(random, 1, median=2.0)) == 1.0


def test_a_bound_of_large_p_values_changes_no_adjusted_one_that_matters():
    """Some processes agree by chance: t alone calls their difference established, and the bootstrap does not."""
    random = np.random.default_rng(3)
    pairs = [
        (processes(random, 3, between=between), processes(random, 3, between=between, median=median))
        for between in (0.0, 0.001, 0.02)
        for median in (1.0, 1.01, 1.3)
        for _ in range(6)
    ]
    exact, bounded = ([p_value(*pair, exact_up_to=limit) for pair in pairs] for limit in (1.0, 0.01))
    assert all(0.01 < b <= p if p > 0.01 else b == p for p, b in zip(exact, bounded, strict=True))
    assert sum(b < p for p, b in zip(exact, bounded, strict=True)) > 5  # of these no bootstrap was drawn
    for p, b in zip(holm(exact), holm(bounded), strict=True):
        assert b == p if p <= 0.01 else b > 0.01


def test_agreement_by_chance_is_no_certainty():
    """Two processes a side with the same median to the nanosecond: their iterations still vary."""
    random = np.random.default_rng(1)
    noise = np.exp(random.normal(0, 0.2, 30))
    same = noise / np.median(noise)
    assert p_value([same, same], [same * 1.01, same * 1.01]) > 0.3


@pytest.mark.parametrize(("true", "least", "most"), [(1.05, 0.0, 0.08), (1.0, 0.9, 1.0), (1.2, 0.0, 0.0)])
def test_equivalence_is_rarely_claimed_at_the_margin_and_mostly_within(true, least, most):
    random = np.random.default_rng(2)
    claims = [within(equivalence_interval(processes(random, median=true), processes(random)), 0.05) for _ in range(150)]
    assert least <= np.mean(claims) <= most


def test_beyond_is_not_the_opposite_of_within():
    wide = Interval(0.9, 1.02, 1.2)
    assert not within(wide, 0.05) and not beyond(wide, 0.05)
    assert beyond(Interval(1.06, 1.1, 1.2), 0.05) and beyond(Interval(0.8, 0.9, 0.94), 0.05)


@pytest.mark.parametrize("estimand", ESTIMANDS.values(), ids=ESTIMANDS)
def test_draws_spread_as_resamples_do(estimand):
    """The shortcut against drawing every iteration again."""
    random = np.random.default_rng(3)
    ordered = np.sort(random.lognormal(0, 0.3, 801))
    slow = [estimand.log(np.sort(random.choice(ordered, 801))) for _ in range(600)]
    fast = estimand.draw(ordered, random, 600)
    assert np.mean(fast) == pytest.approx(np.mean(slow), abs=0.2 * np.std(slow) + 0.01)
    assert 0.85 * np.std(slow) < np.std(fast) < 1.5 * np.std(slow)


@pytest.mark.parametrize(("estimand", "shift"), [(P50, 0.0), (MEAN, 0.0), (P99, 1.0)])
def test_a_tail_moves_the_p99_and_not_the_median(estimand, shift):
    random = np.random.default_rng(4)

    def tailed(height):
        return [
            np.where(np.arange(1000) % 40 == 0, height, 1.0) * np.exp(random.normal(0, 0.01, 1000)) for _ in range(4)
        ]

    contrast_of_tails = log_contrast([tailed(np.e), tailed(1.0)], [1.0, -1.0], estimand=estimand)
    assert contrast_of_tails.estimate == pytest.approx(shift, abs=0.06)
