"""Correlation of numbers, and agreement of two sets of vectors on the nearest neighbours of each row.

Pure functions of arrays. Rows are texts or images; a vector's neighbours are the other rows by cosine.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ceilings.statistics.decisions import t_tail
from ceilings.statistics.quantiles import Interval

Floats = NDArray[np.float64]


def pearson(first: ArrayLike, second: ArrayLike) -> float | None:
    """Correlation of two lists of equal length; None where one of them is constant, since it then has none."""
    a, b = (np.asarray(values, np.float64) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return None if scale == 0 else float(np.clip(a @ b / scale, -1.0, 1.0))


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Correlation of ranks, equal values sharing their mean rank; None where one list is constant."""
    return pearson(average_ranks(first), average_ranks(second))


def correlation_interval(correlation: float, rows: int, confidence: float = 0.95) -> Interval:
    """A correlation of so many rows with Fisher's interval of it; (-1, 1) where they bound nothing."""
    if rows < 4:
        return Interval(-1.0, correlation, 1.0)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) / math.sqrt(rows - 3)
    centre = math.atanh(min(max(correlation, -_NEARLY_ONE), _NEARLY_ONE))
    return Interval(min(math.tanh(centre - half), correlation), correlation, max(math.tanh(centre + half), correlation))


def correlation_difference(first: float, second: float, between: float, rows: int) -> tuple[Interval, float]:
    """First correlation minus second, both with the same third list: Zou's 95% interval, and Williams' p value.

    Args:
        first, second: Correlations of two lists with a third.
        between: Correlation of the two lists themselves.
        rows: Length of the lists, at least 4.
    """
    a, b, c = first, second, between
    ends = [correlation_interval(value, rows) for value in (a, b)]
    spread = (1 - a**2) * (1 - b**2)
    shared = ((c - a * b / 2) * (1 - a**2 - b**2 - c**2) + c**3) / spread if spread > 0 else 1.0
    shared = min(max(shared, -1.0), 1.0)

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 + other**2 - 2 * shared * one * other))

    estimate = a - b
    low = estimate - reach(a - ends[0].low, ends[1].high - b)
    high = estimate + reach(ends[0].high - a, b - ends[1].low)
    determinant = max(0.0, 1 - a**2 - b**2 - c**2 + 2 * a * b * c)
    error = 2 * (rows - 1) / (rows - 3) * determinant + ((a + b) / 2) ** 2 * (1 - c) ** 3
    if estimate == 0 or error <= 0:
        return Interval(low, estimate, high), 1.0 if estimate == 0 else 0.0
    t = abs(estimate) * math.sqrt((rows - 1) * (1 + c) / error)
    return Interval(low, estimate, high), min(1.0, 2 * t_tail(t, rows - 3))


_NEARLY_ONE = 1 - 1e-15
"""The largest correlation whose Fisher transform is finite."""


def average_ranks(values: ArrayLike) -> Floats:
    """Ranks from 1; equal values share the mean of theirs.

    >>> average_ranks([30, 10, 20, 20]).tolist()
    [4.0, 1.0, 2.5, 2.5]
    """
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def cosines(first: ArrayLike, second: ArrayLike) -> Floats:
    """Cosine of each pair of rows, (rows,); two zero vectors point the same way, one alone points nowhere (0)."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = lengths[0] * lengths[1]
    aligned = np.where((lengths[0] == 0) & (lengths[1] == 0), 1.0, 0.0)
    return np.clip(np.divide((a * b).sum(axis=1), product, out=aligned, where=product > 0), -1.0, 1.0)


def similarities(vectors: ArrayLike) -> Floats:
    """Cosine of every row with every row, (rows, rows)."""
    a = np.asarray(vectors, np.float64)
    length = np.linalg.norm(a, axis=1, keepdims=True)
    unit = np.divide(a, length, out=np.zeros_like(a), where=length > 0)
    return np.clip(unit @ unit.T, -1.0, 1.0)


def neighbour_overlap(first: ArrayLike, second: ArrayLike, count: int) -> Floats:
    """Of each row's ``count`` nearest others by ``first``, the share that is among them by ``second``, (rows,).

    Args:
        first, second: Similarities (rows, rows), as :func:`similarities` gives them, with rows > count.
    """
    sets = [_nearest(np.asarray(values, np.float64), count) for values in (first, second)]
    return np.array([len(np.intersect1d(*pair)) / count for pair in zip(*sets, strict=True)])


def neighbour_ranks(first: ArrayLike, second: ArrayLike) -> Floats:
    """Of each row, the rank correlation of its similarities to all others, (rows,); NaN where there is none."""
    a, b = np.asarray(first), np.asarray(second)
    others = ~np.eye(len(a), dtype=bool)
    correlations = [spearman(a[row][others[row]], b[row][others[row]]) for row in range(len(a))]
    return np.array([np.nan if value is None else value for value in correlations])


def _nearest(similar: Floats, count: int) -> NDArray[np.intp]:
    """Indices of each row's ``count`` nearest others; of equally near ones the first, so that equal inputs agree."""
    apart = similar.copy()
    np.fill_diagonal(apart, -np.inf)
    return np.argsort(-apart, axis=1, kind="stable")[:, :count]
