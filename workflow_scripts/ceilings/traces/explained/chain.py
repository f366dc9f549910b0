"""The critical path of an iteration of a recording, as segments with labels: over threads, streams and devices.

:mod:`ceilings.traces.path` follows it. Here stand what it follows, and what each of its parts is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.taxonomy import COMMUNICATION, KERNEL_CLASSES, RECORDING_SHARES, STALLED
from ceilings.traces import calls as kinds
from ceilings.traces.budget import Account
from ceilings.traces.capture import Integers
from ceilings.traces.covered import Covered
from ceilings.traces.path import KERNEL, LAUNCH, TRANSFER, Calls, Steps, Work, tiles, walk

COMMUNICATING = RECORDING_SHARES.index(COMMUNICATION)
DOES_NOT_START = RECORDING_SHARES.index(STALLED)
STALL_NS = 100_000
"""Launched work of a free device begins within microseconds: what takes longer is no launch of the host."""

OVERLAPPING = 0.02
"""Share of its calls' time that a thread may spend beside the calls of others and still take turns with them."""


@dataclasses.dataclass(frozen=True)
class Lines:
    """The threads of an iteration by who can run at the same time.

    Attributes:
        calls: Of each line the calls that launch, copy or wait, and which of the recording's calls they are. The first
            line has the thread that waits for the iteration, and those that take turns with it.
        of_thread: Thread to its line.
    """

    calls: list[tuple[Calls, Integers]]
    of_thread: dict[int, int]


def lines(account: Account, called: Integers, main: int, workers: Sequence[int], span: tuple[int, int]) -> Lines:
    """The lines of an iteration.

    Args:
        called: Calls of the process that overlap the iteration, by start.
        main: The thread that waits for the iteration; -1 where nobody knows it.
        workers: The threads that launched something, those with most launches first.
        span: Begin and end of the iteration.
    """
    calls, (start, end) = account.capture.calls, span
    called = called[account.call_kind[called] != kinds.OTHER]
    threads = calls.thread[called]
    members: list[list[int]] = [[main]]
    of_thread = {main: 0}
    for worker in workers:
        if worker in of_thread:
            continue
        mine = called[threads == worker]
        taken = calls.end[mine] - calls.start[mine]
        for number, team in enumerate(members):
            others = called[np.isin(threads, team)]
            begin, finish = _serial(calls.start[others], calls.end[others])
            beside = Covered(begin, finish).within(calls.start[mine], calls.end[mine]).sum()
            if beside <= OVERLAPPING * max(taken.sum(), 1):
                of_thread[worker] = number
                team.append(worker)
                break
        else:
            of_thread[worker] = len(members)
            members.append([worker])
    built = []
    for team in members:
        mine = called[np.isin(threads, team)]
        one = account.path_calls(mine, start, end)
        begin, finish = _serial(one.begin, one.end)
        built.append((dataclasses.replace(one, begin=begin, end=finish), mine))
    return Lines(built, of_thread)


def _serial(begin: Integers, end: Integers) -> tuple[Integers, Integers]:
    """Intervals by begin, without what lies in the one before."""
    if not len(begin):
        return begin, end
    over = np.maximum.accumulate(end)
    begin = np.maximum(begin, np.concatenate([begin[:1], over[:-1]]))
    return begin, np.maximum(end, begin)


@dataclasses.dataclass(frozen=True)
class Segments:
    """The path in its order, without a gap; times in ns.

    Attributes:
        begin, end: Of each segment.
        share: Of ``RECORDING_SHARES``.
        work: The operation of the recording that runs, -1 for none; what was launched or waited for counts as none.
        call: The call of the recording that the host is in, -1 for none.
        line: The host's line; -1 on the device.
        gap: Whether the device had the work and had not begun it.
    """

    begin: Integers
    end: Integers
    share: Integers
    work: Integers
    call: Integers
    line: Integers
    gap: NDArray[np.bool_]

    def shares(self) -> NDArray[np.float64]:
        """Time by ``RECORDING_SHARES``."""
        return np.bincount(self.share, self.end - self.begin, len(RECORDING_SHARES)).astype(np.float64)

    @property
    def calls_that_launch(self) -> NDArray[np.bool_]:
        """Calls of the host that launch."""
        return (self.share == LAUNCH) & (self.line >= 0) & (self.call >= 0)

    @property
    def between_launches(self) -> NDArray[np.bool_]:
        """Code of the host that counts as launch and is in no call: it prepares the launch that follows."""
        return (self.share == LAUNCH) & (self.line >= 0) & (self.call < 0)


