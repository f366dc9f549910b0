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
        fixed: Of each call the ns that no speed of the host changes: it moves memory. None: there are none.
        node: Of each operation whether a CUDA graph submitted it. None: not known.
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
    fixed: Integers | None = None
    node: NDArray[np.bool_] | None = None

    @property
    def whole(self) -> bool:
        """Whether it can be replayed: its own calls submitted all of its work, and to one stream.

        Streams wait for one another by events, which no capture holds: replayed, one would run ahead of what it needs.
        A recording of another program knows them, or takes any order that it saw for one that must be (``after``).
        """
        return bool((self.call >= 0).all()) and len(np.unique(self.stream)) <= 1


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What became of it: ``submitted`` is when the last wait began, so when everything was submitted.

    ``order``: of each operation of ``work``, its place in the recorded ones.
    """

    work: Work
    calls: Calls
    length: int
    submitted: int
    order: Integers


@dataclasses.dataclass(frozen=True)
class Graphs:
    """The length with graphs in ns, and how many graphs there are: work between two waits is in one."""

    length: float
    count: int


NODE_GAP_NS = 300
"""At most so much lies between two operations of a CUDA graph that nobody records. On an H100 it is 0.26 us between
kernels, 0.4 to 0.6 us where fills are among them; a recorder of single nodes makes it some 0.6 us. Between queued
launches to a stream it is 1.1 to 1.4 us."""

NOT_WAITING_NS = 2_000
"""What a call that could wait takes if it need not."""

_FOR_ALL, _FOR_ITS_COPY = 2, 1
"""What a call waits for, if it waits."""


class Replay:
    """An iteration's events, ready to run at any speed.

    Attributes:
        waits: Of each call whether it waits, and for what; 0: it does not.
        notice: Of each call the time that it takes beyond its wait.
        has_nodes: Whether operations of a CUDA graph follow one another in it.
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
        self._space = gap.tolist()
        nodes = np.zeros(len(gap), bool) if recorded.node is None else recorded.node & ~first & ~early
        self.has_nodes = bool(nodes.any())
        self._closer = np.where(nodes, np.minimum(self._gap, NODE_GAP_NS), self._gap).tolist()
        self._length = work.end - work.begin
        self._early = np.flatnonzero(early).tolist()
        self._submits: list[list[int]] = [[] for _ in range(len(calls.begin))]
        for number in np.flatnonzero(~early).tolist():
            self._submits[recorded.call[number]].append(number)
        copying = (calls.copied >= 0) & (calls.copied <= calls.end)
        waiting = (calls.kind == kinds.SYNC) & ~calls.asks
        self.waits = np.select([waiting, copying], [_FOR_ALL, _FOR_ITS_COPY], 0).tolist()
        self._fixed = [0] * len(calls.begin) if recorded.fixed is None else recorded.fixed.tolist()
        self._until = recorded.until or [None] * len(calls.begin)
        self.notice = _noticing(work, calls, self._until).tolist()

    def run(
        self,
        host: float,
        device: float | Floats = 1.0,
        waits: bool = True,
        without: Sequence[bool] | None = None,
        *,
        closer: bool = False,
    ) -> Replayed:
        """Replay with the host's own time and the operations' lengths multiplied.

        Args:
            device: The factor for all operations, or for each.
            waits: Without, no call waits but the last that did.
            without: Of each call whether it is not made: it takes no time and waits for nothing.
            closer: Whether the nodes of a CUDA graph lie as close together as where nobody records them.
        """
        gaps = self._closer if closer else self._gap
        calls, requested = self._recorded.calls, self._recorded.work.requested.tolist()
        begin, end = [0.0] * len(requested), [0.0] * len(requested)
        begins, ends, copied = [0.0] * len(calls.begin), [0.0] * len(calls.begin), calls.copied.tolist()
        length: list[float] = (device * self._length).tolist()
        now = recorded = done = 0.0
        submitted: float | None = None
        last = max((c for c, what in enumerate(self.waits) if what), default=-1)

        for k in self._early:
            begin[k] = self._free(k, end, gaps)
            end[k] = begin[k] + length[k]
            done = max(done, end[k])
        for c, (start, stop) in enumerate(zip(calls.begin.tolist(), calls.end.tolist(), strict=True)):
            now += host * (start - recorded)
            begins[c], recorded = now, stop
            for k in self._submits[c]:
                requested[k] = now + host * (requested[k] - start)
                begin[k] = max(self._free(k, end, gaps), requested[k] + self._latency[k])
                end[k] = begin[k] + length[k]
                copied[c] = end[k] if copied[c] >= 0 else -1
                done = max(done, end[k])
            if without is not None and without[c]:
                pass
            elif self.waits[c] and (waits or c == last):
                for_all = self.waits[c] == _FOR_ALL
                submitted = now if for_all else submitted
                work = self._until[c]
                known = done if work is None else max((end[k] for k in work), default=now)
                until = known if for_all else copied[c]
                now = max(now + host * self.notice[c], until + self.notice[c])
            else:
                takes = min(stop - start, NOT_WAITING_NS) if self.waits[c] else stop - start
                fixed = min(self._fixed[c], takes)
                now += host * (takes - fixed) + fixed
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
        return Replayed(replayed, called, round(now), round(now if submitted is None else submitted), order)

    def as_graphs(self, launch: float, gap: float) -> Graphs:
        """What it would take if one CUDA graph submitted what the host submits between each two waits.

        The host comes to the first launch after a wait as it was recorded, launches once, and goes to the next wait.
        A stretch with one launch keeps it: it needs no graph. What the host does once all is submitted, or after the
        last wait, stays.

        Args:
            launch: What the launch of a graph takes the host, in ns.
            gap: Time between two operations of a graph, in ns; where less was seen, less.
        """
        recorded, calls = self._recorded, self._recorded.calls
        end = [0.0] * len(self._length)
        now = done = 0.0
        before = graphs = 0  # when the host went on, as recorded
        for k in self._early:
            end[k] = self._free(k, end, self._gap) + float(self._length[k])
            done = max(done, end[k])
        submitting = [c for c, work in enumerate(self._submits) if work]
        last = submitting[-1] if submitting else -1
        first_of = {c: n for n, c in enumerate(submitting)}
        waits = [c for c, what in enumerate(self.waits) if what]
        notice = min((self.notice[c] for c in waits), default=0.0)
        n = 0
        for edge in [*waits, None]:
            beyond = len(submitting)
            if edge is not None:
                beyond = first_of[edge] + 1 if edge in first_of else int(np.searchsorted(submitting, edge))
            stretch = submitting[n:beyond]
            n = max(n, beyond)
            alone = len(stretch) == 1
            if stretch:
                begin, stop = int(calls.begin[stretch[0]]), int(calls.end[stretch[-1]])
                now += max(begin - before, 0)
                takes = float(stop - begin) if alone and not self.waits[stretch[0]] else launch
                graphs += not alone
                for c in stretch:
                    for k in self._submits[c]:
                        spaced = self._gap[k] if alone else min(self._space[k], gap)
                        free = max([end[ahead] for ahead in self._after[k]], default=0.0) + spaced
                        end[k] = max(free, now + takes + self._latency[k]) + float(self._length[k])
                        done = max(done, end[k])
                now, before = now + takes, stop
            if edge is None:
                break
            if not stretch or (alone and stretch[0] != edge):
                now += max(int(calls.begin[edge]) - before, 0)
            known = self._until[edge] if self.waits[edge] == _FOR_ALL else self._submits[edge]
            until = done if known is None else max((end[k] for k in known), default=now)
            # It notices as fast as the fastest: a longer one may have waited for what nobody recorded.
            now, before = max(now, until) + notice, int(calls.end[edge])
        if recorded.host_end is None:
            now += recorded.length - before
        elif not submitting or not waits or waits[-1] < last:
            now = max(now, float(recorded.host_end))
        return Graphs(max(now, done) if recorded.runs_on else now, graphs)

    def _free(self, k: int, end: Sequence[float], gaps: Sequence[float]) -> float:
        """When the device could begin an operation: what it waits for is done, and the gap is over."""
        return max([end[ahead] for ahead in self._after[k]], default=0.0) + gaps[k]


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
