"""The account of one iteration of a recording: every thread, every device, the path, and what does not fit, by size.

The parts are those of :mod:`ceilings.traces.budget`, and computed by it; docs/budget.md defines them.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ceilings.taxonomy import COMMUNICATION, KERNEL_CLASSES
from ceilings.traces import calls as kinds
from ceilings.traces.budget import Account, Floats
from ceilings.traces.capture import GRAPH, KERNEL, MEMCPY, MEMSET, Capture, Integers, Marks, Ranges
from ceilings.traces.covered import Covered, union
from ceilings.traces.explained.chain import Lines, Segments, lines, on_device, segments
from ceilings.traces.explained.dependencies import Local, dependencies
from ceilings.traces.explained.spans import Spans
from ceilings.traces.explained.submissions import process_of_work
from ceilings.traces.path import HOST, Calls, Work
from ceilings.traces.recording import Recording
from ceilings.traces.replay import Recorded

COMMUNICATES = KERNEL_CLASSES.index(COMMUNICATION)
ALLOCATES = re.compile(r"(Malloc|Free)(?!Async)|HostRegister|HostUnregister|MemAddressReserve|MemCreate|MemMap")
SETS_UP = re.compile(
    r"(Runtime|Driver)GetVersion|Get(Device)?(Properties|Count)|cuInit|(Module|Library)(Load|Get)|(Ctx|Context)Create"
    r"|PrimaryCtx|StreamCreate|GetSymbolAddress|ProcAddress|(cublas|cudnn|cusparse|cusolver)Create"
)
"""Calls by which libraries set themselves up, and load code for a device or a thread that has none yet."""

AHEAD, BUSY = 0.05, 0.9
"""A host runs ahead if work queues for this part of an iteration, and the device is busy for that part of it."""

BLOCKING_NS = 10_000
"""An asynchronous copy call that takes longer has waited: for pageable memory, it does."""

MOST_REPLAYED = 300_000
"""Operations of an iteration that is replayed: more take too long."""

OTHER_PROCESSES = "work of other processes on the device"
BEFORE = "work launched before the iteration"
AFTER = "work that outlives the iteration"
UNLAUNCHED = "work without a launch"
PROFILER = "profiler overhead"
DATA = "data loading"
ALLOCATION = "allocating and freeing calls"
OTHER_LINES = "work of threads that launch at the same time"
FRAMEWORK = "framework: "


Innermost = tuple[Integers, Integers, Integers]
"""Begin, end and name of stretches of a thread's time."""


@dataclasses.dataclass(frozen=True)
class HostSide:
    """A thread in an iteration: time by HOST_PARTS, which sums to the iteration; launches."""

    parts: Floats
    launches: int


@dataclasses.dataclass(frozen=True)
class DeviceSide:
    """A device in an iteration. ``classes`` and ``idle`` sum to the iteration, less ``unexplained``.

    Attributes:
        overlap: At least two operations run.
        hidden_transfer: Copies between host and device run beside a kernel.
        hidden_communication: Communication runs beside another kernel.
    """

    classes: Floats
    idle: Floats
    unexplained: float
    overlap: float
    hidden_transfer: float
    hidden_communication: float


@dataclasses.dataclass(frozen=True)
class Accounted:
    """An iteration; times in ns.

    Attributes:
        hosts: Thread to its side.
        devices: Device to its side.
        path: The critical path.
        parts: What the sides do not show, and framework time by operator; name to size.
        counts: Launches, graphs, kernels, ...
        ops, called: The process's operations and calls that the iteration holds, as numbers of the recording.
        followed: The operations that the path and the replay know.
        host_names: Rows of the host's code on the path: begin, end, thread, and name of the innermost span or -1.
    """

    begin: int
    end: int
    thread: int
    hosts: dict[int, HostSide]
    devices: dict[int, DeviceSide]
    path: Segments
    host_names: Integers
    parts: dict[str, float]
    counts: dict[str, float]
    ops: Integers
    called: Integers
    followed: Integers
    lines: Lines
    to_replay: Callable[[], tuple[Recorded | None, str | None]]

    @functools.cached_property
    def _replay(self) -> tuple[Recorded | None, str | None]:
        return self.to_replay()

    @property
    def recorded(self) -> Recorded | None:
        """What can be replayed; None where nothing can."""
        return self._replay[0]

    @property
    def why_not(self) -> str | None:
        """Why it cannot be replayed."""
        return self._replay[1]

    @property
    def length(self) -> int:
        """From begin to end."""
        return self.end - self.begin


