"""The account of one iteration: each instant of the host thread and of the device belongs to exactly one part.

docs/budget.md defines the parts; the comments here say only why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.taxonomy import IDLE_CAUSES, KERNEL_CLASSES
from ceilings.traces import calls as kinds
from ceilings.traces.capture import DEVICE_TO_HOST, GRAPH, HOST_TO_DEVICE, KERNEL, Capture, Integers
from ceilings.traces.covered import Covered
from ceilings.traces.kernel_classes import kernel_class
from ceilings.traces.path import UNREQUESTED, Calls, Work, critical_path
from ceilings.traces.replay import Recorded

COPY, UNKNOWN = KERNEL_CLASSES.index("copy"), KERNEL_CLASSES.index("unknown")
HOST, LAUNCHING, QUEUED, SYNC = range(len(IDLE_CAUSES))

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One iteration, in ns. ``host`` and ``classes`` with ``idle`` each sum to ``length``, less ``unexplained``.

    Attributes:
        host: By HOST_PARTS.
        other_calls: Of the framework's part, CUDA calls that neither launch, copy nor wait.
        classes: Busy time by KERNEL_CLASSES.
        idle: By IDLE_CAUSES.
        unexplained: Idle before work that no recorded call launched.
        shares: The critical path by ``PATH_SHARES``; they sum to ``length``.
        launches: Calls that launch.
        graphs: Of these, graph launches.
        kernels: Kernels that ran.
        kernel_ns: Sum of their lengths, overlaps counted twice.
        launch_to_start: For each launch, from its call's begin to its first operation's.
        submit: From the begin of the first launch to the end of the last; 0 without one.
    """

    length: int
    host: Floats
    other_calls: float
    classes: Floats
    idle: Floats
    unexplained: float
    shares: Floats
    launches: int
    graphs: int
    kernels: int
    kernel_ns: int
    launch_to_start: Integers
    submit: int


