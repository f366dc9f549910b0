"""What a process asked its devices for, in the order in which it asked: the sequence that iterations are seen in."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.traces import calls as kinds
from ceilings.traces.capture import DEVICE_TO_HOST, GRAPH, HOST_TO_DEVICE, KERNEL, MEMCPY
from ceilings.traces.recording import Recording

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

WAITING_THREAD = 0.02
"""A thread's waits count as marks in the sequence if it makes at least this share of the submissions."""


@dataclasses.dataclass(frozen=True)
class Submissions:
    """Calls of a process that gave work to a device, and its waits between them, in the order of the host.

    Where most work has no recorded call, each operation stands for itself, in the order of the device.

    Attributes:
        begin, end: In ns, of the call; waits that follow each other are one, to the end of the last.
        thread: Index of the calling thread; -1 where unknown.
        symbol: Hash of what was submitted: names of kernels, kinds of copies; of a graph all nodes.
        kernels: The same of kernels (and graphs) alone; 0 where there are none.
        weight: Number of operations on the device; 0 for a wait.
        waits: Whether the host waits here for a device.
        uploads, downloads: Whether it copies from, or to, the host's memory.
        graph: Whether it launches a CUDA graph.
        finish: In ns, when its last operation ends; -1 for a wait.
        busy: Sum of the lengths of its operations, in ns.
        of_work: For each operation of the recording, its submission; -1 where it has none.
    """

    begin: Integers
    end: Integers
    thread: Integers
    symbol: Hashes
    kernels: Hashes
    weight: Integers
    waits: Flags
    uploads: Flags
    downloads: Flags
    graph: Flags
    finish: Integers
    busy: Integers
    of_work: Integers

    def __len__(self) -> int:
        return len(self.begin)


def mixed(values: NDArray[np.integer]) -> Hashes:
    """A hash of each number, as good as random (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def process_of_work(recording: Recording) -> Integers:
    """The process of each operation: of the thread that launched it, else of its stream; -1 where unknown."""
    work, calls = recording.work, recording.calls
    of_thread = np.array([thread.process for thread in recording.threads] + [-1], np.int64)
    of_stream = np.array([stream.process for stream in recording.streams] + [-1], np.int64)
    caller = np.append(calls.thread, -1)[work.call]
    return np.where(work.call >= 0, of_thread[caller], of_stream[work.stream])


def submissions(recording: Recording, chosen: Flags, coarse: bool = False) -> Submissions:
    """The submissions of the chosen operations.

    Args:
        chosen: Of the recording's operations, those of the process.
        coarse: Leave numbers out of the names of kernels, so that one kernel with other tiles is the same.
    """
    return _with_waits(*_without_waits(recording, chosen, coarse), recording)


def _without_waits(
    recording: Recording, chosen: Flags, coarse: bool
) -> tuple[dict[str, NDArray[Any]], Integers, Integers]:
    """Columns of the submissions but for waits, the calls that wait, and the place of each operation among them."""
    work, calls = recording.work, recording.calls
    symbol = _symbols(recording, coarse)
    known = chosen & (work.call >= 0)
    by_call = 2 * int(known.sum()) >= int(chosen.sum())
    counted = np.flatnonzero(known if by_call else chosen)
    if by_call:
        order = counted[np.argsort(work.call[counted], kind="stable")]
        owner = work.call[order]
        first = np.flatnonzero(np.diff(owner, prepend=-1))
    else:
        order = counted[np.argsort(work.start[counted], kind="stable")]
        first = np.arange(len(order))
    begin, end, thread, waited = _calls(recording, order[first], by_call)

    computes = np.isin(work.kind[order], (KERNEL, GRAPH))
    hashes = symbol[order]
    graph_call = np.array([kinds.launches_graph(name) for name in recording.names] + [False])
    name_of_call = np.append(calls.name, -1)
    copies = np.where(work.kind[order] == MEMCPY, work.copy_kind[order], 0)
    columns = {
        "begin": begin,
        "end": end,
        "thread": thread,
        "symbol": _sums(hashes, first),
        "kernels": _sums(np.where(computes, hashes, np.uint64(0)), first),
        "weight": np.diff(np.append(first, len(order))),
        "waits": np.zeros(len(first), bool),
        "uploads": _sums((copies == HOST_TO_DEVICE).astype(np.int64), first) > 0,
        "downloads": _sums((copies == DEVICE_TO_HOST).astype(np.int64), first) > 0,
        "graph": graph_call[name_of_call[work.call[order[first]]]] | (work.kind[order[first]] == GRAPH),
        "finish": np.maximum.reduceat(work.end[order], first) if len(first) else begin,
        "busy": _sums(work.end[order] - work.start[order], first),
    }
    place = np.full(len(work.start), -1, np.int64)
    place[order] = np.repeat(np.arange(len(first)), columns["weight"])
    return columns, waited, place


def _symbols(recording: Recording, coarse: bool) -> Hashes:
    """A hash of each operation's name or kind."""
    work, names = recording.work, recording.names
    number = np.arange(len(names) + 1, dtype=np.int64)
    if coarse:
        places: dict[str, int] = {}
        for index, name in enumerate(names):
            number[index] = places.setdefault(re.sub(r"\d+", "", name), index)
    other = (work.kind << 8) | (work.copy_kind & 0xFF)
    of_name = mixed(number)
    return np.where((work.kind == KERNEL) & (work.name >= 0), of_name[work.name], mixed(-2 - other))


