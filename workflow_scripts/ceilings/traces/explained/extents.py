"""From where to where an iteration lasts, once it is known what belongs to it."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.explained.submissions import Submissions

Integers = NDArray[np.int64]

LATE = 0.02
"""Work that ends by more than this share of an iteration after the next one has begun was submitted ahead."""

AHEAD = 0.5
"""The host runs ahead if it does so in more than this share of the iterations."""

HOST_RANGE = "Each lasts as long as its range."
HOST_WAIT = "Each lasts from its first call to the end of its last wait, or to the next one's begin."
AFTER_RANGE = "Each lasts from its range's begin to the end of the wait for its work, which outlives the range."
DEVICE = (
    "The host submits ahead of the device, so each lasts on the device: from the end of the work before to the end of "
    "its work."
)
REQUESTS = "They overlap in time, on several threads: they are requests. Each lasts as long as its range."


@dataclasses.dataclass(frozen=True)
class Extents:
    """Begin and end of each iteration, in ns, the thread that waits for it, and in words what that is."""

    begin: Integers
    end: Integers
    thread: Integers
    overlapping: bool
    definition: str

    def only(self, kept: Integers) -> Extents:
        """Some of them."""
        return dataclasses.replace(self, begin=self.begin[kept], end=self.end[kept], thread=self.thread[kept])


def of_ranges(
    submitted: Submissions, begin: Integers, end: Integers, thread: Integers, *, owner: Integers, overlapping: bool
) -> Extents:
    """Of ranges, by begin; ``owner`` is the range of each submission."""
    if overlapping:
        return Extents(begin, end, thread, True, REQUESTS)
    finish = _last(submitted.finish, owner, len(begin))
    late = finish > end
    if late.mean() <= 0.2 and len(begin) > 1:
        return Extents(begin, end, thread, False, HOST_RANGE)
    if not late.any():
        return Extents(begin, end, thread, False, HOST_RANGE)
    following = np.append(begin[1:], np.iinfo(np.int64).max)
    if _ahead(begin, finish):
        return _on_device(submitted, begin, owner, finish)
    waits = np.flatnonzero(submitted.waits)
    over = np.maximum.accumulate(submitted.end[waits]) if len(waits) else np.empty(0, np.int64)
    at = np.searchsorted(over, finish)
    waited = np.append(over, np.iinfo(np.int64).max)[at]
    ends = np.where(waited <= following, waited, np.minimum(finish, following))
    ends = np.where(ends == np.iinfo(np.int64).max, finish, ends)
    return Extents(begin, np.where(late, ends, end), thread, False, AFTER_RANGE)


def of_stretches(submitted: Submissions, edges: Integers) -> Extents:
    """Of stretches of submissions, from each edge to the next."""
    first, last = edges[:-1], edges[1:] - 1
    owner = np.searchsorted(edges, np.arange(len(submitted)), "right") - 1
    owner[owner >= len(first)] = -1
    finish = _last(submitted.finish, owner, len(first))
    begin = submitted.begin[first]
    beyond = max(int(submitted.end[last[-1]]), int(finish[-1]))
    if edges[-1] < len(submitted):
        beyond = min(beyond, max(int(submitted.begin[edges[-1]]), int(submitted.end[last[-1]])))
    following = np.append(begin[1:], beyond)
    if _ahead(begin, finish):
        return _on_device(submitted, begin, owner, finish)
    waited = submitted.waits[last] | (submitted.downloads[last] & (submitted.finish[last] <= submitted.end[last]))
    end = np.where(waited, np.minimum(np.maximum(submitted.end[last], finish), following), following)
    end = np.maximum(np.maximum(end, np.minimum(submitted.end[last], following)), begin + 1)
    return Extents(begin, end, np.where(waited, submitted.thread[last], -1), False, HOST_WAIT)


def _last(values: Integers, owner: Integers, count: int) -> Integers:
    """The largest value of each owner; -1 without one."""
    found = np.full(count, -1, np.int64)
    mine = owner >= 0
    np.maximum.at(found, owner[mine], values[mine])
    return found


def _ahead(begin: Integers, finish: Integers) -> bool:
    """Whether most iterations' work ends well after the next one was begun."""
    if len(begin) < 2:
        return False
    length = np.diff(begin)
    return bool(((finish[:-1] - begin[1:]) > LATE * length).mean() > AHEAD)


def _on_device(submitted: Submissions, begin: Integers, owner: Integers, finish: Integers) -> Extents:
    """From the end of the work before, or the first call if that is later, to the end of its work."""
    done = np.maximum.accumulate(submitted.finish)
    mine = np.flatnonzero(owner >= 0)
    first = np.full(len(begin), len(submitted), np.int64)
    np.minimum.at(first, owner[mine], mine)
    before = np.where(first > 0, np.concatenate([[-1], done])[first], -1)
    starts = np.maximum(begin, before)
    ends = np.maximum.accumulate(np.maximum(finish, starts + 1))
    starts = np.maximum(starts, np.concatenate([starts[:1], ends[:-1]]))
    return Extents(starts, np.maximum(ends, starts + 1), np.full(len(begin), -1, np.int64), False, DEVICE)
