"""Whether slower values come back in a fixed turn: every n-th iteration. Pure functions of numbers.

A median hides them, and a change of level is none. Periods are tried from the shortest on. One holds if nearly all
values of one place in the turn are above nearly all others: of values without a turn that has a chance of one in ten
for each turn, so of 1e-8 for ``FEWEST`` turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

LONGEST = 64
"""Iterations of the longest turn that is looked for."""

FEWEST = 8
"""Turns that a series must have."""

SLOWER = 1.2
"""A smaller ratio is none that matters beside the spread of a machine."""

NEARLY = 0.9

MOST = 4096
"""Values that are looked at, from the first on."""


@dataclass(frozen=True)
class Returning:
    """A slower value in each turn.

    Attributes:
        period: After so many values it comes again.
        ratio: Median of the slower values over that of the others.
    """

    period: int
    ratio: float


def returning(values: ArrayLike) -> Returning | None:
    """The shortest turn of a series with one slower value; None without one.

    Args:
        values: Positive, in the order of time.
    """
    series = np.asarray(values, dtype=np.float64)[:MOST]
    # Most series have too few slow values for any turn; the fast quarter is fast whatever the turn.
    if not len(series) or np.mean(series >= SLOWER * np.quantile(series, 0.25)) < NEARLY / (LONGEST + 1):
        return None
    for period in range(2, min(LONGEST, len(series) // FEWEST) + 1):
        turns = series[: len(series) // period * period].reshape(-1, period)
        place = int(np.median(turns, axis=0).argmax())
        slow, others = turns[:, place], np.delete(turns, place, axis=1).ravel()
        ratio = float(np.median(slow) / np.median(others))
        if ratio >= SLOWER and np.mean(slow > np.quantile(others, NEARLY)) >= NEARLY:
            return Returning(period, ratio) if math.isfinite(ratio) else None
    return None
