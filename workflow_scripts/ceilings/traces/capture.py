"""A capture in memory, and the one SQLite schema that it is read from and kept in.

The tables and columns are those of Nsight Systems' SQLite export, cut to what is read here: a file that ``nsys export``
wrote is read as it is, and what the CUPTI recorder saw is kept in the same form. What is kept holds nothing else:
environment variables, paths, host, process and thread names of a raw capture do not get into it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import UserError
from ceilings.files import atomic

ITERATION = "iteration"
"""Text of the NVTX range round each iteration that counts."""

KERNEL, MEMCPY, MEMSET, GRAPH = range(4)
"""Kinds of operations on the device; GRAPH: a replay that was traced as a whole, without its nodes."""

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
"""Copy kinds, in CUPTI's numbers."""

PUSH_POP = 59
START_END = 60
"""Event types of NVTX ranges."""

Integers = NDArray[np.int64]
Rows = Mapping[str, Integers]
"""Table to its rows, columns as in ``COLUMNS``; NULL is -1."""

RUNTIME, NVTX, STRINGS = "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS", "StringIds"
OPERATIONS = tuple(f"CUPTI_ACTIVITY_KIND_{kind}" for kind in ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE"))
"""Tables of the kinds of operations, in their order."""

_OPERATION = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid")
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

NEEDED = {
    STRINGS: "it has no names",
    RUNTIME: "no CUDA call was recorded",
    OPERATIONS[KERNEL]: "no kernel was recorded",
    NVTX: f"no NVTX range was recorded, and iterations are ranges with the text {ITERATION!r}",
}
"""Tables that must be there, and what it means if one is not. An export may leave out tables without rows."""

META = "CEILINGS_CAPTURE"
_PROCESS = 0xFFFFFFFFFF000000 - (1 << 64)  # of a globalTid, in SQLite's signed integers
_CHUNK = 50_000


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
class Capture:
    """What was recorded, with the names of calls and kernels, and facts beside it."""

    calls: Calls
    operations: Operations
    marks: Marks
    names: tuple[str, ...]
    meta: dict[str, Any]


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path | str) -> Capture:
    """Read a kept capture or an export of Nsight Systems.

    Raises:
        UserError: The file is none, has an unknown form, or holds the work of several devices.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; capture it with capture_trace.py")
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as database:
            present = _check(database, path)
            rows = {table: _rows(database, table, present) for table in (RUNTIME, *OPERATIONS)}
            return assemble(rows, _strings(database), _marks(database), _meta(database, path), path)
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{path} is no capture ({error}); give the .sqlite of capture_trace.py or of `nsys export --type sqlite`"
        ) from None


def assemble(
    rows: Rows, strings: Mapping[int, str], marks: Integers, meta: dict[str, Any], where: Path | str
) -> Capture:
    """Join calls and operations.

    Args:
        rows: Of RUNTIME and OPERATIONS.
        strings: Names by id.
        marks: Rows of start, end and globalTid.
        where: Named in messages.

    Raises:
        UserError: The operations ran on several devices.
    """
    devices = sorted({int(device) for table in OPERATIONS for device in np.unique(rows[table][:, 2])})
    if len(devices) > 1:
        told = ", ".join(map(str, devices))
        raise UserError(f"{where} holds work of the devices {told}; capture one, with CUDA_VISIBLE_DEVICES=0")
    # Times from 0: a float holds those of a capture exactly, and not those since 1970.
    spans = [*(rows[table][:, :2] for table in (RUNTIME, *OPERATIONS)), marks[:, :2]]
    zero = min((int(span[:, 0].min()) for span in spans if len(span)), default=0)
    for span in spans:
        span -= zero
    ids = np.array(sorted(strings), np.int64)
    names = tuple(strings[int(number)] for number in ids)
    threads = np.unique(np.concatenate([rows[RUNTIME][:, 2], marks[:, 2]]))
    calls, keys, callers = _calls(rows[RUNTIME], ids, threads)
    marks = marks[np.argsort(marks[:, 0], kind="stable")]
    ranges = Marks(marks[:, 0], marks[:, 1], np.searchsorted(threads, marks[:, 2]))
    return Capture(calls, _operations(rows, ids, keys, callers), ranges, names, meta)


def _check(database: sqlite3.Connection, path: Path | str) -> set[str]:
    """The tables that are there, each with all columns that are read."""
    present = {table: {row[1] for row in database.execute(f"PRAGMA table_info({table})")} for table in COLUMNS}
    for table, meaning in NEEDED.items():
        if not present[table]:
            raise UserError(f"{path} has no table {table}: {meaning}; capture it anew, and export with --lazy=false")
    for table, columns in present.items():
        if columns and (missing := [name for name in COLUMNS[table] if name not in columns]):
            raise UserError(
                f"{path} has an older schema: {table} has no {', '.join(missing)}; export it with Nsight Systems 2023.1 "
                "or newer"
            )
    return {table for table, columns in present.items() if columns}


def _rows(database: sqlite3.Connection, table: str, present: set[str]) -> Integers:
    chunks = [np.empty((0, len(COLUMNS[table])), np.int64)]
    if table in present:
        columns = ", ".join(f'coalesce("{column}", -1)' for column in COLUMNS[table])
        cursor = database.execute(f"SELECT {columns} FROM {table}")
        while some := cursor.fetchmany(_CHUNK):
            chunks.append(np.array(some, np.int64))
    return np.concatenate(chunks)


def _strings(database: sqlite3.Connection) -> dict[int, str]:
    used = f"SELECT nameId FROM {RUNTIME} UNION SELECT demangledName FROM {OPERATIONS[KERNEL]}"
    return dict(database.execute(f"SELECT id, value FROM {STRINGS} WHERE id IN ({used})"))


def _marks(database: sqlite3.Connection) -> Integers:
    found = database.execute(
        f"SELECT n.start, n.end, n.globalTid FROM {NVTX} n LEFT JOIN {STRINGS} s ON s.id = n.textId "
        "WHERE coalesce(n.text, s.value) = ? AND n.eventType IN (?, ?) AND n.end IS NOT NULL",
        (ITERATION, PUSH_POP, START_END),
    ).fetchall()
    return np.array(found, np.int64).reshape(-1, 3)


def _meta(database: sqlite3.Connection, path: Path | str) -> dict[str, Any]:
    if not database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (META,)).fetchone():
        return {"source": "nsys"}
    try:
        return {name: json.loads(value) for name, value in database.execute(f"SELECT name, value FROM {META}")}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({META}: {error}); delete it and capture it anew") from None


# --- joining ---------------------------------------------------------------------------------------------------------


def _calls(rows: Integers, ids: Integers, threads: Integers) -> tuple[Calls, Integers, Integers]:
    """Outermost calls; then keys of processes and correlations, ascending, and the outermost call round each.

    Some recorders also record a driver call inside a runtime call: its time is the outer one's.
    """
    start, end, tid, correlation, name, returned = rows[np.lexsort((-rows[:, 1], rows[:, 0], rows[:, 2]))].T
    outer = np.ones(len(start), bool)
    for thread in threads:
        own = np.flatnonzero(tid == thread)
        outer[own[1:]] = end[own[1:]] > np.maximum.accumulate(end[own])[:-1]
    outermost = np.flatnonzero(outer)
    order = np.argsort(start[outermost], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    kept = outermost[order]
    calls = Calls(
        start[kept], end[kept], np.searchsorted(threads, tid[kept]), _places(ids, name[kept]), returned[kept] > 0
    )
    keys = _key(tid & _PROCESS, correlation)
    by_key = np.argsort(keys, kind="stable")
    return calls, keys[by_key], rank[(np.cumsum(outer) - 1)[by_key]]


def _operations(rows: Rows, ids: Integers, keys: Integers, callers: Integers) -> Operations:
    parts = []
    for kind, table in enumerate(OPERATIONS):
        column = dict(zip(COLUMNS[table], rows[table].T, strict=True))
        none = np.zeros(len(rows[table]), np.int64)
        at = _places(keys, _key(column["globalPid"], column["correlationId"]))
        call = np.where(at >= 0, callers[at], -1) if len(callers) else none - 1
        name = _places(ids, column["demangledName"]) if kind == KERNEL else none - 1
        node = column.get("graphNodeId", none) > 0
        rest = (none + kind, name, call, node, column.get("bytes", none), column.get("copyKind", none))
        parts.append(np.column_stack([column["start"], column["end"], column["streamId"], *rest]))
    every = np.concatenate(parts)
    columns = every[np.lexsort((every[:, 1], every[:, 0]))].T
    return Operations(*columns[:6], columns[6] > 0, *columns[7:])


def _key(process: Integers, correlation: Integers) -> Integers:
    """One number for a process and a correlation id."""
    return ((process >> 24) << 32) | (correlation & 0xFFFFFFFF)


def _places(ascending: Integers, wanted: Integers) -> Integers:
    """Index of each wanted value; -1 for what is not there."""
    if not len(ascending):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[at] == wanted, at, -1)


# --- keeping ---------------------------------------------------------------------------------------------------------


def write(path: Path | str, capture: Capture) -> None:
    """Keep a capture, its processes, correlations and names numbered anew."""
    calls, operations, marks = capture.calls, capture.operations, capture.marks
    process = 1 << 24
    correlation = np.where(operations.call >= 0, operations.call, len(calls.start) + np.arange(len(operations.start)))
    common = (
        *(operations.start, operations.end, np.zeros_like(operations.start), operations.stream),
        *(correlation + 1, np.full_like(operations.start, process)),
    )
    graph_node = operations.node.astype(np.int64)
    further = {
        KERNEL: (graph_node, operations.name + 1),
        MEMCPY: (graph_node, operations.bytes, operations.copy_kind),
        MEMSET: (graph_node, operations.bytes),
        GRAPH: (),
    }
    tables: dict[str, list[Any]] = {
        RUNTIME: [
            *(calls.start, calls.end, process + 1 + calls.thread, np.arange(1, len(calls.start) + 1)),
            *(calls.name + 1, calls.failed.astype(np.int64)),
        ],
        STRINGS: [range(1, len(capture.names) + 1), capture.names],
        NVTX: [
            *(marks.start, marks.end, process + 1 + marks.thread),
            *(np.full_like(marks.start, PUSH_POP), [ITERATION] * len(marks.start), [None] * len(marks.start)),
        ],
    }
    for kind, table in enumerate(OPERATIONS):
        own = operations.kind == kind
        tables[table] = [column[own] for column in (*common, *further[kind])]
    with atomic(path) as temporary, contextlib.closing(sqlite3.connect(temporary)) as database:
        for table, columns in tables.items():
            names = ", ".join(f'"{name}"' for name in COLUMNS[table])
            database.execute(f"CREATE TABLE {table} ({names})")
            plain = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
            marks_of = ", ".join("?" * len(plain))
            database.executemany(f"INSERT INTO {table} VALUES ({marks_of})", zip(*plain, strict=True))
        database.execute(f"CREATE TABLE {META} (name, value)")
        facts = [(name, json.dumps(value)) for name, value in capture.meta.items()]
        database.executemany(f"INSERT INTO {META} VALUES (?, ?)", facts)
        database.commit()
