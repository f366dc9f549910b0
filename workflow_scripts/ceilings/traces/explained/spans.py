"""What a program says of itself on its threads: at each instant the innermost range, operator or function."""

from __future__ import annotations

import re

import numpy as np

from ceilings.traces.capture import Integers
from ceilings.traces.recording import LOADING, RANGE, Recording

DATA = re.compile(
    r"dataloader.*(next|iter)|enumerate\(DataLoader|DataLoader\.__next__|data_?load|pin_memory", re.IGNORECASE
)
"""Ranges of a loader of data that the program waits for, by name."""

NUMBER = re.compile(r"\d+")


class Spans:
    """The spans of a recording, by thread.

    Attributes:
        data: Names of ranges in which a program waits for its data.
        ranges: Names of ranges, which a program may number.
    """

    def __init__(self, recording: Recording) -> None:
        spans = recording.spans
        self._names = recording.names
        self._start, self._end, self._name, self._kind = spans.start, spans.end, spans.name, spans.kind
        order = np.lexsort((-spans.end, spans.start, spans.thread))
        edges = np.searchsorted(spans.thread[order], np.arange(len(recording.threads) + 1))
        self._of = [order[edges[k] : edges[k + 1]] for k in range(len(recording.threads))]
        self._latest = [np.maximum.accumulate(spans.end[of]) if len(of) else of for of in self._of]
        self._starts = [spans.start[of] for of in self._of]
        self._loading = set(np.unique(spans.thread[spans.kind == LOADING]).tolist())
        used = np.unique(spans.name).tolist()
        self.data = {name for name in used if name >= 0 and DATA.search(recording.names[name])}
        self.ranges = set(np.unique(spans.name[spans.kind == RANGE]).tolist())

    def label(self, name: int) -> str:
        """What a part is called: a range without its numbers (``request N``), so that all of them are one part."""
        words = self._names[name]
        return NUMBER.sub("N", words) if name in self.ranges else words

    def count(self, thread: int, start: int, end: int) -> int:
        """How many spans of a thread may overlap an interval."""
        return len(self.within(thread, start, end))

    def within(self, thread: int, start: int, end: int) -> Integers:
        """The spans of a thread that overlap an interval, by start."""
        if not 0 <= thread < len(self._of):
            return np.zeros(0, np.int64)
        first = int(np.searchsorted(self._latest[thread], start, "right"))
        last = int(np.searchsorted(self._starts[thread], end))
        mine = self._of[thread][first:last]
        return mine[self._end[mine] > start]

    def innermost(self, thread: int, start: int, end: int) -> tuple[Integers, Integers, Integers]:
        """Begin, end and name (-1: none) of each stretch of a thread's time; they tile the interval.

        What lies within a loader's range is all the loader's.
        """
        mine = self.within(thread, start, end)
        mine = mine[self._kind[mine] != LOADING]
        mine = mine[
            (self._start[mine] > start) | (self._end[mine] < end)
        ]  # what holds all of it tells nothing of its parts
        begins = np.clip(self._start[mine], start, end).tolist()
        ends = np.clip(self._end[mine], start, end).tolist()
        names = self._name[mine].tolist()
        rows = list[tuple[int, int, int]]()
        open_: list[tuple[int, int]] = []  # end and name
        now = start

        def until(instant: int) -> None:
            nonlocal now
            if instant > now:
                rows.append((now, instant, open_[-1][1] if open_ else -1))
                now = instant

        for begin, finish, name in zip(begins, ends, names, strict=True):
            while open_ and open_[-1][0] <= begin:
                until(open_[-1][0])
                open_.pop()
            until(begin)
            loads = bool(open_) and open_[-1][1] in self.data
            # A span that reaches over the one round it ends with it: the file's clock, or a cut at its begin.
            open_.append((min(finish, open_[-1][0]) if open_ else finish, open_[-1][1] if loads else name))
        while open_:
            until(open_[-1][0])
            open_.pop()
        until(end)
        return tuple(np.array(rows, np.int64).reshape(-1, 3).T)  # type: ignore[return-value]

    def loads(self, names: Integers) -> np.ndarray:
        """Whether each name is of a loader of data."""
        return np.isin(names, list(self.data))

    def profiler(self, thread: int, start: int, end: int) -> float:
        """Time that the profiler itself took of a thread."""
        if thread not in self._loading:
            return 0.0
        mine = self.within(thread, start, end)
        mine = mine[self._kind[mine] == LOADING]
        begin, finish = np.clip(self._start[mine], start, end), np.clip(self._end[mine], start, end)
        over = np.maximum.accumulate(np.concatenate([[start], finish]))[:-1] if len(mine) else begin
        return float(np.maximum(finish - np.maximum(begin, over), 0).sum())
