"""Correlations against published examples, neighbours against a plain search."""

import numpy as np
import pytest

from ceilings.statistics import ranks


def test_spearman_shares_the_ranks_of_equal_values():
    """Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: by hand 4.5 / sqrt(4.5 * 5)."""
    assert ranks.spearman([10, 20, 20, 30], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))
    assert ranks.spearman([1, 2, 3], [-1, -8, -27]) == pytest.approx(-1)


def test_pearson_is_numpys_and_none_of_a_constant():
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    assert ranks.pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert ranks.pearson(a, np.ones(50)) is None


def test_zous_interval_is_that_of_his_example():
    """G. Y. Zou, Toward using confidence intervals to compare correlations (2007): overlapping, n = 66."""
    interval, _ = ranks.correlation_difference(0.396, 0.179, 0.088, 66)
    assert (round(interval.low, 3), round(interval.high, 3)) == (-0.093, 0.517)


def test_williams_test_is_that_of_steigers_example():
    """J. H. Steiger, Tests for comparing elements of a correlation matrix (1980), case A: t = -0.89, p = 0.37."""
    _, p_value = ranks.correlation_difference(0.4, 0.5, 0.1, 103)
    assert p_value == pytest.approx(0.375, abs=0.002)


def test_equal_correlations_do_not_differ():
    interval, p_value = ranks.correlation_difference(0.9, 0.9, 1.0, 100)
    assert p_value == 1.0
    assert interval.low <= 0 <= interval.high


def test_a_correlation_of_one_keeps_its_interval_within_the_range():
    assert ranks.correlation_interval(1.0, 50).high == 1.0
    assert ranks.correlation_interval(1.0, 50).low > 0.99
    assert ranks.correlation_interval(0.3, 3).low == -1.0


def test_neighbours_agree_with_a_plain_search():
    random = np.random.default_rng(0)
    first = random.normal(size=(40, 8))
    second = first + 0.3 * random.normal(size=(40, 8))

    def nearest(vectors, row):
        unit = [vector / np.sqrt(sum(vector**2)) for vector in vectors]
        near = sorted((-sum(unit[row] * unit[other]), other) for other in range(40) if other != row)
        return {other for _, other in near[:10]}

    expected = [len(nearest(first, row) & nearest(second, row)) / 10 for row in range(40)]
    found = ranks.neighbour_overlap(ranks.similarities(first), ranks.similarities(second), 10)
    assert found.tolist() == pytest.approx(expected)
    assert 0.3 < np.mean(expected) < 0.95


def test_scale_changes_no_direction_and_no_neighbour():
    vectors = np.random.default_rng(0).normal(size=(30, 5))
    scaled = vectors * np.linspace(0.1, 9, 30)[:, None]
    assert ranks.cosines(vectors, scaled) == pytest.approx(np.ones(30))
    near = ranks.similarities(vectors), ranks.similarities(scaled)
    assert ranks.neighbour_overlap(*near, 10).min() == 1
    assert ranks.neighbour_ranks(*near) == pytest.approx(np.ones(30), abs=1e-3)


def test_a_zero_vector_points_nowhere():
    assert ranks.cosines([[0, 0], [0, 0], [1, 0]], [[0, 0], [1, 0], [-2, 0]]).tolist() == [1, 0, -1]