class Accounts:
    """Accounts for iterations of a recording.

    Args:
        recording: It.
        alone: Whether an iteration's thread alone works for it: other iterations overlap it in time.
    """

    def __init__(self, recording: Recording, alone: bool = False) -> None:
        none = np.zeros(0, np.int64)
        marks, ranges = Marks(none, none, none), Ranges(none, none, none, np.zeros(0, object))
        self.recording = recording
        self.alone = alone
        self.account = Account(Capture(recording.calls, recording.work, marks, ranges, recording.names, {}))
        self.local = on_device(self.account)
        self.spans = Spans(recording)
        self.dependencies = dependencies(recording)
        self.process_of_thread = np.array([thread.process for thread in recording.threads] + [-1], np.int64)
        self.process_of_work = process_of_work(recording)
        self.process_of_call = self.process_of_thread[recording.calls.thread]
        names = recording.names
        self.allocates = np.array(
            [call >= 0 and bool(ALLOCATES.search(names[call])) for call in range(-1, len(names))], bool
        )[recording.calls.name + 1]
        self.sets_up = np.array(
            [call >= 0 and bool(SETS_UP.search(names[call])) for call in range(-1, len(names))], bool
        )[recording.calls.name + 1]

    def size(self, begin: int, end: int) -> int:
        """How much an account has to look at: operations and calls."""
        calls, ops = self.recording.calls, self.account.operations_of(begin, end)
        return ops.stop - ops.start + int(np.searchsorted(calls.start, end) - np.searchsorted(calls.start, begin))

    def of(self, begin: int, end: int, thread: int) -> Accounted:
        """The account of what lies between two instants, for the thread that waits (-1: nobody knows which)."""
        account, work, calls = self.account, self.recording.work, self.recording.calls
        every = np.arange(*self._range(begin, end))
        every = every[work.end[every] > begin]
        process = self._process(every, thread)
        mine = (self.process_of_work[every] == process) | (self.process_of_work[every] < 0)
        ops, strange = every[mine], every[~mine]
        called = self._calls(begin, end, process)
        launched = ops[work.call[ops] >= 0]
        workers, counts = np.unique(calls.thread[work.call[launched]], return_counts=True)
        busiest = workers[np.argsort(-counts, kind="stable")].tolist()
        known = thread >= 0
        main = thread if known else self._waiting(called, busiest)
        host = lines(account, called, main, busiest, span=(begin, end))
        parts = self._parts(ops, strange, called, begin, end)
        if self.alone and known:
            line = np.array([host.of_thread[number] for number in calls.thread[work.call[launched]].tolist()], np.int64)
            others = launched[line > 0]
            parts[OTHER_LINES] = _length(work.start[others], work.end[others], begin, end)
            followed = np.setdiff1d(ops, others, assume_unique=True)
        else:
            followed = ops

        hosts, waiting, busy_all = {}, {}, account.busy(ops, begin, end)
        threads = sorted({main, *workers.tolist(), *self._waiters(called)} - {-1})
        for number in threads:
            own = called[calls.thread[called] == number]
            sides, _, waiting[number] = account.host(own, begin, end, busy_all)
            launches = int((account.call_kind[own] == kinds.LAUNCH).sum())
            hosts[number] = HostSide(sides, launches)
        otherwise = waiting.get(main, Covered(begin + np.zeros(0, np.int64), begin + np.zeros(0, np.int64)))
        devices = {
            int(device): self._device(ops[work.device[ops] == device], begin, end, waiting, otherwise)
            for device in np.unique(work.device[ops])
        }

        local = Local(self.recording, self.dependencies, followed)
        traced = self._work(followed, host, local)
        nobody = not len(called)
        by_work = nobody or self._ends_with_work(followed, end) or self._runs_ahead(followed, devices, begin, end)
        path = segments(account, followed, traced, host, span=(begin, end), waited_for=not by_work, local=self.local)
        says = {number: self.spans.innermost(number, begin, end) for number in threads}
        names = self._host_names(path, host, main, says)
        parts |= self._framework(says, called, begin, end)
        return Accounted(
            begin=begin,
            end=end,
            thread=main,
            hosts=hosts,
            devices=devices,
            path=path,
            host_names=names,
            parts=parts,
            counts=self._counts(ops, called, begin),
            ops=ops,
            called=called,
            followed=followed,
            lines=host,
            to_replay=lambda: self._recorded(followed, host, local, by_work, span=(begin, end)),
        )

    def _range(self, begin: int, end: int) -> tuple[int, int]:
        ops = self.account.operations_of(begin, end)
        return ops.start, ops.stop

    def _process(self, every: Integers, thread: int) -> int:
        """The process of the iteration: the thread's, else that with most operations."""
        if thread >= 0:
            return int(self.process_of_thread[thread])
        known = self.process_of_work[every]
        known = known[known >= 0]
        return int(np.bincount(known).argmax()) if len(known) else 0

    def _calls(self, begin: int, end: int, process: int) -> Integers:
        calls = self.recording.calls
        first = int(np.searchsorted(self.account.latest_return, begin, "right"))
        candidates = np.arange(first, int(np.searchsorted(calls.start, end)))
        return candidates[(self.process_of_call[candidates] == process) & (calls.end[candidates] > begin)]

    def _waiting(self, called: Integers, busiest: list[int]) -> int:
        """The thread that waits longest, else the one that launches most; -1 without calls."""
        waiters = called[self.account.call_kind[called] == kinds.SYNC]
        if len(waiters):
            calls = self.recording.calls
            return int(np.bincount(calls.thread[waiters], calls.end[waiters] - calls.start[waiters]).argmax())
        return busiest[0] if busiest else -1

    def _waiters(self, called: Integers) -> list[int]:
        """Threads that matter beside those that launched what runs: they launch, or wait."""
        kind = self.account.call_kind[called]
        matters = called[(kind == kinds.LAUNCH) | ((kind == kinds.SYNC) & ~self.account.call_asks[called])]
        return [int(number) for number in np.unique(self.recording.calls.thread[matters])]

    def _device(
        self, ops: Integers, begin: int, end: int, waiting: dict[int, Covered], otherwise: Covered
    ) -> DeviceSide:
        account, work = self.account, self.recording.work
        busy = account.busy(ops, begin, end)
        classes = np.bincount(account.op_class[ops], busy.exclusive, len(KERNEL_CLASSES)).astype(np.float64)
        idle, unexplained = account.idle(ops, busy, waiting, otherwise)
        first, last = np.clip(work.start[ops], begin, end), np.clip(work.end[ops], begin, end)
        kernels = (work.kind[ops] == KERNEL) | (work.kind[ops] == GRAPH)
        communicates = account.op_class[ops] == COMMUNICATES
        computes, transfers = kernels & ~communicates, account.op_transfer[ops]
        return DeviceSide(
            classes,
            idle,
            unexplained,
            overlap=_twice(first, last),
            hidden_transfer=_hidden(first, last, transfers, kernels),
            hidden_communication=_hidden(first, last, communicates, computes),
        )

    def _parts(self, ops: Integers, strange: Integers, called: Integers, begin: int, end: int) -> dict[str, float]:
        work, calls = self.recording.work, self.recording.calls
        strange = strange[np.isin(work.device[strange], np.unique(work.device[ops]))]
        known = ops[work.call[ops] >= 0]
        before, lost = known[calls.start[work.call[known]] < begin], ops[work.call[ops] < 0]
        inside = called[(calls.start[called] >= begin) & (self.account.last_end[called] >= 0)]
        outlives = max(int(self.account.last_end[inside].max(initial=end)) - end, 0)
        allocates = called[self.allocates[called]]
        processes = set(self.process_of_call[called].tolist())
        return {
            OTHER_PROCESSES: _length(work.start[strange], work.end[strange], begin, end),
            BEFORE: _length(work.start[before], work.end[before], begin, end),
            AFTER: float(outlives),
            UNLAUNCHED: _length(work.start[lost], work.end[lost], begin, end),
            PROFILER: sum(
                self.spans.profiler(number, begin, end)
                for number, thread in enumerate(self.recording.threads)
                if thread.process in processes
            ),
            ALLOCATION: float(
                (np.minimum(calls.end[allocates], end) - np.maximum(calls.start[allocates], begin)).sum()
            ),
        }

    def _framework(self, says: dict[int, Innermost], called: Integers, begin: int, end: int) -> dict[str, float]:
        """Framework time by operator: what threads spend within it and within no other, outside of CUDA's calls."""
        calls, parts = self.recording.calls, dict[str, float]()
        shown = called[self.account.call_kind[called] != kinds.OTHER]
        for thread, (from_, to, name) in says.items():
            own = shown[calls.thread[shown] == thread]
            in_calls = Covered(np.maximum(calls.start[own], begin), np.minimum(calls.end[own], end))
            left = (to - from_) - in_calls.within(from_, to)
            loads = self.spans.loads(name)
            if loads.any():
                parts[DATA] = parts.get(DATA, 0.0) + float(left[loads].sum())
            ours = ~loads & (name >= 0)
            sums = np.bincount(name[ours], left[ours]) if ours.any() else left[:0]
            for number in np.flatnonzero(sums).tolist():
                label = f"{FRAMEWORK}{self.spans.label(number)}"
                parts[label] = parts.get(label, 0.0) + float(sums[number])
        return parts

    def _host_names(self, path: Segments, host: Lines, main: int, says: dict[int, Innermost]) -> Integers:
        """What the host does on the path outside of calls: begin, end, thread, name of the innermost span or -1.

        The thread is that of the next call: several may take turns on one line.
        """
        rows = [np.zeros((0, 4), np.int64)]
        threads = self.recording.calls.thread
        for line, (calls, mine) in enumerate(host.calls):
            on = np.flatnonzero((path.line == line) & (path.share == HOST))
            following = np.searchsorted(calls.begin, path.begin[on])
            whose = np.full(len(on), main)
            ahead = following < len(mine)
            whose[ahead] = threads[mine[following[ahead]]]
            for thread in np.unique(whose).tolist():
                from_, to, name = says.get(thread, (path.begin[:0],) * 3)
                mine_on = on[whose == thread]
                begin, end = path.begin[mine_on], path.end[mine_on]
                first, last = np.searchsorted(to, begin, "right"), np.searchsorted(from_, end, "left")
                count = np.maximum(last - first, 0)
                owner = np.repeat(np.arange(len(mine_on)), count)
                at = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + first[owner]
                named = (
                    np.maximum(from_[at], begin[owner]),
                    np.minimum(to[at], end[owner]),
                    owner * 0 + thread,
                    name[at],
                )
                rows.append(np.column_stack(named))
                bare = np.flatnonzero(count == 0)
                rows.append(np.column_stack([begin[bare], end[bare], bare * 0 + thread, bare * 0 - 1]))
        return np.concatenate(rows)

    def _ends_with_work(self, ops: Integers, end: int) -> bool:
        """Whether the iteration is over when its work is, to the ns, and no call that notices is part of it."""
        return bool((self.recording.work.end[ops] == end).any())

    def _runs_ahead(self, ops: Integers, devices: dict[int, DeviceSide], begin: int, end: int) -> bool:
        """Whether the host submits for the future, and the device takes the time: what runs at the end had to queue."""
        known = ops[self.recording.work.call[ops] >= 0]
        if not (self.account.last_end[self.recording.work.call[known]] > end).any():
            return False
        last = int(known[np.argmax(self.recording.work.start[known])])
        queued = int(self.recording.work.start[last] - self.recording.calls.end[self.recording.work.call[last]])
        busiest = max((side.classes.sum() for side in devices.values()), default=0.0)
        return queued > AHEAD * (end - begin) and bool(busiest >= BUSY * (end - begin))

    def _work(self, ops: Integers, host: Lines, local: Local) -> Work:
        call = self.recording.work.call[ops]
        thread = self.recording.calls.thread[np.maximum(call, 0)] if len(self.recording.calls.thread) else call
        line = np.array([host.of_thread.get(int(number), 0) for number in thread], np.int64)
        return dataclasses.replace(self.account.work(ops), line=np.where(call >= 0, line, 0), ahead=local.last())

    def _recorded(
        self, ops: Integers, host: Lines, local: Local, by_work: bool, span: tuple[int, int]
    ) -> tuple[Recorded | None, str | None]:
        """What a replay needs, times from the iteration's begin, or why there can be none."""
        (begin, end), work, account = span, self.recording.work, self.account
        one, mine = host.calls[0]
        if not len(ops):
            return None, "nothing ran on a device"
        if not len(mine):
            return None, "no call of the host is recorded"
        if len(ops) > MOST_REPLAYED:
            return None, f"it has {len(ops):,} operations; at most {MOST_REPLAYED:,} are replayed"
        lost = int((work.call[ops] < 0).sum())
        if lost > 0.01 * len(ops):
            return None, f"{lost:,} of {len(ops):,} operations have no launch in the recording"
        place = np.searchsorted(mine, work.call[ops])
        there = (place < len(mine)) & (mine[np.minimum(place, len(mine) - 1)] == work.call[ops])
        inside = (work.call[ops] >= 0) & (self.recording.calls.start[work.call[ops]] >= begin)
        if (inside & ~there).any():
            return None, "threads launch work at the same time"
        submitted = np.where(there & inside, place, -1)
        traced = account.work(ops)
        first, last = np.maximum(traced.begin, begin) - begin, np.minimum(traced.end, end) - begin
        # A copy may be done by chance before an ordinary call that starts it returns.
        chance = self._asynchronous(mine) & (one.end - one.begin < BLOCKING_NS)
        copied = np.where((one.copied >= 0) & ~chance, one.copied - begin, -1)
        calls = Calls(one.begin - begin, one.end - begin, one.kind, one.asks, copied)
        asked = np.where(submitted >= 0, np.maximum(traced.requested, begin) - begin, 0)
        moved = Work(first, last, np.minimum(asked, first), traced.transfer)
        until = _waited_for(moved, submitted, work.stream[ops], calls, self._awaited(mine))
        after = local.launched()
        # Where the work ends the iteration, what the host does beside it is for iterations to come.
        recorded = Recorded(
            work=moved,
            stream=work.stream[ops],
            call=submitted,
            calls=calls,
            length=end - begin,
            after=after,
            until=until,
            runs_on=True,
            host_end=0 if by_work else None,
            fixed=self._staged(mine, submitted, ops, one),
        )
        return recorded, None

    def _staged(self, called: Integers, submitted: Integers, ops: Integers, calls: Calls) -> Integers | None:
        """What the copies of pageable memory take the host to move bytes: a recorder does not make that longer."""
        pageable = self.recording.work.pageable
        if pageable is None:
            return None
        staging = np.zeros(len(called), bool)
        staging[submitted[pageable[ops] & (submitted >= 0)]] = True
        return np.where(staging, np.maximum(calls.end - calls.begin - BLOCKING_NS, 0), 0)

    def _asynchronous(self, called: Integers) -> NDArray[np.bool_]:
        """Which calls say by their name that they need not wait."""
        names, name = self.recording.names, self.recording.calls.name[called].tolist()
        return np.array([number >= 0 and "Async" in names[number] for number in name], bool)

    def _awaited(self, called: Integers) -> list[list[int] | None]:
        """The streams that each call waits for, -1 for all; None where nobody knows."""
        names, name = self.recording.names, self.recording.calls.name[called].tolist()
        whole = [number >= 0 and bool(_WHOLE.search(names[number])) for number in name]
        known = self.dependencies.host
        return [[-1] if all_ else known.get(call) for all_, call in zip(whole, called.tolist(), strict=True)]

    def _counts(self, ops: Integers, called: Integers, begin: int) -> dict[str, float]:
        account, work, calls = self.account, self.recording.work, self.recording.calls
        starts = ops[work.start[ops] >= begin]
        kind, mine = work.kind[starts], called[calls.start[called] >= begin]
        call_kind = account.call_kind[mine]
        return {
            "launches": float((call_kind == kinds.LAUNCH).sum()),
            "graphs": float(account.call_graph[mine].sum()),
            "kernels": float((kind == KERNEL).sum()),
            "copies": float((kind == MEMCPY).sum()),
            "fills": float((kind == MEMSET).sum()),
            "graphs as a whole": float((kind == GRAPH).sum()),
            "copy calls": float((call_kind == kinds.COPY).sum()),
            "waiting calls": float(((call_kind == kinds.SYNC) & ~account.call_asks[mine]).sum()),
            "blocking copies": float(
                (
                    (call_kind == kinds.COPY)
                    & (account.last_end[mine] >= 0)
                    & (account.last_end[mine] <= calls.end[mine])
                ).sum()
            ),
            "allocating calls": float(self.allocates[mine].sum()),
            "streams": float(len(np.unique(work.stream[ops]))),
        }


