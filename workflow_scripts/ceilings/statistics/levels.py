"""Where a series of latencies changed its level. Pure functions of numbers.

The test is the one of Shao and Zhang (2010) for a change of the mean: a sum of deviations over a normaliser that comes
from the same sums on both sides of the split. It estimates no variance and no correlation, so it holds for iterations
that follow each other. What is tested are logarithms of the medians of short blocks: single slow iterations and two
modes that alternate within a block move them little. Values that come again with each request, such as steps that grow
with the context, are no change: they stand in the normaliser too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ceilings.statistics.quantiles import Interval

CHANGED = 0.05
"""A smaller change is none: two windows of a warm-up within it lie on a plateau."""

CRITICAL = 121.9
"""The statistic exceeds it in one of a thousand series without a change (Shao and Zhang 2010, table 1, q = 1)."""

BLOCKS = 32
"""Medians that are tested, of a series that is long enough."""

FEWEST_BLOCKS = 12
"""With fewer the statistic exceeds its critical value by chance too often."""

BLOCK = 4
"""Fewest iterations of a block: one slow iteration does not move its median far."""

EDGE = 0.05
"""Part of the blocks that each side of a change has at least."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """A change of level.

    Attributes:
        position: Index of the first iteration of the second level, by the begin of its block.
        before, after: Medians of the iterations on both sides, in the series' unit.
    """

    position: int
    before: float
    after: float


def change(values: ArrayLike, critical: float = CRITICAL) -> Change | None:
    """The one change of level that divides a series best; None without one, and of fewer than 48 iterations.

    Args:
        values: Positive, in the order of time.
        critical: What the statistic must exceed.
    """
    series = np.asarray(values, dtype=np.float64)
    count = min(BLOCKS, len(series) // BLOCK)
    if count < FEWEST_BLOCKS:
        return None
    edges = np.arange(count + 1) * len(series) // count
    logs = np.log(_medians(series, edges))
    if np.ptp(logs) <= math.log1p(CHANGED):  # of most series: nothing to look for
        return None
    statistic, split = _split(logs)
    position = int(edges[split])
    before, after = float(np.median(series[:position])), float(np.median(series[position:]))
    if statistic <= critical or abs(math.log(after / before)) <= math.log1p(CHANGED):
        return None
    return Change(position, before, after)


def log_bounds(groups: Sequence[ArrayLike]) -> tuple[float, float]:
    """How far the median over processes could lie from where it lies, had each process kept one of its levels.

    Args:
        groups: The processes of one cell, an array of iterations each.

    Returns:
        Two logarithms of a factor, the first 0 or less, the second 0 or more; both 0 where no level changed.
    """
    middles, lows, highs = [], [], []
    for group in groups:
        middle = float(np.median(np.asarray(group, dtype=np.float64)))
        changed = change(group)
        levels = (changed.before, changed.after) if changed else (middle,)
        middles.append(math.log(middle))
        lows.append(math.log(min(middle, *levels)))
        highs.append(math.log(max(middle, *levels)))
    middle = float(np.median(middles))
    return float(np.median(lows)) - middle, float(np.median(highs)) - middle


def widened(factor: Interval, bounds: Sequence[tuple[float, float]], weights: Sequence[float]) -> Interval:
    """A product of medians to the power of ``weights``, its interval covering what other levels would have made of it.

    Args:
        factor: The product with its interval.
        bounds: Of each cell in it, as :func:`log_bounds` gives them.
        weights: Of each cell; 1 and -1 for a ratio.

    >>> widened(Interval(0.9, 0.95, 0.99), [(0.0, 0.0), (-0.1, 0.0)], [1.0, -1.0])
    Interval(low=0.9, estimate=0.95, high=1.0499123721720654)
    """
    pairs = [sorted((weight * low, weight * high)) for (low, high), weight in zip(bounds, weights, strict=True)]
    down, up = (sum(pair[side] for pair in pairs) for side in (0, 1))
    estimate = factor.estimate
    return Interval(min(factor.low, estimate * math.exp(down)), estimate, max(factor.high, estimate * math.exp(up)))


def _medians(series: Floats, edges: NDArray[np.int64]) -> Floats:
    """The median between each two edges; all in one sort, since a call for each block takes ten times as long."""
    starts, lengths = edges[:-1], np.diff(edges)
    ordered = series[np.lexsort((series, np.repeat(np.arange(len(starts)), lengths)))]
    middles: Floats = (ordered[starts + (lengths - 1) // 2] + ordered[starts + lengths // 2]) / 2
    return middles


def _split(values: Floats) -> tuple[float, int]:
    """The largest statistic over all splits, and how many values lie before the split that leaves the least squares.

    Of a split after k of n values: the square of their sum, as deviations from the mean of all, over n; divided by the
    mean square of the bridges of both sides (their partial sums less the line to their end), again over n.
    """
    deviations = values - values.mean()
    n = len(values)
    first = max(1, math.ceil(n * EDGE))
    splits = np.arange(first, n - first + 1)
    forward, backward = _bridges(deviations), _bridges(deviations[::-1])
    sums = np.cumsum(deviations)[splits - 1]
    best = int(np.argmax(sums**2 / (splits * (n - splits))))
    normaliser = (forward[splits - 1] + backward[n - splits - 1]) / n**2
    # Two levels without any noise have a normaliser of 0; a constant series has nothing to divide.
    tiny = np.finfo(np.float64).eps * max(float((values**2).sum()), 1.0)
    statistics = sums**2 / n / np.maximum(normaliser, tiny)
    return float(statistics.max()), int(splits[best])


def _bridges(values: Floats) -> Floats:
    """For each k, the sum of squares of the bridge over the first k values."""
    sums = np.cumsum(values)
    steps = np.arange(1, len(values) + 1, dtype=np.float64)
    slopes = sums / steps
    # sum of (S_t - t S_k / k)^2 over t up to k, multiplied out
    squares = np.cumsum(sums**2) - 2 * slopes * np.cumsum(steps * sums) + slopes**2 * np.cumsum(steps**2)
    return np.maximum(squares, 0.0)
