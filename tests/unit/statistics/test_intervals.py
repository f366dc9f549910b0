"""Statistics against planted truth: each test fails if the numbers stop meaning what they say."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from ceilings.statistics import intervals as statistics
from ceilings.statistics.estimands import P50, interpolated
from ceilings.statistics.intervals import (
    log_contrast,
    mean_over_processes,
    median_over_processes,
    noise_floor,
    pooled_quantile,
    ratio,
    t_quantile,
    verdict,
)
from ceilings.statistics.quantiles import Interval, minimum_samples, quantile_interval, quantile_ranks


def processes(random, count=3, *, between=0.02, within=0.03, median=1.0, n=101):
    """Lognormal latencies with a known median over processes."""
    return [median * np.exp(random.normal(0, between) + random.normal(0, within, n)) for _ in range(count)]


@pytest.mark.parametrize(("q", "n"), [(0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636), (0.1, 64)])
def test_minimum_samples_is_the_protocols(q, n):
    assert minimum_samples(q) == n


def test_minimum_samples_means_two_samples_beyond():
    above = np.random.default_rng(0).binomial(64, 0.1, 200_000)
    assert (above >= 2).mean() == pytest.approx(0.9904, abs=0.001)
    with pytest.raises(ValueError, match="not between"):
        minimum_samples(1.0)


@pytest.mark.parametrize(("q", "n"), [(0.5, 30), (0.5, 400), (0.9, 100), (0.99, 700)])
def test_quantile_ranks_against_the_binomial_sum(q, n):
    mass = [math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)]
    below = np.cumsum(mass)
    low, high = quantile_ranks(n, q, 0.95)
    assert below[low] <= 0.025 < below[low + 1]
    assert below[high - 1] < 0.975 <= below[high]


def test_quantile_interval_covers_and_is_not_wasteful():
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        interval = quantile_interval(random.exponential(size=101), 0.5)
        hits += interval.low <= math.log(2) <= interval.high
    assert 0.94 <= hits / 1000 <= 0.985


def test_quantile_interval_knows_when_it_cannot_bound():
    assert quantile_interval(range(5), 0.5) is None
    assert quantile_interval([], 0.5) is None
    assert quantile_interval(range(6), 0.5) == Interval(0.0, 2.5, 5.0)
    assert quantile_interval(range(100), 0.99) is None


def test_quantile_interval_estimates_as_numpy_does():
    samples = np.random.default_rng(2).lognormal(size=997)
    for q in (0.5, 0.9, 0.95):
        interval = quantile_interval(samples, q)
        assert interval.estimate == pytest.approx(np.quantile(samples, q))
        assert interval.low <= interval.estimate <= interval.high


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 60, 61, 1000])
def test_interpolated_quantiles_and_medians_of_draws_are_numpy_s_to_the_last_bit(n):
    """Published numbers were made with NumPy's."""
    random = np.random.default_rng(n)
    ordered = np.sort(random.exponential(1e6, n))
    for q in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0):
        assert interpolated(ordered, q) == np.quantile(ordered, q)
    groups = [ordered * (1 + 0.1 * k) for k in range(min(n, 6))]
    chosen = np.random.default_rng(0).integers(len(groups), size=(statistics.RESAMPLES, len(groups)))
    again = np.random.default_rng(0)
    again.integers(len(groups), size=chosen.shape)
    drawn = np.empty(chosen.shape)
    for index, group in enumerate(groups):
        drawn[chosen == index] = P50.draw(group, again, int((chosen == index).sum()))
    made = statistics.bootstrap_logs(groups, np.random.default_rng(0))
    assert np.array_equal(made, np.median(drawn, axis=1))


def test_quantile_interval_is_cheap_enough_for_a_stop_rule():
    samples = np.random.default_rng(3).lognormal(size=10_000)
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        quantile_interval(samples, 0.5)
        best = min(best, time.perf_counter() - start)
    assert best < 0.005


def test_pooled_quantile_needs_its_samples():
    random = np.random.default_rng(4)
    groups = processes(random, n=221)
    assert pooled_quantile(groups, 0.99).estimate == pytest.approx(np.quantile(np.concatenate(groups), 0.99))
    assert pooled_quantile([groups[0], groups[1], groups[2][:219]], 0.99) is None
    assert pooled_quantile([], 0.5) is None


def test_pooled_quantile_widens_when_processes_disagree():
    random = np.random.default_rng(5)
    alike, unlike = processes(random, between=0, n=300), processes(random, between=0.5, n=300)
    assert pooled_quantile(unlike, 0.9).half_width_fraction > 5 * pooled_quantile(alike, 0.9).half_width_fraction


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (10, 2.22814), (200, 1.97190)]
)
def test_t_quantile(freedom, expected):
    assert t_quantile(0.975, freedom) == pytest.approx(expected, rel=1e-4)


