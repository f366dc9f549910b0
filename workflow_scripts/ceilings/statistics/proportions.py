"""Intervals and tests of a share of rows, and of the difference of two shares of the same rows.

Pure functions of counts. Every interval is a score interval, since accuracies and agreements lie near 1, where the
textbook's estimate plus or minus two standard errors leaves the range or has no width at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from ceilings.statistics.quantiles import Interval


def wilson(successes: float, total: int, confidence: float = 0.95) -> Interval:
    """A share and Wilson's score interval of it (E. B. Wilson, 1927).

    Args:
        successes: How many of ``total`` independent rows, at least one; or the sum of their shares, each from 0 to 1,
            whose spread is at most that of rows that count or do not, so that the interval is wide rather than narrow.
    """
    if not 0 <= successes <= total or total < 1:
        raise ValueError(f"{successes} of {total} is no share")
    z = _z(confidence)
    share = successes / total
    centre = share + z**2 / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    # At the ends of the range the two terms are equal, and rounding must not leave a rest.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == total else (centre + half) / scale
    return Interval(low, share, high)


def paired_difference(only_first: int, only_second: int, total: int, confidence: float = 0.95) -> Interval:
    """First share minus second share of the same rows, and Tango's score interval of the difference.

    It has width also where the two never disagree: ``z^2 / (total + z^2)`` to each side (T. Tango, 1998).

    Args:
        only_first: Rows that count in the first share and not in the second.
        only_second: The other way round.
        total: All rows, those on which the two agree included.
    """
    if min(only_first, only_second) < 0 or total < max(1, only_first + only_second):
        raise ValueError(f"{only_first} and {only_second} of {total} rows are no pair of shares")
    z = _z(confidence)
    estimate = (only_first - only_second) / total

    def score(difference: float) -> float:
        """Standard errors between the estimate and a difference, if that were the true one. Falls along the range."""
        linear = -only_first - only_second + (2 * total - only_first + only_second) * difference
        constant = -only_second * difference * (1 - difference)
        root = math.sqrt(max(0.0, linear**2 - 8 * total * constant))
        second = (root - linear) / (4 * total)  # the most likely share of rows that count in the second alone
        variance = total * (2 * second + difference * (1 - difference))
        gap = only_first - only_second - total * difference
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap) if gap else 0.0

    low = _root(lambda difference: score(difference) - z, -1.0, estimate)
    high = _root(lambda difference: score(difference) + z, estimate, 1.0)
    return Interval(low, estimate, high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided probability of so uneven a disagreement if both shares were the same: McNemar's exact test.

    Rows on which the two agree say nothing of it; with none on which they disagree it is 1.
    """
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    # Whole numbers: no sum of tiny probabilities, so none is lost.
    tail = sum(math.comb(discordant, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / 2**discordant)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0; the end of the range that it lies beyond, if it does not."""
    if falling(low) <= 0:
        return low
    if falling(high) >= 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
