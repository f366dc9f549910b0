"""An iteration replayed at another speed of the host or the device.

A recorder makes the host's code and calls longer and leaves kernels as they are, so a recorded iteration can be bound
by the host where none is in production. Here the recorded order of events runs again with the host's own time scaled,
by three rules. Work begins when the work that it waits for is done and the gap between the two is over, and not
before its launch has reached the device. A waiting call returns once what it waits for is done and the host has
noticed: everything submitted, unless the recording knows better. Whatever else the host does takes its time.

Scaled until submitting takes as long as a benchmark saw, the replay can be held against the benchmark's latency.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ceilings.traces import calls as kinds
from ceilings.traces.path import UNREQUESTED, Calls, Work

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An iteration as it was recorded; times in ns from its start.

    Attributes:
        work: What ran on the device, by its begin.
        stream: Of each operation.
        call: The call that submitted each operation, by its place in ``calls``; -1: it is none of them.
        calls: The thread's calls that launch, copy or wait; those of threads that take turns are one sequence.
        length: Of the iteration.
        after: What each operation waits for: operations that an earlier call or the same one submitted, or that were
            submitted before the iteration. None: the one before it.
        until: For each call the operations that it waits for; None: not known, so everything submitted.
        runs_on: The iteration also lasts until its work is done, whether the host waits for it or not.
        host_end: Until when the host works for the iteration; None: until its end.
    """

    work: Work
    stream: Integers
    call: Integers
    calls: Calls
    length: int
    after: Sequence[Sequence[int]] | None = None
    until: Sequence[Sequence[int] | None] | None = None
    runs_on: bool = False
    host_end: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it can be replayed: its own calls submitted all of its work, and to one stream.

        Streams wait for one another by events, which no capture holds: replayed, one would run ahead of what it needs.
        A recording of another program knows them, or takes any order that it saw for one that must be (``after``).
        """
        return bool((self.call >= 0).all()) and len(np.unique(self.stream)) <= 1


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What became of it: ``submitted`` is when the last wait began, so when everything was submitted."""

    work: Work
    calls: Calls
    length: int
    submitted: int


NOT_WAITING_NS = 2_000
"""What a call that could wait takes if it need not."""

_FOR_ALL, _FOR_ITS_COPY = 2, 1
"""What a call waits for, if it waits."""


