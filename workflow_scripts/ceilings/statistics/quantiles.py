"""Quantiles of independent samples and what bounds them, without assuming a distribution.

Apart from :mod:`ceilings.statistics.intervals` because the stop rule of the timing loop uses these: a change here
changes what is measured, a change there only what is made of it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it, in the samples' unit (or a bare ratio)."""

    low: float
    estimate: float
    high: float

    @property
    def half_width_fraction(self) -> float:
        """Half of the interval's width over the estimate; infinite where nothing bounds it."""
        return (self.high - self.low) / (2 * self.estimate) if self.bounded else math.inf

    @property
    def bounded(self) -> bool:
        """Whether both ends are known: one process, for one, bounds nothing."""
        return math.isfinite(self.high) and self.low > 0

    def scaled(self, factor: float) -> Interval:
        """The same interval in another unit (``factor`` > 0)."""
        return Interval(self.low * factor, self.estimate * factor, self.high * factor)

    def inverted(self, numerator: float = 1.0) -> Interval:
        """The interval of ``numerator / x``."""
        low = numerator / self.high if self.high else math.inf
        high = numerator / self.low if self.low else math.inf
        return Interval(low, numerator / self.estimate, high)


@functools.cache
def minimum_samples(q: float, confidence: float = 0.99) -> int:
    """Fewest samples with which the quantile ``q`` may be reported.

    The smallest n for which at least two of n independent samples lie beyond the quantile with probability
    ``confidence`` (beyond: above it for q >= 0.5, below it otherwise). With one sample beyond, the reported value is
    the extreme itself. P(at most one beyond) = (1-t)^n + n t (1-t)^(n-1), t the tail's probability.
    """
    if not 0 < q < 1:
        raise ValueError(f"quantile {q} is not between 0 and 1")
    # Rounded, because 1 - 0.99 is a little more than 0.01.
    tail = round(min(q, 1 - q), 12)

    def enough(n: int) -> bool:
        return (1 - tail) ** n + n * tail * (1 - tail) ** (n - 1) <= 1 - confidence

    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if not enough(low) else low


@functools.lru_cache(maxsize=4096)
def quantile_ranks(n: int, q: float, confidence: float = 0.95) -> tuple[int, int] | None:
    """Ranks (from 0) of the two order statistics that bound the quantile ``q`` of n samples; None if n is too small.

    With B ~ Binomial(n, q) the number of samples below the quantile, the ends are the largest rank that B falls short
    of with probability at most (1 - confidence) / 2, and the smallest that it reaches with at most as much. No
    distribution is assumed (David & Nagaraja, Order Statistics, 7.1).
    """
    if n < 1:
        return None
    # Twelve standard deviations hold all of the mass that a double can tell from 1, so large n stay cheap.
    reach = int(12 * math.sqrt(n * q * (1 - q))) + 20
    first, last = max(0, int(n * q) - reach), min(n, int(n * q) + reach)
    k = np.arange(first, last + 1)
    log_steps = np.log((n - k[:-1]) / (k[:-1] + 1)) + math.log(q / (1 - q))
    log_mass = np.concatenate([[0.0], np.cumsum(log_steps)])
    mass = np.exp(log_mass - log_mass.max())
    below = np.cumsum(mass) / mass.sum()  # P(B <= k)
    tail = (1 - confidence) / 2
    low = first + int(np.searchsorted(below, tail, side="right")) - 1
    high = first + int(np.searchsorted(below, 1 - tail, side="left"))
    return (low, high) if low >= 0 and high <= n - 1 else None


def quantile_interval(samples: ArrayLike, q: float, confidence: float = 0.95) -> Interval | None:
    """Quantile ``q`` of independent samples with its distribution-free interval; None where n is too small to bound it.

    The estimate interpolates as ``numpy.quantile`` does by default, so that a reader finds the same number. Linear in
    the number of samples (a partition, not a sort): a stop rule may call it while it measures.
    """
    values = np.asarray(samples)
    n = len(values)
    ranks = quantile_ranks(n, q, confidence)
    if ranks is None:
        return None
    low, high = ranks
    position = (n - 1) * q
    floor = math.floor(position)
    ceiling = min(floor + 1, n - 1)
    ordered = np.partition(values, sorted({low, floor, ceiling, high}))
    estimate = float(ordered[floor]) + (position - floor) * (float(ordered[ceiling]) - float(ordered[floor]))
    return Interval(float(ordered[low]), estimate, float(ordered[high]))