def on_device(account: Account) -> NDArray[np.bool_]:
    """Calls of which nothing on a device is a copy from or to the host: they may copy within it, or fill."""
    call, calls = account.capture.operations.call, len(account.capture.calls.start)
    moves = call[(call >= 0) & account.op_transfer]
    return (np.bincount(moves, minlength=calls) == 0) & bool(len(call))


def segments(
    account: Account,
    ops: Integers,
    work: Work,
    host: Lines,
    *,
    span: tuple[int, int],
    waited_for: bool,
    local: NDArray[np.bool_],
) -> Segments:
    """The path of an iteration.

    Args:
        ops: The operations, as in ``work``.
        local: Calls that copy or fill ``on_device``: to the host they are launches.
        waited_for: Whether the host waits at the end; if not, the iteration is over when its work is.
    """
    followed, (start, end) = [calls for calls, _ in host.calls], span
    if not waited_for:
        whole = np.array([start]), np.array([end])
        followed[0] = _after(followed[0], *whole)
    steps = walk(work, followed, start, end)
    rows = _device(account, ops, work, steps)
    for number, (calls, mine) in enumerate(host.calls):
        rows.append(_host(calls, mine, number, steps, span=span, local=local))
    del steps
    order = np.argsort(np.concatenate([row[0] for row in rows]), kind="stable")
    return Segments(*(np.concatenate([row[k] for row in rows])[order] for k in range(len(COLUMNS))))


COLUMNS = (np.int64, np.int64, np.int8, np.int32, np.int32, np.int32, np.bool_)
"""Types of the columns of segments, of which there may be millions."""


def _columns(*values: Any) -> tuple[Any, ...]:
    return tuple(np.asarray(value, kind) for value, kind in zip(values, COLUMNS, strict=True))


def _after(calls: Calls, begin: Integers, end: Integers) -> Calls:
    """The calls, and one at the end that waits for all work."""
    one = {"begin": begin, "end": end, "kind": [kinds.SYNC], "asks": [False], "copied": [-1]}
    return Calls(**{name: np.concatenate([getattr(calls, name), value]) for name, value in one.items()})


def _device(account: Account, ops: Integers, work: Work, steps: Steps) -> list[tuple[Any, ...]]:
    on = steps.line < 0
    begin, end, share, number = (values[on] for values in (steps.begin, steps.end, steps.share, steps.work))
    communicates = account.op_class[ops[number]] == KERNEL_CLASSES.index(COMMUNICATION)
    share = np.where((share == KERNEL) & communicates, COMMUNICATING, share)
    share = np.where((share == LAUNCH) & (end - begin > STALL_NS), DOES_NOT_START, share)
    runs = np.isin(share, (KERNEL, COMMUNICATING)) | ((share == TRANSFER) & (end > work.begin[number]))
    middle = np.where(runs, np.clip(work.begin[number], begin, end), end)  # before it the gap, after it the work
    none = np.full(len(begin), -1)
    parts = []
    for first, last, ran, gap in ((begin, middle, none, runs), (middle, end, ops[number], np.zeros_like(runs))):
        kept = last > first
        columns = (first, last, share, ran, none, none, gap)
        parts.append(_columns(*(values[kept] for values in columns)))
    return parts


def _host(
    calls: Calls, mine: Integers, line: int, steps: Steps, *, span: tuple[int, int], local: NDArray[np.bool_]
) -> tuple[Any, ...]:
    on = np.flatnonzero(steps.line == line)[::-1]  # the path was followed from its end
    edges, share, call = tiles(calls, *span)
    call = np.where(call >= 0, mine[call] if len(mine) else -1, -1)
    share = np.where((share == TRANSFER) & np.append(local, False)[call], LAUNCH, share)
    begin, finish = steps.begin[on], steps.end[on]
    first = np.searchsorted(edges[1:], begin, "right")
    last = np.maximum(np.searchsorted(edges[:-1], finish, "left"), first)
    which = np.repeat(np.arange(len(on)), last - first)
    tile = np.arange(len(which)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[which]
    from_, to = np.maximum(edges[tile], begin[which]), np.minimum(edges[tile + 1], finish[which])
    kept = to > from_
    tile = tile[kept]
    none = np.full(len(tile), -1, np.int8)
    return _columns(from_[kept], to[kept], share[tile], none, call[tile], none + 1 + np.int32(line), none * 0)
