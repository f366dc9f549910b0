"""Arrivals of an open loop."""

import numpy as np
import pytest

from ceilings.serving.arrivals import poisson


def test_the_same_seed_gives_the_same_times_and_another_others():
    assert poisson(50, 4, 1).tolist() == poisson(50, 4, 1).tolist() != poisson(50, 4, 2).tolist()


@pytest.mark.parametrize(("rate", "seconds"), [(0.1, 5.0), (20.0, 2.0), (5000.0, 3.0)])
def test_times_lie_in_the_window_in_order(rate, seconds):
    for seed in range(50):
        times = poisson(rate, seconds, seed)
        assert times.dtype == np.int64 and (np.diff(times) >= 0).all()
        assert ((times >= 0) & (times < seconds * 1e9)).all()


def test_counts_and_gaps_are_those_of_a_poisson_process():
    counts = np.array([len(poisson(100, 2, seed)) for seed in range(2000)])
    # Mean and variance of a Poisson count are both 200; five standard errors.
    assert abs(counts.mean() - 200) < 5 * np.sqrt(200 / 2000)
    assert abs(counts.var() - 200) < 5 * 200 * np.sqrt(2 / 2000)
    gaps = np.diff(poisson(1000, 100, 3)) / 1e6
    assert abs(gaps.mean() - 1) < 5 / np.sqrt(len(gaps)) and abs(gaps.std() - 1) < 0.05
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 5 / np.sqrt(len(gaps))


def test_the_window_is_full_to_its_end():
    """A fixed number of arrivals would thin out at the end."""
    late = sum((poisson(10, 2, seed) > 1.9e9).sum() for seed in range(2000))
    assert abs(late - 2000) < 5 * np.sqrt(2000)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="no arrivals"):
        poisson(rate, 1.0, 0)
