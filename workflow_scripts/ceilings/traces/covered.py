"""Sets of intervals of time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64] | NDArray[np.float64]


class Covered:
    """A set of disjoint intervals, and how much of another interval lies in it."""

    def __init__(self, begin: Times, finish: Times) -> None:
        order = np.argsort(begin, kind="stable")
        self._points = np.column_stack([begin[order], finish[order]]).ravel().astype(np.float64)
        lengths = (finish - begin)[order]
        self._sums = np.repeat(np.concatenate([[0.0], np.cumsum(lengths)]), 2)[1:-1]

    def within(self, begin: Times, finish: Times) -> NDArray[np.float64]:
        """Covered length of each [begin, finish]."""
        if not len(self._points):
            return np.zeros(len(begin))
        return np.interp(finish, self._points, self._sums) - np.interp(begin, self._points, self._sums)

    def common(self, other: Covered) -> float:
        """Length of what lies in both sets."""
        begin, finish = self._points.reshape(-1, 2).T
        return float(other.within(begin, finish).sum())
