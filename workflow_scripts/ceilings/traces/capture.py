"""A capture in memory: CUDA calls, what they launched on the device, and the iterations."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import UserError

ITERATION = "iteration"
"""Text of the NVTX range round each iteration that counts."""

KERNEL, MEMCPY, MEMSET, GRAPH = range(4)
"""Kinds of operations on the device; GRAPH: a replay that was traced as a whole, without its nodes."""

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
"""Copy kinds, in CUPTI's numbers."""

CONTEXT = "contextId"
"""The one column that a capture may lack: those kept earlier do."""

Integers = NDArray[np.int64]
Rows = Mapping[str, Integers]
"""Table to its rows, columns as in ``COLUMNS``; NULL is -1."""

RUNTIME, NVTX, STRINGS = "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS", "StringIds"
OPERATIONS = tuple(f"CUPTI_ACTIVITY_KIND_{kind}" for kind in ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE"))
"""Tables of the kinds of operations, in their order."""

_OPERATION = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", CONTEXT)
COLUMNS: dict[str, tuple[str, ...]] = {
    RUNTIME: ("start", "end", "globalTid", "correlationId", "nameId", "returnValue"),
    OPERATIONS[KERNEL]: (*_OPERATION, "graphNodeId", "demangledName"),
    OPERATIONS[MEMCPY]: (*_OPERATION, "graphNodeId", "bytes", "copyKind"),
    OPERATIONS[MEMSET]: (*_OPERATION, "graphNodeId", "bytes"),
    OPERATIONS[GRAPH]: _OPERATION,
    NVTX: ("start", "end", "globalTid", "eventType", "text", "textId"),
    STRINGS: ("id", "value"),
}
"""What is read of a capture."""

PROCESS = 0xFFFFFFFFFF000000 - (1 << 64)
"""The bits of a ``globalTid`` that name its process, in SQLite's signed integers."""


@dataclasses.dataclass(frozen=True)
class Calls:
    """CUDA calls of the host, outermost ones only, by start.

    Attributes:
        start, end: In ns since the capture's first record.
        thread: A number a thread, from 0.
        name: Index into the capture's names; -1 for a call without a name.
        failed: Whether it returned an error.
    """

    start: Integers
    end: Integers
    thread: Integers
    name: Integers
    failed: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Operations:
    """Work of the device, by start.

    Attributes:
        start, end: In ns.
        stream: Number of the stream.
        kind: KERNEL, MEMCPY, MEMSET or GRAPH.
        name: Of a kernel, an index into the capture's names; else -1.
        call: Index of the call that launched it; -1 where the capture holds none.
        node: Whether it is a node of a CUDA graph.
        bytes: Of a copy or a fill; else 0.
        copy_kind: Of a copy; else 0.
    """

    start: Integers
    end: Integers
    stream: Integers
    kind: Integers
    name: Integers
    call: Integers
    node: NDArray[np.bool_]
    bytes: Integers
    copy_kind: Integers


@dataclasses.dataclass(frozen=True)
class Marks:
    """The iterations by start, in ns, each with the number of its thread."""

    start: Integers
    end: Integers
    thread: Integers


@dataclasses.dataclass(frozen=True)
class Ranges(Marks):
    """The other NVTX ranges, of libraries, each with its text."""

    text: NDArray[np.object_]


Columns = TypeVar("Columns", Calls, Operations, Ranges)


@dataclasses.dataclass(frozen=True)
class Capture:
    """What was recorded, with the names of calls and kernels, and facts beside it."""

    calls: Calls
    operations: Operations
    marks: Marks
    ranges: Ranges
    names: tuple[str, ...]
    meta: dict[str, Any]


def assemble(
    rows: Rows,
    strings: Mapping[int, str],
    ranges: Sequence[tuple[int, int, int, str]],
    meta: dict[str, Any],
    where: Path | str,
) -> Capture:
    """Join calls and operations of the process that ran the iterations; of any other one's, only say what there was.

    Args:
        rows: Of RUNTIME and OPERATIONS.
        strings: Names by id.
        ranges: Start, end, globalTid and text of each NVTX range, iterations among them.
        where: Named in messages.

    Raises:
        UserError: The process's operations ran on several devices, or several processes ran iterations.
    """
    rows, ranges, meta = _of_one_process(rows, ranges, meta, where)
    devices = sorted({int(device) for table in OPERATIONS for device in np.unique(rows[table][:, 2])})
    if len(devices) > 1:
        listed = ", ".join(map(str, devices))
        raise UserError(f"{where} holds work of the devices {listed}; capture one, with CUDA_VISIBLE_DEVICES=0")
    # Times from 0: a float holds those of a capture exactly, and not those since 1970.
    text = np.array([entry[3] for entry in ranges], object)
    places = np.array([entry[:3] for entry in ranges], np.int64).reshape(-1, 3)
    spans = [*(rows[table][:, :2] for table in (RUNTIME, *OPERATIONS)), places[:, :2]]
    zero = min((int(span[:, 0].min()) for span in spans if len(span)), default=0)
    for span in spans:
        np.subtract(span, zero, out=span)
    ids = np.array(sorted(strings), np.int64)
    names = tuple(strings[int(number)] for number in ids)
    threads = np.unique(np.concatenate([rows[RUNTIME][:, 2], places[:, 2]]))
    calls, keys, callers = outermost_calls(rows[RUNTIME], ids, threads)
    order = np.argsort(places[:, 0], kind="stable")
    start, end, thread = places[order].T
    every = Ranges(start, end, np.searchsorted(threads, thread), text[order])
    iterations = every.text == ITERATION
    marks = Marks(start[iterations], end[iterations], every.thread[iterations])
    operations, _ = joined_operations(rows, ids, keys, callers)
    return _pruned(Capture(calls, operations, marks, _only(every, ~iterations), names, meta))


def _of_one_process(
    rows: Rows, ranges: Sequence[tuple[int, int, int, str]], meta: dict[str, Any], where: Path | str
) -> tuple[Rows, Sequence[tuple[int, int, int, str]], dict[str, Any]]:
    """What belongs to the process that ran the iterations; beside it, in ``meta``, what else ran during them.

    ``others``: work of other processes on the device, which is in nothing that is counted. ``contexts``: how many CUDA
    contexts of the process worked, if several.
    """
    marks = [entry for entry in ranges if entry[3] == ITERATION]
    processes = {tid & PROCESS for _, _, tid, _ in marks}
    if not processes:
        return rows, ranges, meta
    if len(processes) > 1:
        raise UserError(f"{where} holds iterations of {len(processes)} processes; capture one")
    (process,) = processes
    first, last = min(mark[0] for mark in marks), max(mark[1] for mark in marks)
    kept = {RUNTIME: rows[RUNTIME][(rows[RUNTIME][:, 2] & PROCESS) == process]}
    kept |= {table: rows[table][rows[table][:, 5] == process] for table in OPERATIONS}
    spans = len(_OPERATION)  # the columns that every kind of operation has
    every = np.concatenate([rows[table][:, :spans] for table in OPERATIONS])
    during = every[(every[:, 1] > first) & (every[:, 0] < last)]
    own = during[during[:, 5] == process]
    strange = during[(during[:, 5] != process) & np.isin(during[:, 2], own[:, 2])]
    meta = dict(meta)
    if len(strange):
        begin, end = np.clip(strange[np.argsort(strange[:, 0])][:, :2], first, last).T
        before = np.concatenate([[first], np.maximum.accumulate(end)[:-1]])
        busy = int(np.maximum(end - np.maximum(begin, before), 0).sum())
        count = len(np.unique(strange[:, 5]))
        meta["others"] = {"processes": count, "operations": len(strange), "share": busy / (last - first)}
    if (contexts := len(np.unique(own[:, 6]))) > 1:
        meta["contexts"] = contexts
    return kept, [entry for entry in ranges if entry[2] & PROCESS == process], meta


def outermost_calls(rows: Integers, ids: Integers, threads: Integers) -> tuple[Calls, Integers, Integers]:
    """Outermost calls; then keys of processes and correlations, ascending, and the outermost call round each.

    Some recorders also record a driver call inside a runtime call: its time is the outer one's.

    Args:
        rows: Of RUNTIME, columns as in ``COLUMNS``.
        ids: Ascending; a name becomes its place among them.
        threads: Ascending ``globalTid`` of all threads; a thread becomes its place among them.
    """
    columns = dict(zip(COLUMNS[RUNTIME], rows.T, strict=True))
    by_thread = np.lexsort((-columns["end"], columns["start"], columns["globalTid"]))
    start, end, tid = (columns[name][by_thread] for name in ("start", "end", "globalTid"))
    outer = np.ones(len(start), bool)
    for first, last in itertools.pairwise([*np.searchsorted(tid, threads).tolist(), len(tid)]):
        outer[first + 1 : last] = end[first + 1 : last] > np.maximum.accumulate(end[first:last])[:-1]
    outermost = np.flatnonzero(outer)
    kept = outermost[np.argsort(start[outermost], kind="stable")]
    calls = Calls(
        start[kept],
        end[kept],
        np.searchsorted(threads, tid[kept]),
        places(ids, columns["nameId"][by_thread[kept]]),
        columns["returnValue"][by_thread[kept]] > 0,
    )
    del start, end, outermost
    keys = key(tid & PROCESS, columns["correlationId"][by_thread])
    del tid, by_thread
    rank = np.empty(len(keys), np.int64)  # of each outermost call, its place in the order of time
    rank[kept] = np.arange(len(kept))
    rank = rank[np.maximum.accumulate(np.where(outer, np.arange(len(outer)), 0))]
    by_key = np.argsort(keys, kind="stable")
    return calls, keys[by_key], rank[by_key]


def caller(keys: Integers, callers: Integers, process: Integers, correlation: Integers) -> Integers:
    """Index of the outermost call of each process and correlation; -1 where there is none.

    Args:
        keys, callers: Of :func:`outermost_calls`.
    """
    at = places(keys, key(process, correlation))
    return np.where((at >= 0) & (correlation >= 0), callers[at], -1) if len(callers) else at


def joined_operations(rows: Rows, ids: Integers, keys: Integers, callers: Integers) -> tuple[Operations, Integers]:
    """Operations with their calls; then the order that brings the rows of all tables, one after another, into theirs.

    Args:
        rows: Of OPERATIONS, columns as in ``COLUMNS``.
        ids: Ascending; a kernel's name becomes its place among them.
        keys, callers: Of :func:`outermost_calls`.
    """

    def every(name: str, absent: int = 0) -> Integers:
        parts = []
        for table in OPERATIONS:
            known = name in COLUMNS[table]
            parts.append(
                rows[table][:, COLUMNS[table].index(name)] if known else np.full(len(rows[table]), absent, np.int64)
            )
        return np.concatenate(parts)

    start, end = every("start"), every("end")
    order = np.lexsort((end, start))
    kind = np.repeat(np.arange(len(OPERATIONS)), [len(rows[table]) for table in OPERATIONS])
    name = every("demangledName", -1)
    operations = Operations(
        start=start[order],
        end=end[order],
        stream=every("streamId")[order],
        kind=kind[order],
        name=np.where(kind == KERNEL, places(ids, name), -1)[order],
        call=caller(keys, callers, every("globalPid"), every("correlationId"))[order],
        node=every("graphNodeId")[order] > 0,
        bytes=every("bytes")[order],
        copy_kind=every("copyKind")[order],
    )
    return operations, order


def trimmed(capture: Capture) -> Capture:
    """From the first iteration's begin to the last one's end, with the calls that launched what runs there."""
    calls, operations, marks = capture.calls, capture.operations, capture.marks
    if not len(marks.start):
        return capture
    first, last = marks.start[0], marks.end[-1]
    kept = (operations.end > first) & (operations.start < last)
    called = (calls.end > first) & (calls.start < last)
    called[operations.call[kept & (operations.call >= 0)]] = True
    number = np.cumsum(called) - 1
    call = np.where(operations.call >= 0, number[operations.call] if len(number) else -1, -1)
    ranges = capture.ranges
    return _pruned(
        dataclasses.replace(
            capture,
            calls=_only(calls, called),
            operations=_only(dataclasses.replace(operations, call=call), kept),
            ranges=_only(ranges, (ranges.end > first) & (ranges.start < last)),
        )
    )


def without_ranges(capture: Capture) -> Capture:
    """Iterations alone: what a library says in its ranges matters only where something reads it."""
    return dataclasses.replace(capture, ranges=_only(capture.ranges, np.zeros(len(capture.ranges.text), bool)))


def _only(columns: Columns, kept: NDArray[np.bool_]) -> Columns:
    """The rows that are kept."""
    return type(columns)(**{field.name: getattr(columns, field.name)[kept] for field in dataclasses.fields(columns)})


def _pruned(capture: Capture) -> Capture:
    """Without names that only inner calls had."""
    used = np.setdiff1d(np.concatenate([capture.calls.name, capture.operations.name]), [-1])
    return dataclasses.replace(
        capture,
        calls=dataclasses.replace(capture.calls, name=places(used, capture.calls.name)),
        operations=dataclasses.replace(capture.operations, name=places(used, capture.operations.name)),
        names=tuple(capture.names[name] for name in used),
    )


def key(process: Integers, correlation: Integers) -> Integers:
    """One number for a process and a correlation id."""
    return ((process >> 24) << 32) | (correlation & 0xFFFFFFFF)


def places(ascending: Integers, wanted: Integers) -> Integers:
    """Index of each wanted value; -1 for what is not there."""
    if not len(ascending):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[at] == wanted, at, -1)
