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


def disjoint(begin: Times, finish: Times) -> tuple[Times, Times]:
    """Begins and ends of disjoint intervals that cover what these cover, in order.

    >>> [each.tolist() for each in disjoint(np.array([3, 0, 8]), np.array([5, 4, 9]))]
    [[0, 8], [5, 9]]
    """
    order = np.argsort(begin, kind="stable")
    begin, finish = begin[order], finish[order]
    if not len(begin):
        return begin, finish
    over = np.maximum.accumulate(finish)
    opens = np.append(True, begin[1:] > over[:-1])
    return begin[opens], over[np.append(opens[1:], True)]


def union(begin: Times, finish: Times) -> Covered:
    """What intervals cover together."""
    return Covered(*disjoint(begin, finish))
