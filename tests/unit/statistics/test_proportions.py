"""Shares and paired shares against published values, and against the likelihood that they come from."""

import math

import numpy as np
import pytest

from ceilings.statistics.proportions import mcnemar, paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_intervals_of_newcombes_comparison(successes, total, low, high):
    """R. G. Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, method 3."""
    interval = wilson(successes, total)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert interval.estimate == successes / total


def test_wilson_covers_the_true_share_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    drawn = random.binomial(200, 0.95, 4000)
    covered = sum(wilson(int(k), 200).low <= 0.95 <= wilson(int(k), 200).high for k in drawn) / len(drawn)
    assert 0.93 < covered < 0.985


def test_wilson_has_width_where_every_row_counts_and_takes_a_sum_of_shares():
    assert wilson(110, 110).low == pytest.approx(110 / (110 + 1.959964**2))
    assert wilson(110, 110).high == 1.0
    assert wilson(7.5, 10).low < 0.75 < wilson(7.5, 10).high
    with pytest.raises(ValueError, match="no share"):
        wilson(1, 0)


def test_tango_gives_the_interval_of_the_airway_study():
    """Fagerland, Lydersen and Laake, Recommended tests and confidence intervals for paired binomial proportions (2014):
    of 21 children 1 was ill before alone and 7 after alone."""
    interval = paired_difference(1, 7, 21)
    assert (round(interval.low, 3), round(interval.estimate, 3), round(interval.high, 3)) == (-0.517, -0.286, -0.026)


def test_tango_has_the_width_that_its_formula_gives_without_disagreement():
    interval = paired_difference(0, 0, 1000)
    z2 = 1.959964**2
    assert interval.high == pytest.approx(z2 / (1000 + z2), rel=1e-5)
    assert interval.low == -interval.high


@pytest.mark.parametrize(("first", "second", "total"), [(12, 9, 100), (30, 2, 300), (0, 4, 50), (1, 0, 1)])
def test_tango_turns_its_sign_with_the_order(first, second, total):
    forward, back = paired_difference(first, second, total), paired_difference(second, first, total)
    assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert -1 <= forward.low <= forward.estimate <= forward.high <= 1


@pytest.mark.parametrize(("first", "second", "total"), [(12, 9, 100), (30, 2, 300), (0, 4, 50)])
def test_tangos_ends_lie_one_quantile_from_the_estimate_by_the_likelihood_itself(first, second, total):
    """The share that counts in the second alone is searched on a grid, where the module solves a quadratic equation."""
    for end in (paired_difference(first, second, total).low, paired_difference(first, second, total).high):
        lowest = max(0.0, -end)
        grid = np.linspace(lowest, (1 - end) / 2, 400_001)[1:-1]
        likelihood = (total - first - second) * np.log1p(-2 * grid - end)
        likelihood = likelihood + first * np.log(grid + end) + second * np.log(grid)
        likely = grid[np.argmax(likelihood)]
        error = math.sqrt(total * (2 * likely + end * (1 - end)))
        assert abs(first - second - total * end) / error == pytest.approx(1.959964, abs=2e-3)


def test_mcnemar_is_the_binomial_of_the_rows_that_disagree():
    assert mcnemar(1, 7) == 2 * (1 + 8) / 2**8  # 0.0703 in the airway study
    assert mcnemar(0, 5) == mcnemar(5, 0) == 2 / 2**5
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1.0
    assert 0 < mcnemar(0, 1000) < 1e-300


def test_mcnemar_rejects_as_often_as_it_may_where_nothing_differs():
    random = np.random.default_rng(1)
    first = random.binomial(40, 0.5, 4000)
    assert np.mean([mcnemar(int(k), 40 - int(k)) <= 0.05 for k in first]) <= 0.05
