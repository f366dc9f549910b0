"""The critical path of an iteration: the chain of host code and device work that its length consists of.

Followed from the end back. Where the host waited for the device, the path goes on at the work that it waited for. Work
goes back to the work before it on the device if it had been launched by then, else to the launch, and so to the host.
What lies beside the path, such as a kernel that ran while the host prepared the next launch, did not lengthen the
iteration: without it the iteration would have been as long.

The host is one line of calls, or several that run at the same time: a launch leads to its line, and a line that had
nothing before its first call leads back to the first, which waits for the iteration.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.taxonomy import PATH_SHARES
from ceilings.traces import calls as kinds
from ceilings.traces.covered import Covered

STRETCH_NS = 50_000
"""A launch and the framework's work for it take microseconds: code before a launch that takes longer is no launch's."""

UNREQUESTED = np.iinfo(np.int64).min
"""When work was requested whose call was not recorded."""

KERNEL, LAUNCH, HOST, TRANSFER, SYNC = range(len(PATH_SHARES))

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations of the device.

    Attributes:
        begin, end: When each runs.
        requested: When the host had delivered it, or UNREQUESTED: for a launch its return, at the latest the first
            operation's start; for a copy the call's begin, since the call itself may wait. Never after its begin.
        transfer: Copies between host and device.
        line: The line of the host that launched each; None: there is one line.
        ahead: The operation that each had to wait for, -1 for none; None: the one that ended last before it began.
    """

    begin: Integers
    end: Integers
    requested: Integers
    transfer: NDArray[np.bool_]
    line: Integers | None = None
    ahead: Integers | None = None


@dataclasses.dataclass(frozen=True)
class Calls:
    """Calls of a line of the host, such as a thread, none within another, in their order.

    Attributes:
        begin, end: When the thread is in each.
        kind: Of ``calls.KINDS``.
        asks: Calls that ask about the device: they return at once, so the thread waited for nothing in them.
        copied: For a copy, when the last of what it copied was done; -1 otherwise.
    """

    begin: Integers
    end: Integers
    kind: Integers
    asks: NDArray[np.bool_]
    copied: Integers


@dataclasses.dataclass(frozen=True)
class Steps:
    """The path, from the end back: each step ends where the one before it begins.

    Attributes:
        begin, end: Of each step.
        share: Of ``PATH_SHARES``; HOST for what the host does, calls included.
        work: The operation that runs or is waited for, by its place in ``Work``; -1 on the host.
        line: The host's line; -1 on the device.
    """

    begin: Integers
    end: Integers
    share: Integers
    work: Integers
    line: Integers


def critical_path(work: Work, calls: Calls, start: int, end: int) -> Floats:
    """Time on the path by PATH_SHARES, in ns; the sum is ``end - start``."""
    steps = walk(work, [calls], start, end)
    on_host = steps.line >= 0
    lengths = (steps.end - steps.begin)[~on_host]
    shares = np.bincount(steps.share[~on_host], lengths, len(PATH_SHARES)).astype(np.float64)
    edges, share, _ = tiles(calls, start, end)
    inside = Covered(steps.begin[on_host], steps.end[on_host]).within(edges[:-1], edges[1:])
    return shares + np.bincount(share, inside, len(PATH_SHARES))


def tiles(calls: Calls, start: int, end: int) -> tuple[Integers, Integers, Integers]:
    """What a line of the host does from start to end: edges, and between two of them the share, and the call or -1.

    Code between two calls is of the launch that follows, if one came before and it is no longer than a launch takes.
    """
    shown = np.flatnonzero(calls.kind != kinds.OTHER)
    begin, finish, kind = (values[shown] for values in (calls.begin, calls.end, calls.kind))
    from_, to = np.append(start, finish), np.append(begin, end)
    launches = np.append(kind == kinds.LAUNCH, False)
    launches &= (np.cumsum(launches) > 1) & (to - from_ <= STRETCH_NS)
    share = np.empty(2 * len(kind) + 1, np.int64)
    share[::2] = np.where(launches, LAUNCH, HOST)
    share[1::2] = _SHARE_OF_CALL[kind]
    call = np.full(2 * len(kind) + 1, -1)
    call[1::2] = shown
    edges = np.concatenate([[start], np.column_stack([begin, finish]).ravel(), [end]]).astype(np.int64)
    return edges, share, call


