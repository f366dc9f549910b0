"""Estimates of latencies with their intervals, and the noise floor.

Pure functions of numbers; nothing here knows a clock, a device or a file. Samples are positive and in any one unit;
intervals come back in that unit. ``groups`` are the processes of one cell: one array of iterations a process.

Two levels of chance are kept apart, because they differ by an order of magnitude in practice: iterations of one
process vary (and follow each other, so they are not independent), and processes differ as a whole (memory layout,
thread placement, clocks). Only several processes can show the second.

Intervals over processes are the wider, on each side, of two:

1. A hierarchical percentile bootstrap: processes drawn again, then iterations within each.
2. A Student t interval over the processes' log medians.

The bootstrap alone is too narrow with few processes. With three, every draw lies between the lowest and the highest
median, and the true value lies outside of all three with probability 2 * (1/2)^3 = 25%, so a nominal 95% interval
covers 75% at best. The t interval is right for three processes whose log medians are about normal, whatever the
iterations within a process do (drift and autocorrelation end up in the spread of the medians); it is too narrow when
three medians happen to agree, which is where the bootstrap's iterations keep it wide. ``tests`` hold the simulation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ceilings.statistics.estimands import P50, Estimand
from ceilings.statistics.quantiles import Interval, minimum_samples, quantile_interval

Floats = NDArray[np.float64]

RESAMPLES = 1000
"""Bootstrap draws: the 2.5% point of 1,000 draws is known to 0.5 percentage points, well inside the t term's width."""

# --- intervals over processes ----------------------------------------------------------------------------------------


def pooled_quantile(groups: Sequence[ArrayLike], q: float, confidence: float = 0.95) -> Interval | None:
    """Quantile ``q`` of all iterations of all processes together; None below ``minimum_samples(q)`` of them.

    The interval is that of the order statistics, widened to the t interval over the quantiles of each process where
    that is wider: the pooled n does not show that one process has a tail and the others have none.
    """
    pool = np.concatenate([np.asarray(group, dtype=np.float64) for group in groups]) if groups else np.empty(0)
    if len(pool) < minimum_samples(q):
        return None
    pooled = quantile_interval(pool, q, confidence)
    if pooled is None:
        return None
    logs = np.log([np.quantile(np.asarray(group, dtype=np.float64), q) for group in groups])
    half = _t_half_width(logs, confidence)
    return Interval(
        min(pooled.low, pooled.estimate * math.exp(-half)),
        pooled.estimate,
        max(pooled.high, pooled.estimate * _exp(half)),
    )


