"""What each operation of a recording had to wait for: its stream, events of other streams, or what seems to be one."""

from __future__ import annotations

import dataclasses

import numpy as np

from ceilings.traces.capture import Integers, places
from ceilings.traces.recording import Recording

PENDING = 16
"""Waits of a stream that are kept in mind until it has work again."""


@dataclasses.dataclass(frozen=True)
class Dependencies:
    """Work before work, by places in the recording's operations.

    Attributes:
        known: Whether the recording says which stream waits for which. If not, an operation is taken to wait for the
            one of its device that ended last before it began.
        before: The operation before each in its stream; -1 for the first.
        waiting, awaited: An operation, and one of another stream that it waits for; by ``waiting``.
        host: Call that waits to the streams that it waits for, -1 for all; calls of which nobody knows are not in it.
    """

    known: bool
    before: Integers
    waiting: Integers
    awaited: Integers
    host: dict[int, list[int]]


def dependencies(recording: Recording) -> Dependencies:
    """All of them."""
    work, waits = recording.work, recording.waits
    order = np.lexsort((work.start, work.stream))
    before = np.full(len(order), -1, np.int64)
    same = work.stream[order[1:]] == work.stream[order[:-1]] if len(order) else np.zeros(0, bool)
    before[order[1:][same]] = order[:-1][same]
    edges = np.searchsorted(work.stream[order], np.arange(len(recording.streams) + 1))
    streams = [order[edges[k] : edges[k + 1]] for k in range(len(recording.streams))]
    # In a stream work runs as it was launched; what has no launch counts as launched with the work before it.
    called = [np.maximum.accumulate(work.call[ops]) if len(ops) else ops for ops in streams]

    waiting = np.full(len(waits.stream), -1, np.int64)
    awaited = np.full(len(waits.stream), -1, np.int64)
    for number, ops in enumerate(streams):
        mine = np.flatnonzero((waits.stream == number) & (waits.call >= 0))
        first = np.searchsorted(called[number], waits.call[mine], "right")
        there = first < len(ops)
        waiting[mine[there]] = ops[first[there]]
    for number, ops in enumerate(streams):
        mine = np.flatnonzero((waits.after_stream == number) & (waits.stream >= 0))
        # The event's call if it is there; else what ended last before the work that waited began.
        last = np.searchsorted(called[number], waits.after_call[mine], "left") - 1
        ends = np.maximum.accumulate(work.end[ops]) if len(ops) else ops
        begins = np.append(work.start, -1)[waiting[mine]]
        seen = np.searchsorted(ends, begins, "right") - 1
        last = np.where(waits.after_call[mine] >= 0, last, seen)
        awaited[mine[last >= 0]] = ops[last[last >= 0]]
    pairs = _passed_on(recording, waiting, awaited)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    host: dict[int, list[int]] = {}
    for number in np.flatnonzero((waits.stream < 0) & (waits.call >= 0)).tolist():
        host.setdefault(int(waits.call[number]), []).append(int(waits.after_stream[number]))
    return Dependencies(len(waits.stream) > 0, before, pairs[:, 0], pairs[:, 1], host)


def _passed_on(recording: Recording, waiting: Integers, awaited: Integers) -> Integers:
    """Rows of an operation and one that it waits for.

    An event that a stream records after it was made to wait, with no work between, hands on what the stream waits for.
    """
    waits, work = recording.waits, recording.work
    rows = list[tuple[int, int]]()
    pending: dict[int, list[tuple[int, set[int]]]] = {}
    columns = (waits.stream, waits.call, waits.after_stream, waits.after_call, waiting, awaited)
    order = np.argsort(waits.call, kind="stable")
    for stream, call, after, record, first, last in zip(*(column[order].tolist() for column in columns), strict=True):
        if stream < 0:
            continue
        since = int(work.call[last]) if last >= 0 else -1
        handed = [works for made, works in pending.get(after, ()) if since < made < record]
        works = {last}.union(*handed) - {-1}
        if first >= 0:
            rows += [(first, one) for one in works if one != first]
        mine = pending.setdefault(stream, [])
        mine.append((call, works))
        del mine[:-PENDING]
    return np.array(rows, np.int64).reshape(-1, 2)


def ended_before(begin: Integers, end: Integers, device: Integers) -> Integers:
    """For each operation the one of its device that ended last before it began; -1 for none."""
    last = np.full(len(begin), -1, np.int64)
    for number in np.unique(device):
        mine = np.flatnonzero(device == number)
        by_end = mine[np.argsort(end[mine], kind="stable")]
        at = np.searchsorted(end[by_end], begin[mine], "right") - 1
        found = np.where(at >= 0, by_end[np.maximum(at, 0)], -1)
        # An operation of no length may end when it begins: it does not wait for itself.
        last[mine] = np.where(found == mine, np.where(at > 0, by_end[np.maximum(at - 1, 0)], -1), found)
    return last


class Local:
    """The dependencies within an iteration, by places in its operations."""

    def __init__(self, recording: Recording, every: Dependencies, ops: Integers) -> None:
        work = recording.work
        self._end, self._call = work.end[ops], work.call[ops]
        self._before = places(ops, every.before[ops])
        if every.known:
            first, last = np.searchsorted(every.waiting, ops, "left"), np.searchsorted(every.waiting, ops, "right")
            waiting = np.repeat(np.arange(len(ops)), last - first)
            pairs = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True) if b > a] or [ops[:0]])
            awaited = places(ops, every.awaited[pairs])
        else:
            awaited = ended_before(work.start[ops], self._end, work.device[ops])
            waiting = np.flatnonzero(awaited != self._before)
            awaited = awaited[waiting]
        self._waiting, self._awaited = waiting[awaited >= 0], awaited[awaited >= 0]

    def last(self) -> Integers:
        """Of what each operation waits for, the one that ended last; -1 for none."""
        last = self._before.copy()
        end = np.append(self._end, np.iinfo(np.int64).min)
        for k, awaited in zip(self._waiting.tolist(), self._awaited.tolist(), strict=True):
            if end[awaited] > end[last[k]]:
                last[k] = awaited
        return last

    def launched(self) -> list[list[int]]:
        """Of what each waits for, what had been launched by its own launch: no event can wait for later work."""
        after: list[list[int]] = [[before] if before >= 0 else [] for before in self._before.tolist()]
        early = self._call[self._awaited] <= self._call[self._waiting]
        for k, awaited in zip(self._waiting[early].tolist(), self._awaited[early].tolist(), strict=True):
            after[k].append(awaited)
        return after
