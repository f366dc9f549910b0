"""The critical path of an iteration: the chain of host code and device work that its length consists of.

Followed from the end back. Where the host waited for the device, the path goes on at the work that it waited for. Work
goes back to the work before it on the device if it had been launched by then, else to the launch, and so to the host.
What lies beside the path, such as a kernel that ran while the host prepared the next launch, did not lengthen the
iteration: without it the iteration would have been as long.
"""

from __future__ import annotations

import dataclasses

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
    """

    begin: Integers
    end: Integers
    requested: Integers
    transfer: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Calls:
    """Calls of the iteration's thread, none within another, in their order.

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


def critical_path(work: Work, calls: Calls, start: int, end: int) -> Floats:
    """Time on the path by PATH_SHARES, in ns; the sum is ``end - start``."""
    shares, host = _walk(work, calls, start, end)
    on_path = Covered(*np.array(host, np.int64).reshape(-1, 2).T)
    shown = calls.kind != kinds.OTHER
    begin, finish, kind = (values[shown] for values in (calls.begin, calls.end, calls.kind))
    inside = on_path.within(begin, finish)
    for number, share in ((kinds.LAUNCH, LAUNCH), (kinds.COPY, TRANSFER), (kinds.SYNC, SYNC)):
        shares[share] += inside[kind == number].sum()
    # Code between two calls is of the launch that follows, if one came before and it is no longer than a launch takes.
    from_, to = np.append(start, finish), np.append(begin, end)
    launches = np.append(kind == kinds.LAUNCH, False)
    launches &= (np.cumsum(launches) > 1) & (to - from_ <= STRETCH_NS)
    between = on_path.within(from_, to)
    shares[LAUNCH] += between[launches].sum()
    shares[HOST] += between[~launches].sum()
    return shares


def _walk(work: Work, calls: Calls, start: int, end: int) -> tuple[Floats, list[tuple[int, int]]]:
    """Shares of what is not the host's own time, and the intervals that are."""
    order = np.argsort(work.end, kind="stable")
    ends = work.end[order]
    # What ended last before each began; of two that end and begin at once the one that stands before.
    ahead = (np.minimum(np.searchsorted(ends, work.begin[order], "right"), np.arange(len(ends))) - 1).tolist()
    begins, requested, transfer = (values[order].tolist() for values in (work.begin, work.requested, work.transfer))
    waits = _waits(calls, ends)
    done = ends.tolist()

    shares, host = np.zeros(len(PATH_SHARES)), list[tuple[int, int]]()
    now, at = end, -1  # the operation, by its place in the order of ends; -1: the host
    while now > start:
        if at < 0:
            while waits and waits[-1][0] > now:
                waits.pop()
            returned, at = waits.pop() if waits else (start, -1)
            if now > returned:
                host.append((returned, now))
            now = returned if at < 0 else max(done[at], start)
            shares[SYNC] += returned - now
            continue
        before = max(done[ahead[at]], start) if ahead[at] >= 0 else start
        share = TRANSFER if transfer[at] else KERNEL
        if requested[at] > before:
            shares[share] += now - begins[at]
            shares[TRANSFER if transfer[at] else LAUNCH] += begins[at] - requested[at]
            now, at = requested[at], -1
        else:
            shares[share] += now - before
            now, at = before, ahead[at]
    return shares, host


def _waits(calls: Calls, ends: Integers) -> list[tuple[int, int]]:
    """When each call that waited for work returned, and which work it was, by its place in the order of ends."""
    copied = np.where(calls.copied <= calls.end, calls.copied, -1)
    until = np.where((calls.kind == kinds.SYNC) & ~calls.asks, calls.end, copied)
    last = np.searchsorted(ends, until, "right") - 1
    waited = (last >= 0) & (until > calls.begin)
    waited[waited] = ends[last[waited]] > calls.begin[waited]
    return list(zip(calls.end[waited].tolist(), last[waited].tolist(), strict=True))
