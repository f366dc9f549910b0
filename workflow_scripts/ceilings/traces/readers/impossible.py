"""Rows of a trace that no device can have written: the same operation twice, and times far from all others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.recording import Integers

FAR_NS = 60_000_000_000
"""An operation this far from everything else is none, whatever it is beside."""


def repeated(rows: Integers) -> NDArray[np.bool_]:
    """Which rows are there before, equal in each column.

    Args:
        rows: Of all that tells one operation from another; the first column is its start.
    """
    again = np.zeros(len(rows), bool)
    if len(rows) < 2:
        return again
    by_start = np.argsort(rows[:, 0], kind="stable")
    ties = np.diff(rows[by_start, 0]) == 0
    tied = by_start[np.append(ties, False) | np.append(False, ties)]  # sorting by each column takes long
    order = tied[np.lexsort(rows[tied].T)]
    again[order[1:]] = (rows[order[1:]] == rows[order[:-1]]).all(1)
    return again


def misplaced(start: Integers, end: Integers, stream: Integers, host: Integers) -> NDArray[np.bool_]:
    """Which operations begin far before, or end far after, everything else that a trace holds.

    A long kernel may run on when all else is over. So the last of a stream is left out only where it takes ``FAR_NS``
    longer than all else, but one within which others of its stream begin, where it takes longer than all else.

    Args:
        start, end, stream: Of each operation, in ns; a number of its stream, from 0.
        host: When what the host did began.
    """
    wrong = np.zeros(len(start), bool)
    if len(start) < 2:
        return wrong
    begins = np.sort(np.concatenate([start, host]))
    first, last = _within(begins)
    extent = last - first
    over = end - last
    wrong |= (start < first - extent - FAR_NS) | (start > last + extent + FAR_NS) | (over > 10 * extent + FAR_NS)
    kept = np.flatnonzero(~wrong)
    latest = np.full(int(stream.max()) + 1, np.iinfo(np.int64).min)
    np.maximum.at(latest, stream[kept], start[kept])
    wrong[kept] = (over[kept] > extent) & (start[kept] < latest[stream[kept]])
    return wrong


def _within(begins: Integers) -> tuple[int, int]:
    """The first and the last of some sorted times, but for those further out than ``FAR_NS`` and all the others."""
    middle, gaps = len(begins) // 2, np.diff(begins)
    few = max(3, len(begins) // 100)  # more are another part of the program, behind a pause
    first, last = begins[0], begins[-1]
    if middle > few:
        # A gap that is longer than all that lies nearer to the middle cuts off what lies beyond it.
        below = np.flatnonzero(gaps[:few] > FAR_NS + 10 * (begins[middle] - begins[1 : few + 1]))
        above = np.flatnonzero(gaps[-few:] > FAR_NS + 10 * (begins[-few - 1 : -1] - begins[middle]))
        first = begins[below[-1] + 1] if len(below) else first
        last = begins[len(begins) - few - 1 + above[0]] if len(above) else last
    return int(first), int(last)