def median_over_processes(groups: Sequence[ArrayLike], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Median of the processes' medians in logarithms, with the interval that the module describes.

    Of an even number of processes it is the geometric mean of both medians in the middle. One process bounds nothing:
    its interval is (0, infinity).
    """
    logs = log_contrast([groups], [1.0], confidence, seed)
    return Interval(_exp(logs.low), _exp(logs.estimate), _exp(logs.high))


def ratio(
    groups_a: Sequence[ArrayLike],
    groups_b: Sequence[ArrayLike],
    confidence: float = 0.95,
    seed: int = 0,
    estimand: Estimand = P50,
) -> Interval:
    """How many times the latency of b the latency of a is (medians over processes; below 1: a is faster).

    The t interval is Welch's: neither equal spread nor equal numbers of processes are assumed.
    """
    return contrast([groups_a, groups_b], [1.0, -1.0], confidence, seed, estimand)


def contrast(
    cells: Sequence[Sequence[ArrayLike]],
    weights: Sequence[float],
    confidence: float = 0.95,
    seed: int = 0,
    estimand: Estimand = P50,
) -> Interval:
    """:func:`log_contrast` as a factor: a ratio of cells, or a ratio of ratios."""
    logs = log_contrast(cells, weights, confidence, seed, estimand)
    return Interval(_exp(logs.low), _exp(logs.estimate), _exp(logs.high))


def log_contrast(
    cells: Sequence[Sequence[ArrayLike]],
    weights: Sequence[float],
    confidence: float = 0.95,
    seed: int = 0,
    estimand: Estimand = P50,
) -> Interval:
    """Weighted sum of the cells' logs (each the median over processes of ``estimand``), with its interval.

    The weights (1, -1) give a log ratio; those of a least-squares slope give an exponent of growth. The t interval has
    Welch and Satterthwaite's degrees of freedom.
    """
    random = np.random.default_rng(seed)
    estimate = centre = 0.0
    draws = np.zeros(RESAMPLES)
    squares, freedoms = [], []
    for groups, weight in zip(cells, weights, strict=True):
        logs = process_logs(groups, estimand)
        estimate += weight * float(np.median(logs))
        centre += weight * float(logs.mean())
        draws += weight * bootstrap_logs(groups, random, estimand)
        squares.append(weight**2 * float(logs.var(ddof=1)) / len(logs) if len(logs) > 1 else math.inf)
        freedoms.append(len(logs) - 1)
    half = _welch_half_width(squares, freedoms, confidence)
    low, high = _widest(estimate, centre, half, draws, confidence)
    return Interval(low, estimate, high)


def mean_over_processes(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Geometric mean of one positive number a process (such as a saturated throughput) with its t interval."""
    logs = np.log(np.asarray(values, dtype=np.float64))
    centre, half = float(logs.mean()), _t_half_width(logs, confidence)
    return Interval(_exp(centre - half), _exp(centre), _exp(centre + half))


def difference_over_processes(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of one difference a process, of any sign, with its t interval; of one process nothing bounds it."""
    differences = np.asarray(values, dtype=np.float64)
    centre, half = float(differences.mean()), _t_half_width(differences, confidence)
    return Interval(centre - half, centre, centre + half)


def paired_over_processes(logs: Sequence[Floats], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Geometric mean over processes of ratios that each process gives several of, one a round.

    The interval is the wider, on each side, of Student's t over the means of the processes and a hierarchical bootstrap
    of processes and rounds. One process bounds nothing: its interval is (0, infinity).

    Args:
        logs: Of each process the logarithm of each of its ratios.
    """
    if not logs or any(not len(each) for each in logs):
        raise ValueError("ratios are paired within processes: at least one process, and each of them a round")
    means = np.array([each.mean() for each in logs])
    centre = float(means.mean())
    if len(means) < 2:
        return Interval(0.0, math.exp(centre), math.inf)
    half = _t_half_width(means, confidence)
    random = np.random.default_rng(seed)
    resampled = np.stack([each[random.integers(len(each), size=(RESAMPLES, len(each)))].mean(axis=1) for each in logs])
    chosen = random.integers(len(logs), size=(len(logs), RESAMPLES))
    draws = resampled[chosen, np.arange(RESAMPLES)].mean(axis=0)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(_exp(min(float(low), centre - half)), _exp(centre), _exp(max(float(high), centre + half)))


# --- differences -----------------------------------------------------------------------------------------------------

Verdict = Literal["faster", "slower", "same within noise", "undecided"]

SAME = 0.1
"""Largest difference, as a fraction, within which two latencies are called the same, however high the noise floor."""


def noise_floor(
    groups_a: Sequence[ArrayLike],
    groups_aa: Sequence[ArrayLike],
    confidence: float = 0.95,
    seed: int = 0,
    estimand: Estimand = P50,
) -> float:
    """The largest difference, as a fraction, that two measurements of the same thing are compatible with.

    The upper end of the interval of \\|log(a / aa)\\|: 0.03 means that 3% may be nothing but noise.
    """
    return widest_difference(ratio(groups_a, groups_aa, confidence, seed, estimand))


def widest_difference(aa: Interval) -> float:
    """The end of a ratio's interval that is further from 1, as a fraction; infinite where nothing bounds it."""
    if not aa.bounded:
        return math.inf
    return math.expm1(max(abs(math.log(aa.low)), abs(math.log(aa.high))))


def verdict(latency_ratio: Interval, floor: float) -> Verdict:
    """The verdict on a, from a's latency over b's and the noise floor (a fraction).

    "faster" and "slower" need both: an interval without 1 and an estimate beyond the noise floor. "same within noise"
    needs the whole interval within the noise floor, and within ``SAME``: on a machine whose noise is a factor of ten a
    difference of three is not called the same. Anything else is undecided.
    """
    beyond = abs(math.log(latency_ratio.estimate)) > math.log1p(floor)
    if beyond and latency_ratio.high < 1:
        return "faster"
    if beyond and latency_ratio.low > 1:
        return "slower"
    most = 1 + min(floor, SAME)
    if latency_ratio.low >= 1 / most and latency_ratio.high <= most:
        return "same within noise"
    return "undecided"


# --- the parts -------------------------------------------------------------------------------------------------------


def process_logs(groups: Sequence[ArrayLike], estimand: Estimand = P50) -> Floats:
    """The log of ``estimand``, one a process."""
    logs = []
    for group in groups:
        ordered = np.sort(np.asarray(group, dtype=np.float64))
        if not len(ordered) or not ordered[0] > 0 or np.isnan(ordered[-1]):
            raise ValueError("every process needs at least one sample, and latencies are positive")
        logs.append(estimand.log(ordered))
    if not logs:
        raise ValueError("a cell needs at least one process, and latencies are positive")
    return np.array(logs)


def bootstrap_logs(groups: Sequence[ArrayLike], random: np.random.Generator, estimand: Estimand = P50) -> Floats:
    """The median over processes of ``RESAMPLES`` hierarchical resamples."""
    chosen = random.integers(len(groups), size=(RESAMPLES, len(groups)))
    drawn = np.empty(chosen.shape)
    for index, group in enumerate(groups):
        mask = chosen == index
        drawn[mask] = estimand.draw(np.sort(np.asarray(group, dtype=np.float64)), random, int(np.count_nonzero(mask)))
    drawn.sort(axis=1)
    below, above = (len(groups) - 1) // 2, len(groups) // 2
    return (drawn[:, below] + drawn[:, above]) / 2  # np.median, a third cheaper over so few


def _widest(estimate: float, centre: float, half: float, draws: Floats, confidence: float) -> tuple[float, float]:
    """The wider end on each side, of logs."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return min(float(low), centre - half, estimate), max(float(high), centre + half, estimate)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _t_half_width(logs: Floats, confidence: float) -> float:
    n = len(logs)
    if n < 2:
        return math.inf
    return t_quantile(0.5 + confidence / 2, n - 1) * float(logs.std(ddof=1)) / math.sqrt(n)


def _welch_half_width(squares: Sequence[float], freedoms: Sequence[int], confidence: float) -> float:
    """Half width from each mean's squared standard error and its degrees of freedom."""
    total = sum(squares)
    if total == 0 or not math.isfinite(total):
        return total
    freedom = total**2 / sum(square**2 / free for square, free in zip(squares, freedoms, strict=True) if square)
    # Rounded down, which widens, so that few quantiles are ever computed.
    return t_quantile(0.5 + confidence / 2, math.floor(freedom * 10) / 10) * math.sqrt(total)


@functools.cache
def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution, to about six digits, for a probability between 0.5 and 0.9999.

    With t = sqrt(freedom) tan(angle) the density becomes cos(angle)^(freedom - 1) on a bounded range: a plain
    integral, where an incomplete beta function would be a dependency.
    """
    angle = np.linspace(0.0, math.pi / 2, 20001)
    density = np.cos(angle).clip(min=0.0) ** (freedom - 1)
    share = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * probability - 1, share / share[-1], angle)))
