"""Spans of a thread that are nested: of two that overlap, one lies within the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.capture import Integers


def crossing(start: Integers, end: Integers, thread: Integers) -> NDArray[np.bool_]:
    """Which spans begin within another one of their thread and end after it.

    Without them, the spans of each thread are nested.

    Args:
        start, end, thread: Of each span, by thread and start, of one start the longest first.
    """
    crosses = np.zeros(len(start), bool)
    open_until: list[int] = []
    now: int | None = None
    for place, (begin, finish, where) in enumerate(zip(start.tolist(), end.tolist(), thread.tolist(), strict=True)):
        if where != now:
            now, open_until = where, []
        while open_until and open_until[-1] <= begin:
            open_until.pop()
        if open_until and finish > open_until[-1]:
            crosses[place] = True
        else:
            open_until.append(finish)
    return crosses


def lanes(start: Integers, end: Integers, thread: Integers) -> tuple[Integers, Integers]:
    """The order by thread, lane and start, and each span's lane: spans of one lane are nested.

    Lane 0 is the thread itself; what crosses a span of a lane lies in the next.
    """
    order = np.lexsort((-end, start, thread))
    lane = np.zeros(len(start), np.int64)
    left = order
    while len(left):
        left = left[crossing(start[left], end[left], thread[left])]
        lane[left] += 1
    return np.lexsort((-end, start, lane, thread)), lane