_WHOLE = re.compile(r"(Device|Ctx|Thread)Synchronize|Free(?!Async)")


def _waited_for(
    work: Work, submitted: Integers, stream: Integers, calls: Calls, awaited: list[list[int] | None]
) -> list[list[int] | None]:
    """For each call the operations that it waited for; None: everything submitted.

    On one stream that is everything. On several, where the recording does not name the stream that a call waits for, it
    is what ended last by the call's return.
    """
    until: list[list[int] | None] = [None] * len(calls.begin)
    if len(np.unique(stream)) <= 1:
        return until
    order = np.argsort(work.end, kind="stable")
    ends = work.end[order]
    of_stream = {int(number): np.flatnonzero(stream == number) for number in np.unique(stream)}
    for c in np.flatnonzero((calls.kind == kinds.SYNC) & ~calls.asks).tolist():
        streams = awaited[c]
        if streams is not None and -1 in streams:
            continue
        last = int(np.searchsorted(ends, calls.end[c], "right")) - 1
        if streams is None:
            while last >= 0 and submitted[order[last]] > c:
                last -= 1
            until[c] = [int(order[last])] if last >= 0 else []
            continue
        mine = [of_stream[number] for number in streams if number in of_stream]
        done = [ops[(submitted[ops] < c) & (work.end[ops] <= calls.end[c])] for ops in mine]
        until[c] = [int(ops[-1]) for ops in done if len(ops)]
    return until


def _length(begin: Integers, finish: Integers, start: int, end: int) -> float:
    """Length of the union of intervals within [start, end]."""
    kept = (finish > start) & (begin < end)
    covered = union(np.clip(begin[kept], start, end), np.clip(finish[kept], start, end))
    return float(covered.within(np.array([start]), np.array([end]))[0])


def _twice(begin: Integers, finish: Integers) -> float:
    """Time in which at least two intervals run."""
    points = np.concatenate([begin, finish])
    order = np.argsort(points, kind="stable")
    running = np.cumsum(np.concatenate([np.ones(len(begin)), -np.ones(len(finish))])[order])
    lengths = np.diff(points[order])
    return float(lengths[running[:-1] >= 2].sum()) if len(points) else 0.0


def _hidden(begin: Integers, finish: Integers, these: NDArray[np.bool_], beside: NDArray[np.bool_]) -> float:
    """Time of the union of some intervals in which one of others runs too."""
    if not these.any() or not beside.any():
        return 0.0
    one, other = union(begin[these], finish[these]), union(begin[beside], finish[beside])
    return float(one.common(other))
