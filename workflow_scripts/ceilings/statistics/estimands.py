"""What is compared of a process's latencies: its median, its mean, its tail.

Every estimand turns one process's samples into one number on a log scale, so that a difference of two is a log ratio.
``draw`` resamples without resampling: the q-quantile of n draws with replacement is the sample at rank floor(n U), with
U the order statistic of rank q (n - 1) + 1 among n uniforms, which is Beta distributed. For q = 1/2 and odd n that is
exact; one number a draw instead of n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ceilings.statistics.quantiles import minimum_samples

RESOLUTION = 1e-4
"""A spread below this share of the median is a clock's, and counts as this."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimand:
    """One number of a process.

    Attributes:
        name: As tables and messages call it.
        log: From a process's samples, ascending, to the log of the number.
        draw: (samples ascending, random, count) to ``count`` bootstrap draws of it.
        samples: Fewest iterations of all processes together that carry it.
    """

    name: str
    log: Callable[[Floats], float]
    draw: Callable[[Floats, np.random.Generator, int], Floats]
    samples: int


def quantile(q: float, name: str) -> Estimand:
    """A quantile: its log."""

    def log(ordered: Floats) -> float:
        return math.log(interpolated(ordered, q))

    def draw(ordered: Floats, random: np.random.Generator, count: int) -> Floats:
        return np.log(ordered[_ranks(len(ordered), q, random, count)])

    # A median needs no minimum of iterations; a tail does.
    return Estimand(name, log, draw, 1 if q == 0.5 else minimum_samples(q))


def interpolated(ordered: Floats, q: float) -> float:
    """Quantile ``q`` of ascending samples: what ``numpy.quantile`` gives to the last bit, at a tenth of its cost."""
    position = (len(ordered) - 1) * q
    rank = math.floor(position)
    below, above = float(ordered[rank]), float(ordered[min(rank + 1, len(ordered) - 1)])
    share = position - rank
    return below + (above - below) * share if share < 0.5 else above - (above - below) * (1 - share)


def _log_mean(ordered: Floats) -> float:
    return math.log(ordered.mean())


def _draw_mean(ordered: Floats, random: np.random.Generator, count: int) -> Floats:
    error = ordered.std() / math.sqrt(len(ordered))
    return np.log(np.maximum(random.normal(ordered.mean(), error, count), ordered[0]))


def _log_tail(ordered: Floats) -> float:
    return math.log(interpolated(ordered, 0.99) / interpolated(ordered, 0.5))


def _draw_tail(ordered: Floats, random: np.random.Generator, count: int) -> Floats:
    """Both quantiles drawn apart: in truth they move together, so this is a little wide."""
    n = len(ordered)
    return np.log(ordered[_ranks(n, 0.99, random, count)] / ordered[_ranks(n, 0.5, random, count)])


def _log_jitter(ordered: Floats) -> float:
    low, middle, high = (interpolated(ordered, q) for q in (0.25, 0.5, 0.75))
    return math.log(max(high - low, RESOLUTION * middle) / middle)


def _draw_jitter(ordered: Floats, random: np.random.Generator, count: int) -> Floats:
    n = len(ordered)
    low, middle, high = (ordered[_ranks(n, q, random, count)] for q in (0.25, 0.5, 0.75))
    return np.log(np.maximum(high - low, RESOLUTION * middle) / middle)


def _ranks(n: int, q: float, random: np.random.Generator, count: int) -> NDArray[np.intp]:
    rank = q * (n - 1) + 1
    return (n * random.beta(rank, n + 1 - rank, size=count)).astype(np.intp)


P50 = quantile(0.5, "p50")
P99 = quantile(0.99, "p99")
MEAN = Estimand("mean", _log_mean, _draw_mean, 1)
TAIL = Estimand("p99/p50", _log_tail, _draw_tail, minimum_samples(0.99))
"""The 99th percentile over the median: how far the tail reaches, whatever the speed."""

JITTER = Estimand("jitter", _log_jitter, _draw_jitter, minimum_samples(0.9))
"""The interquartile range over the median: how much ordinary iterations differ, tails apart."""

ESTIMANDS = {estimand.name: estimand for estimand in (P50, MEAN, P99, TAIL, JITTER)}
