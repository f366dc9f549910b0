"""What the rows of a trace have to do with each other: which calls lie within others, and which call launched what."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.recording import Integers


def outermost(start: Integers, end: Integers, thread: Integers) -> tuple[Integers, Integers]:
    """The calls that lie within no other of their thread.

    Args:
        start, end: Of each call.
        thread: Number of its thread, from 0.

    Returns:
        The outermost calls by start, as indices into the rows, and for each row the place of the one that it lies in
        among them.
    """
    if not len(start):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # A call without a length comes before one that starts with it: a clock in microseconds writes many of those.
    order = np.lexsort((-end, end > start, start, thread))
    outer = np.empty(len(start), bool)
    bounds = np.flatnonzero(np.diff(thread[order])) + 1
    for part in np.split(np.arange(len(order)), bounds):
        begin, last = start[order[part]], end[order[part]]
        before = np.maximum.accumulate(last)[:-1]
        outer[part[0]] = True
        outer[part[1:]] = (last[1:] > before) | (begin[1:] >= before)
    chosen = order[outer]
    by_start = np.argsort(start[chosen], kind="stable")
    rank = np.empty_like(by_start)
    rank[by_start] = np.arange(len(by_start))
    within = np.empty(len(start), np.int64)
    within[order] = rank[np.cumsum(outer) - 1]
    return chosen[by_start], within


def nested(
    start: Integers, end: Integers, thread: Integers, function: NDArray[np.bool_], rounding: int
) -> tuple[Integers, Integers]:
    """Spans as they are nested: the end of each, and the lane of its thread in which it lies.

    Spans of one lane lie within each other or apart. A function ends where a range or an operator begins that it makes,
    and where one ends that it closes: ranges begin and end in the middle of functions. What else reaches over the end
    of the span round it by no more than ``rounding`` ends with it; what reaches further lies in the next lane, as the
    ranges of several tasks of a thread do.

    Args:
        start, end, thread: Of each span, in ns; and a number of its thread.
        function: Whether it is a function rather than a range or an operator.
        rounding: In ns.
    """
    ends, lane = end.copy(), np.zeros(len(start), np.int64)
    left, number = np.lexsort((-end, start, thread)), 0
    while len(left):
        starts, finishes, threads, functions = (column[left].tolist() for column in (start, end, thread, function))
        ends[left], further = _one_lane(starts, finishes, threads, functions, rounding)
        lane[left] = number
        left, number = left[further], number + 1
        ends[left] = end[left]
    return ends, lane


def _one_lane(
    starts: list[int], ends: list[int], threads: list[int], functions: list[bool], rounding: int
) -> tuple[list[int], list[int]]:
    """Ends of spans that come by thread, start and length, and the places of those that cross others."""
    further: list[int] = []
    around: list[int] = []  # places of the spans that are open, the inner ones last
    marks: list[int] = []  # those of them that are no functions
    last = -1
    for place, begin in enumerate(starts):
        if threads[place] != last:
            around, marks, last = [], [], threads[place]
        while around and ends[around[-1]] <= begin:
            around.pop()
        while marks and ends[marks[-1]] <= begin:
            marks.pop()
        soft = functions[place]
        if soft and marks:
            ends[place] = min(ends[place], ends[marks[-1]])
        within = around if soft else marks
        if within and ends[place] > (bound := ends[within[-1]]):
            if ends[place] > bound + rounding:
                further.append(place)
                continue
            ends[place] = bound
        if not soft:
            while around and functions[around[-1]] and ends[around[-1]] < ends[place]:
                ends[around.pop()] = begin
            marks.append(place)
        around.append(place)
    return ends, further


class Links:
    """Calls by correlation.

    Args:
        correlation: Of each row of calls; what is below 1 stands for none.
        outer: The outermost call round each row.
        start: Begin of each outermost call.
        process: Process of each outermost call.

    Attributes:
        guessed: Operations whose call was chosen among several of one process.
        ambiguous: Operations whose call was chosen among those of several processes, without a proof.
    """

    def __init__(self, correlation: Integers, outer: Integers, start: Integers, process: Integers) -> None:
        said = correlation > 0
        pairs = np.unique(np.column_stack([correlation[said], start[outer[said]], outer[said]]), axis=0)
        self._correlation, self._start, self._outer = pairs.T if len(pairs) else np.empty((3, 0), np.int64)
        self._process = process[self._outer] if len(pairs) else self._outer
        self.guessed = self.ambiguous = 0

    def calls(self, correlation: Integers, start: Integers, place: Integers, home: Integers | None = None) -> Integers:
        """The call of each correlation, -1 where there is none.

        Several processes may use the same numbers: then the call is one of the process that the work belongs to, else
        of the only one whose call begins before the work, else of the one that most of a place's work comes from, as
        far as times say it. Of several it is the last that begins before the work does. Where as many calls as
        operations of a place have one number, they are taken in the order of time.

        Args:
            correlation, start: Of each operation.
            place: What belongs to one process as a whole, such as a device of the trace.
            home: The process of each operation; -1 where unknown.
        """
        if not len(self._correlation) or not len(correlation):
            return np.full(len(correlation), -1, np.int64)
        first = np.searchsorted(self._correlation, correlation)
        behind = np.searchsorted(self._correlation, correlation, "right")
        at = np.where(behind > first, first, -1)
        several = np.flatnonzero(behind - first > 1)
        votes: dict[int, dict[int, int]] = {}
        if len(several) and (home is None or (home[several] < 0).any()):
            single = np.flatnonzero(behind - first == 1)
            voters = np.concatenate([single, several])
            chosen = np.concatenate([first[single], [self._latest(first[i], behind[i], start[i]) for i in several]])
            pairs, counts = np.unique(
                np.column_stack([place[voters], self._process[chosen.astype(np.int64)]]), axis=0, return_counts=True
            )
            for (where, process), count in zip(pairs.tolist(), counts.tolist(), strict=True):
                votes.setdefault(where, {})[process] = count
        if not len(several):
            return np.where(at >= 0, self._outer[at], -1)
        certain = self._certain(first, behind, place)
        turns = self._turns(correlation, start, place)
        for i in several.tolist():
            candidates = np.arange(first[i], behind[i])
            process = -1 if home is None else int(home[i])
            if process < 0:
                fitting = candidates[self._start[candidates] <= start[i]]
                if len(fitting) == 1:
                    at[i] = fitting[0]
                    continue
                among = len(np.unique(self._process[candidates]))
                process = certain.get(int(place[i]), -1)
                self.ambiguous += among > 1 and process < 0
                self.guessed += among == 1
                if process < 0:
                    turn, of = turns.get(i, (0, 0))
                    if among > 1 and of == len(candidates):
                        at[i] = candidates[turn]
                        continue
                    counted = votes.get(int(place[i]), {})
                    process = max(counted, key=counted.__getitem__, default=-1)
            own = candidates[self._process[candidates] == process]
            candidates = own if len(own) else candidates
            earlier = candidates[self._start[candidates] <= start[i]]
            at[i] = earlier[-1] if len(earlier) else candidates[0]
        return np.where(at >= 0, self._outer[at], -1)

    def _certain(self, first: Integers, behind: Integers, place: Integers) -> dict[int, int]:
        """The process of each place of which all work with one possible call is."""
        single = behind - first == 1
        pairs = np.unique(np.column_stack([place[single], self._process[first[single]]]), axis=0)
        places, counts = np.unique(pairs[:, 0], return_counts=True)
        alone = set(places[counts == 1].tolist())
        return {where: process for where, process in pairs.tolist() if where in alone}

    @staticmethod
    def _turns(correlation: Integers, start: Integers, place: Integers) -> dict[int, tuple[int, int]]:
        """Of operations that share a number with others of their place: their turn, and how many they are."""
        order = np.lexsort((start, correlation, place))
        change = np.flatnonzero((np.diff(correlation[order]) != 0) | (np.diff(place[order]) != 0)) + 1
        begin = np.concatenate([[0], change])
        length = np.diff(np.append(begin, len(order)))
        turn, of = np.arange(len(order)) - np.repeat(begin, length), np.repeat(length, length)
        shared = of > 1
        return dict(
            zip(order[shared].tolist(), zip(turn[shared].tolist(), of[shared].tolist(), strict=True), strict=True)
        )

    def _latest(self, first: int, behind: int, start: int) -> int:
        """The last call before a time, of some with one correlation, which are in the order of their begins."""
        return max(first, first + int(np.searchsorted(self._start[first:behind], start, "right")) - 1)


def containing(start: Integers, end: Integers, thread: Integers, where: Integers, when: Integers) -> Integers:
    """The call round each time on a thread, -1 where there is none; calls of one thread do not overlap."""
    found = np.full(len(when), -1, np.int64)
    for one in np.unique(where):
        own: NDArray[np.int64] = np.flatnonzero(thread == one)
        if not len(own):
            continue
        asked = np.flatnonzero(where == one)
        at = np.searchsorted(start[own], when[asked], "right") - 1
        inside = (at >= 0) & (end[own[at]] >= when[asked])
        found[asked[inside]] = own[at[inside]]
    return found