class Replay:
    """An iteration's events, ready to run at any speed.

    Attributes:
        waits: Of each call whether it waits, and for what; 0: it does not.
        notice: Of each call the time that it takes beyond its wait.
    """

    def __init__(self, recorded: Recorded) -> None:
        work, calls = recorded.work, recorded.calls
        self._recorded = recorded
        self._after = recorded.after or [range(max(k - 1, 0), k) for k in range(len(work.begin))]
        first_of_all = np.array([not len(after) for after in self._after], bool)
        ahead_done = np.array([max((work.end[k] for k in after), default=0) for after in self._after], np.int64)
        gap, held_up = work.begin - ahead_done, work.requested > ahead_done
        early = recorded.call < 0  # submitted before the iteration
        gap[first_of_all & ~early] = 0  # nothing is ahead of the first
        first = np.zeros(len(work.begin), bool)
        first[np.unique(recorded.call, return_index=True)[1]] = True
        latency = np.where(first, work.begin - work.requested, 0)
        if recorded.runs_on:  # work that was delivered just before the device was free still waited for its launch
            held_up |= first & ~early & (work.requested > ahead_done - _typical(latency[held_up & first]))
        # Work that its launch held up does not show the device's own gap, and work that queued not its launch's
        # latency: these are as of the others, and no longer than what was seen leaves room for.
        self._gap = np.where(held_up, np.minimum(_typical(gap[~held_up]), gap), gap).tolist()
        usual = np.minimum(_typical(latency[held_up & first]), latency)
        self._latency = np.where(held_up, latency, usual).tolist()
        self._length = work.end - work.begin
        self._early = np.flatnonzero(early).tolist()
        self._submits: list[list[int]] = [[] for _ in range(len(calls.begin))]
        for number in np.flatnonzero(~early).tolist():
            self._submits[recorded.call[number]].append(number)
        copying = (calls.copied >= 0) & (calls.copied <= calls.end)
        waiting = (calls.kind == kinds.SYNC) & ~calls.asks
        self.waits = np.select([waiting, copying], [_FOR_ALL, _FOR_ITS_COPY], 0).tolist()
        self._until = recorded.until or [None] * len(calls.begin)
        self.notice = _noticing(work, calls, self._until).tolist()

    def run(self, host: float, device: float | Floats = 1.0, waits: bool = True) -> Replayed:
        """Replay with the host's own time and the operations' lengths multiplied.

        Args:
            device: The factor for all operations, or for each.
            waits: Without, no call waits but the last that did.
        """
        calls, requested = self._recorded.calls, self._recorded.work.requested.tolist()
        begin, end = [0.0] * len(requested), [0.0] * len(requested)
        begins, ends, copied = [0.0] * len(calls.begin), [0.0] * len(calls.begin), calls.copied.tolist()
        length: list[float] = (device * self._length).tolist()
        now = recorded = done = 0.0
        submitted: float | None = None
        last = max((c for c, what in enumerate(self.waits) if what), default=-1)

        for k in self._early:
            begin[k] = self._free(k, end)
            end[k] = begin[k] + length[k]
            done = max(done, end[k])
        for c, (start, stop) in enumerate(zip(calls.begin.tolist(), calls.end.tolist(), strict=True)):
            now += host * (start - recorded)
            begins[c], recorded = now, stop
            for k in self._submits[c]:
                requested[k] = now + host * (requested[k] - start)
                begin[k] = max(self._free(k, end), requested[k] + self._latency[k])
                end[k] = begin[k] + length[k]
                copied[c] = end[k] if copied[c] >= 0 else -1
                done = max(done, end[k])
            if self.waits[c] and (waits or c == last):
                for_all = self.waits[c] == _FOR_ALL
                submitted = now if for_all else submitted
                work = self._until[c]
                known = done if work is None else max((end[k] for k in work), default=now)
                until = known if for_all else copied[c]
                now = max(now + host * self.notice[c], until + self.notice[c])
            else:
                now += host * (min(stop - start, NOT_WAITING_NS) if self.waits[c] else stop - start)
            ends[c] = now
        if self._recorded.host_end is None:
            now += host * (self._recorded.length - recorded)
        else:
            now = host * self._recorded.host_end
        now = max(now, done) if self._recorded.runs_on else now
        order = np.argsort(begin, kind="stable")
        times = [_whole(values)[order] for values in (begin, end, requested)]
        replayed = Work(times[0], times[1], times[2], self._recorded.work.transfer[order])
        called = Calls(_whole(begins), _whole(ends), calls.kind, calls.asks, _whole(copied))
        return Replayed(replayed, called, round(now), round(now if submitted is None else submitted))

    def submitted_at_once(self, requested: float) -> float:
        """When all work is done if the host delivers all of it at one instant, but what it had delivered before."""
        end = [0.0] * len(self._length)
        early = set(self._early)
        for k, length in enumerate(self._length.tolist()):
            begin = self._free(k, end)
            end[k] = (begin if k in early else max(begin, requested + self._latency[k])) + length
        return max(end, default=0.0)

    def _free(self, k: int, end: Sequence[float]) -> float:
        """When the device could begin an operation: what it waits for is done, and the gap is over."""
        return max([end[ahead] for ahead in self._after[k]], default=0.0) + self._gap[k]


def _noticing(work: Work, calls: Calls, until: Sequence[Sequence[int] | None]) -> Floats:
    """How long each call that waits takes beyond its wait."""
    ends = np.append(np.sort(work.end), np.iinfo(np.int64).max)
    last = np.append(UNREQUESTED, ends)[np.searchsorted(ends, calls.end, "right")]
    last = np.array(
        [
            seen if known is None else max((work.end[k] for k in known), default=UNREQUESTED)
            for seen, known in zip(last.tolist(), until, strict=True)
        ],
        np.int64,
    )
    done = np.where(calls.copied >= 0, calls.copied, last)
    return calls.end - np.clip(done, calls.begin, calls.end)


def _whole(values: list[float]) -> Integers:
    return np.round(values).astype(np.int64)


def _typical(values: Integers) -> float:
    return float(np.median(values)) if len(values) else 0.0