def _calls(recording: Recording, operation: Integers, by_call: bool) -> tuple[Integers, Integers, Integers, Integers]:
    """Begin, end and thread of each submission; then the calls that wait, of threads that submit."""
    work, calls = recording.work, recording.calls
    if not by_call:
        return work.start[operation], work.end[operation], np.full(len(operation), -1), np.empty(0, np.int64)
    call = work.call[operation]
    threads, count = np.unique(calls.thread[call], return_counts=True)
    submitting = threads[count >= WAITING_THREAD * len(call)]
    waits = np.array([kinds.kind(name) == kinds.SYNC and "Query" not in name for name in recording.names] + [False])
    waited = np.flatnonzero(waits[calls.name] & np.isin(calls.thread, submitting))
    return calls.start[call], calls.end[call], calls.thread[call], waited


def _with_waits(
    columns: dict[str, NDArray[Any]], waited: Integers, place: Integers, recording: Recording
) -> Submissions:
    """Waits among the submissions; those that nothing was submitted between are one. Uses the columns up."""
    calls, submitted = recording.calls, len(columns["begin"])
    at = np.searchsorted(columns["begin"], calls.start[waited])
    first = np.flatnonzero(np.diff(at, prepend=-1))
    count, none = len(first), np.zeros(len(first), np.int64)
    ends = np.maximum.reduceat(calls.end[waited], first) if count else none
    last = np.append(first[1:], len(waited)) - 1
    added = {
        "begin": calls.start[waited[first]],
        "end": ends,
        "thread": calls.thread[waited[last]] if count else none,
        "symbol": np.full(count, 1, np.uint64),
        "waits": np.ones(count, bool),
        "finish": none - 1,
    }
    merged = {}
    where = at[first]
    for name in tuple(columns):  # each column goes as soon as it is copied: a large trace has some hundred MiB of them
        column = columns.pop(name)
        merged[name] = np.insert(column, where, added.get(name, np.zeros(count, column.dtype)))
    shift = np.zeros(submitted + 1, np.int64)
    np.add.at(shift, where, 1)
    moved = np.arange(submitted) + np.cumsum(shift)[:-1]
    of_work = np.where(place >= 0, np.append(moved, -1)[place], -1)
    return Submissions(**merged, of_work=of_work)


def _sums(values: NDArray, first: Integers) -> NDArray:
    """Sum of the values from each first one to the next."""
    return np.add.reduceat(values, first) if len(first) else values[:0]