class Account:
    """Accounts for the iterations of a sound capture.

    :meth:`iteration` does it for one thread and one device. Its parts also serve recordings of several threads and
    devices (``ceilings.traces.explained.account``): :meth:`busy` and :meth:`idle` for the operations of each device,
    :meth:`host` for each thread.
    """

    def __init__(self, capture: Capture) -> None:
        calls, operations = capture.calls, capture.operations
        self.capture = capture
        self.call_kind = _of_names(capture.names, calls.name, kinds.kind, kinds.OTHER)
        self.call_graph = _of_names(capture.names, calls.name, kinds.launches_graph, False)
        self.call_asks = _of_names(capture.names, calls.name, lambda name: "Query" in name, False)
        classes = _of_names(
            capture.names, operations.name, lambda name: KERNEL_CLASSES.index(kernel_class(name)), UNKNOWN
        )
        self.op_class = np.where(operations.kind == KERNEL, classes, COPY)
        self.op_class[operations.kind == GRAPH] = UNKNOWN
        self.op_transfer = np.isin(operations.copy_kind, (HOST_TO_DEVICE, DEVICE_TO_HOST))

        known = operations.call >= 0
        infinite = np.iinfo(np.int64).max
        first_start = np.full(len(calls.start), infinite)
        np.minimum.at(first_start, operations.call[known], operations.start[known])
        last_end = np.full(len(calls.start), -1)
        np.maximum.at(last_end, operations.call[known], operations.end[known])
        self.first_start, self.last_end = first_start, last_end
        # A launch has delivered once its first operation runs, also where the call has not returned yet.
        self._delivered = np.maximum(np.minimum(calls.end, first_start), calls.start)
        # Ends are in no order where operations overlap; their running maximum is.
        self._latest_end = np.maximum.accumulate(operations.end) if len(operations.end) else operations.end
        self.latest_return = np.maximum.accumulate(calls.end) if len(calls.end) else calls.end

    def iterations(self) -> list[Iteration]:
        """Every marked iteration."""
        marks = self.capture.marks
        return [
            self.iteration(int(start), int(end), int(thread))
            for start, end, thread in zip(marks.start, marks.end, marks.thread, strict=True)
        ]

    def iteration(self, start: int, end: int, thread: int) -> Iteration:
        """The account of what lies between two instants of a thread."""
        calls, operations = self.capture.calls, self.capture.operations
        ops = self.operations_of(start, end)
        called = self.calls_of(start, end, thread)
        busy = self.busy(ops, start, end)
        host, other_calls, waiting = self.host(called, start, end, busy)

        classes = np.bincount(self.op_class[ops], busy.exclusive, len(KERNEL_CLASSES)).astype(np.float64)
        idle, unexplained = self.idle(ops, busy, {}, waiting)

        launched = called[self.call_kind[called] == kinds.LAUNCH]
        delivered = launched[self.last_end[launched] >= 0]
        kernels = (operations.kind[ops] == KERNEL) & (operations.start[ops] >= start)
        return Iteration(
            length=end - start,
            host=host,
            other_calls=other_calls,
            classes=classes,
            idle=idle,
            unexplained=unexplained,
            shares=critical_path(self.work(ops), self.path_calls(called, start, end), start, end),
            launches=len(launched),
            graphs=int(self.call_graph[launched].sum()),
            kernels=int(kernels.sum()),
            kernel_ns=int((operations.end[ops] - operations.start[ops])[kernels].sum()),
            launch_to_start=self.first_start[delivered] - calls.start[delivered],
            submit=int(calls.end[launched[-1]] - calls.start[launched[0]]) if len(launched) else 0,
        )

    def busy(self, ops: slice | Integers, start: int, end: int) -> Busy:
        """When the device of these operations is busy."""
        operations = self.capture.operations
        return Busy(np.clip(operations.start[ops], start, end), np.clip(operations.end[ops], start, end), start, end)

    def operations_of(self, start: int, end: int) -> slice:
        """The operations that may overlap the iteration: all that do, and some that are over."""
        first = int(np.searchsorted(self._latest_end, start, "right"))
        return slice(first, int(np.searchsorted(self.capture.operations.start, end)))

    def calls_of(self, start: int, end: int, thread: int) -> Integers:
        """The calls of a thread that overlap the iteration."""
        calls = self.capture.calls
        first = int(np.searchsorted(self.latest_return, start, "right"))
        candidates = np.arange(first, int(np.searchsorted(calls.start, end)))
        return candidates[(calls.thread[candidates] == thread) & (calls.end[candidates] > start)]

    def recorded(self, start: int, end: int, thread: int) -> Recorded:
        """What lies between two instants of a thread, to be replayed."""
        called = self.calls_of(start, end, thread)
        called = called[self.call_kind[called] != kinds.OTHER]
        ops = self.operations_of(start, end)
        inside = self.capture.operations.end[ops] > start
        work, calls = self.work(ops), self.path_calls(called, start, end)
        place = np.full(len(self.call_kind) + 1, -1)
        place[called] = np.arange(len(called))
        return Recorded(
            work=Work(
                begin=work.begin[inside] - start,
                end=work.end[inside] - start,
                requested=np.maximum(work.requested[inside], start) - start,
                transfer=work.transfer[inside],
            ),
            stream=self.capture.operations.stream[ops][inside],
            call=place[self.capture.operations.call[ops][inside]],
            calls=Calls(
                begin=calls.begin - start,
                end=calls.end - start,
                kind=calls.kind,
                asks=calls.asks,
                copied=np.where(calls.copied >= 0, calls.copied - start, -1),
            ),
            length=end - start,
            node=self.capture.operations.node[ops][inside],
        )

    def work(self, ops: slice | Integers) -> Work:
        """What the critical path must know of operations."""
        operations, call = self.capture.operations, self.capture.operations.call[ops]
        requested = np.full(len(call), UNREQUESTED)
        known = call >= 0
        copies = self.call_kind[call[known]] == kinds.COPY
        requested[known] = np.where(copies, self.capture.calls.start[call[known]], self._delivered[call[known]])
        # The device's clock may be off by some us, so that work seems to begin before its call.
        requested = np.minimum(requested, operations.start[ops])
        return Work(operations.start[ops], operations.end[ops], requested, self.op_transfer[ops])

    def path_calls(self, called: Integers, start: int, end: int) -> Calls:
        """What the critical path must know of the thread's calls."""
        calls, kind = self.capture.calls, self.call_kind[called]
        copied = np.where(kind == kinds.COPY, self.last_end[called], -1)
        begin, finish = np.clip(calls.start[called], start, end), np.clip(calls.end[called], start, end)
        return Calls(begin, finish, kind, self.call_asks[called], copied)

    def host(self, called: Integers, start: int, end: int, busy: Busy) -> tuple[Floats, float, Covered]:
        """Host parts, the other calls' time, and when the thread waits."""
        calls = self.capture.calls
        begin, finish = np.clip(calls.start[called], start, end), np.clip(calls.end[called], start, end)
        kind = self.call_kind[called]
        inside = np.bincount(kind, finish - begin, len(kinds.KINDS))

        # A copy call that returns after its copy is done has waited: for the device while that did earlier work, ...
        blocking = (kind == kinds.COPY) & (self.last_end[called] >= 0) & (self.last_end[called] <= calls.end[called])
        copied_from = np.clip(self.first_start[called], begin, finish)[blocking]
        waited = float(busy.covered(begin[blocking], copied_from).sum())
        inside[kinds.COPY] -= waited
        inside[kinds.SYNC] += waited
        # ... and to notice, once the copy was done.
        noticing = np.clip(self.last_end[called], begin, finish)[blocking]

        # HOST_PARTS: the framework, then the kinds of calls in their order, without the other ones.
        host = np.append((end - start) - inside[: kinds.OTHER].sum(), inside[: kinds.OTHER])
        waits = kind == kinds.SYNC
        waiting = Covered(np.concatenate([begin[waits], noticing]), np.concatenate([finish[waits], finish[blocking]]))
        return host, float(inside[kinds.OTHER]), waiting

    def idle(
        self, ops: slice | Integers, busy: Busy, waiting: Mapping[int, Covered], otherwise: Covered
    ) -> tuple[Floats, float]:
        """Idle time by cause, and what of it is unexplained.

        Args:
            waiting: When each thread waits: a gap is the launching thread's.
            otherwise: When the thread of the iteration waits, and each that is not in ``waiting``.
        """
        calls, operations = self.capture.calls, self.capture.operations
        begin, finish = busy.gaps
        call = np.append(operations.call[ops][busy.first_after_gap], -1)
        tail = np.arange(len(begin)) == len(begin) - 1
        known = call >= 0
        call_begin = np.where(known, calls.start[call] if len(calls.start) else 0, finish)
        delivered = np.where(known, self._delivered[call] if len(calls.start) else 0, finish)
        launch_from = np.clip(call_begin, begin, finish)
        queue_from = np.clip(delivered, launch_from, finish)

        synced = otherwise.within(begin, launch_from)
        thread = np.where(known, calls.thread[call] if len(calls.start) else -1, -1)
        for number, waits in waiting.items():
            synced[thread == number] = waits.within(begin[thread == number], launch_from[thread == number])
        unlaunched = (launch_from - begin) - synced
        launching, queued = queue_from - launch_from, finish - queue_from
        lost = ~known & ~tail
        unexplained = float((finish - begin)[lost].sum())
        for part in (synced, unlaunched, launching, queued):
            part[lost] = 0

        idle = np.zeros(len(IDLE_CAUSES))
        idle[[HOST, LAUNCHING, QUEUED, SYNC]] = unlaunched.sum(), launching.sum(), queued.sum(), synced.sum()
        return idle, unexplained