_SHARE_OF_CALL = np.zeros(len(kinds.KINDS), np.int64)
_SHARE_OF_CALL[[kinds.LAUNCH, kinds.COPY, kinds.SYNC, kinds.OTHER]] = LAUNCH, TRANSFER, SYNC, HOST


def walk(work: Work, lines: Sequence[Calls], start: int, end: int) -> Steps:
    """The path from the end of the iteration on the first line back to its start."""
    order = np.argsort(work.end, kind="stable")
    ends = work.end[order]
    ahead = packed(_ahead(work, order))
    begins, requested, transfer = (packed(values[order]) for values in (work.begin, work.requested, work.transfer))
    line_of = packed(work.line[order] if work.line is not None else np.zeros(len(order)))
    waits = [_waits(calls, ends) for calls in lines]
    opens = [max(int(calls.begin[0]), start) if len(calls.begin) else start for calls in lines]
    done, number = packed(ends), packed(order)

    steps = array("q")  # five numbers a step: millions of them would be large as tuples
    now, at, line = end, -1, 0  # the operation, by its place in the order of ends; -1: the host
    while now > start:
        if at < 0:
            mine = waits[line]
            while mine and mine[-1][0] > now:
                mine.pop()
            first = min(opens[line], now) if line else start  # before it, the first line prepared the launch
            returned, at = mine.pop() if mine else (first, -1)
            if now > returned:
                steps.extend((returned, now, HOST, -1, line))
            now = returned if at < 0 else max(done[at], start)
            if returned > now:
                steps.extend((now, returned, SYNC, number[at], -1))
            line = 0 if at < 0 else line
            continue
        before = max(done[ahead[at]], start) if ahead[at] >= 0 else start
        share = TRANSFER if transfer[at] else KERNEL
        if requested[at] > before:
            begin = begins[at]
            if now > begin:
                steps.extend((begin, now, share, number[at], -1))
            if begin > requested[at]:
                steps.extend((requested[at], begin, TRANSFER if transfer[at] else LAUNCH, number[at], -1))
            now, line, at = requested[at], line_of[at], -1
        else:
            if now > before:
                steps.extend((before, now, share, number[at], -1))
            now, at = before, ahead[at]
    return Steps(*np.frombuffer(steps, np.int64).reshape(-1, 5).T)


def packed(values: NDArray[Any]) -> array[int]:
    """Numbers to be looked at one by one, in a fifth of the memory of a list."""
    made = array("q")
    made.frombytes(values.astype(np.int64).tobytes())
    return made


def _ahead(work: Work, order: Integers) -> Integers:
    """What each operation had to wait for, by places in the order of ends; -1 for nothing."""
    ends = work.end[order]
    # What ended last before each began; of two that end and begin at once the one that stands before.
    inferred = np.minimum(np.searchsorted(ends, work.begin[order], "right"), np.arange(len(ends))) - 1
    if work.ahead is None:
        return inferred
    place = np.empty(len(order) + 1, np.int64)
    place[order], place[-1] = np.arange(len(order)), -1
    known = place[work.ahead[order]]
    # Work that is said to come before, and ends after, overlaps: the path goes on at what did end before.
    return np.where(known < np.arange(len(order)), known, inferred)


def _waits(calls: Calls, ends: Integers) -> list[tuple[int, int]]:
    """When each call that waited for work returned, and which work it was, by its place in the order of ends."""
    copied = np.where(calls.copied <= calls.end, calls.copied, -1)
    until = np.where((calls.kind == kinds.SYNC) & ~calls.asks, calls.end, copied)
    last = np.searchsorted(ends, until, "right") - 1
    waited = (last >= 0) & (until > calls.begin)
    waited[waited] = ends[last[waited]] > calls.begin[waited]
    return list(zip(calls.end[waited].tolist(), last[waited].tolist(), strict=True))