def coverage(between, within, trials=500):
    """Shares of intervals over three processes that hold the truth: median, ratio, bare bootstrap."""
    random = np.random.default_rng(6)
    hits = np.zeros(3)
    for trial in range(trials):
        a, b = (processes(random, between=between, within=within) for _ in range(2))
        median, factor = median_over_processes(a), ratio(a, b)
        draws = statistics.bootstrap_logs(a, np.random.default_rng(trial))
        low, high = np.quantile(draws, [0.025, 0.975])
        hits += [median.low <= 1 <= median.high, factor.low <= 1 <= factor.high, low <= 0 <= high]
    return hits / trials


def test_three_processes_cover_where_the_bootstrap_alone_does_not():
    median, factor, bootstrap = coverage(between=0.05, within=0.03)
    assert median >= 0.9
    assert factor >= 0.9
    assert bootstrap < 0.85  # why the module takes the wider of two


def test_intervals_narrow_with_more_processes():
    random = np.random.default_rng(7)
    few, many = (
        np.mean([median_over_processes(processes(random, count)).half_width_fraction for _ in range(50)])
        for count in (3, 10)
    )
    assert many < few / 2


def test_ratio_finds_a_planted_factor():
    random = np.random.default_rng(8)
    factor = ratio(processes(random, 5, median=3.0), processes(random, 5, median=2.0))
    assert factor.low < 1.5 < factor.high
    assert factor.half_width_fraction < 0.1


def test_results_are_seeded_and_free_of_units():
    random = np.random.default_rng(9)
    groups = processes(random)
    assert median_over_processes(groups, seed=1) == median_over_processes(groups, seed=1)
    scaled = median_over_processes([group * 1e6 for group in groups])
    assert scaled.low == pytest.approx(median_over_processes(groups).low * 1e6)


def test_one_process_bounds_nothing():
    alone = median_over_processes([[1.0, 2.0, 3.0]])
    assert alone == Interval(0.0, pytest.approx(2.0), math.inf)
    assert not alone.bounded
    assert alone.half_width_fraction == math.inf
    assert noise_floor([[1.0]], [[1.0]]) == math.inf
    assert verdict(ratio([[1.0]], [[50.0]]), 0.0) == "undecided"


def test_empty_and_impossible_samples_are_refused():
    for groups in ([], [[1.0], [0.0]], [[1.0], [-1.0]]):
        with pytest.raises(ValueError, match="positive"):
            median_over_processes(groups)


def test_log_contrast_finds_an_exponent():
    random = np.random.default_rng(10)
    x = np.log([32, 64, 128, 256])
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    cells = [processes(random, 5, median=s**1.3) for s in (32, 64, 128, 256)]
    slope = log_contrast(cells, weights)
    assert slope.low < 1.3 < slope.high
    assert slope.high - slope.low < 0.2


def test_mean_over_processes():
    interval = mean_over_processes([90.0, 100.0, 111.1111])
    assert interval.estimate == pytest.approx(100, rel=1e-4)
    assert interval.low < 90
    assert interval.high > 111
    assert mean_over_processes([5.0]).high == math.inf


def test_noise_floor_is_the_far_end_whichever_is_slower():
    random = np.random.default_rng(11)
    a, b = processes(random, 5, median=1.0), processes(random, 5, median=1.1)
    assert noise_floor(a, b) == pytest.approx(noise_floor(b, a), rel=0.1)
    assert noise_floor(a, b) > 0.1
    exact = [np.full(10, 5.0)] * 3
    assert noise_floor(exact, exact) == 0.0


@pytest.mark.parametrize(
    ("interval", "floor", "expected"),
    [
        (Interval(0.5, 0.6, 0.7), 0.05, "faster"),
        (Interval(1.2, 1.3, 1.4), 0.05, "slower"),
        (Interval(1.01, 1.02, 1.03), 0.05, "same within noise"),  # certain, yet below the noise floor
        (Interval(0.9, 1.3, 1.8), 0.05, "undecided"),
        (Interval(0.8, 1.0, 1.25), 0.05, "undecided"),  # too wide to say "same"
        (Interval(1.2, 1.3, 1.4), math.inf, "undecided"),
        (Interval(1.2, 1.3, 1.4), 0.31, "undecided"),
        (Interval(0.28, 0.34, 0.45), 12.7, "undecided"),  # within a noise floor that bounds nothing
        (Interval(0.92, 1.0, 1.09), 0.6, "same within noise"),
    ],
)
def test_verdicts(interval, floor, expected):
    assert verdict(interval, floor) == expected


def test_interval_arithmetic():
    interval = Interval(2.0, 4.0, 5.0)
    assert interval.half_width_fraction == pytest.approx(0.375)
    assert interval.scaled(2) == Interval(4.0, 8.0, 10.0)
    assert interval.inverted(10) == Interval(2.0, 2.5, 5.0)
    assert Interval(0.0, 1.0, math.inf).inverted() == Interval(0.0, 1.0, math.inf)