def _of_names(names: Sequence[str], used: Integers, of: Callable[[str], Any], default: Any) -> NDArray[Any]:
    """What holds of each name that is used (an index; -1: the default)."""
    values = np.full(len(names) + 1, default)
    for number in np.unique(used):
        if number >= 0:
            values[number] = of(names[number])
    return values[used]


class Busy:
    """When the device is busy in an iteration.

    Attributes:
        exclusive: For each operation the time that counts as its own: what no operation that began before covers.
        gaps: Begin and end of each idle stretch: one before each stretch of work, and one after the last.
        first_after_gap: The operation that ends each idle stretch but the last.
    """

    def __init__(self, begin: Integers, finish: Integers, start: int, end: int) -> None:
        before = np.concatenate([[start], np.maximum.accumulate(finish)])[: len(finish)]
        self.exclusive = np.maximum(finish - np.maximum(begin, before), 0).astype(np.float64)
        self.first_after_gap = np.flatnonzero((begin > before) | (np.arange(len(begin)) == 0))
        stretch_begin = begin[self.first_after_gap]
        stretch_end = np.append(before[self.first_after_gap[1:]], finish.max(initial=start))[: len(stretch_begin)]
        self.gaps = np.concatenate([[start], stretch_end]), np.concatenate([stretch_begin, [end]])
        self._set = Covered(stretch_begin, stretch_end)

    def covered(self, begin: Integers, finish: Integers) -> Floats:
        """Busy time within each [begin, finish]."""
        return self._set.within(begin, finish)
