"""The one SQLite schema that captures are read from and kept in.

The tables and columns are those of Nsight Systems' SQLite export, cut to what is read here: a file that ``nsys export``
wrote is read as it is, and what the CUPTI recorder saw is kept in the same form. What is kept holds nothing else:
environment variables, paths, host, process and thread names of a raw capture do not get into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ceilings import SCHEMA_VERSION, private, records
from ceilings.errors import UserError
from ceilings.files import atomic, not_a_file
from ceilings.traces.capture import (
    COLUMNS,
    CONTEXT,
    GRAPH,
    ITERATION,
    KERNEL,
    MEMCPY,
    MEMSET,
    NVTX,
    OPERATIONS,
    RUNTIME,
    STRINGS,
    Capture,
    Integers,
    assemble,
)

PUSH_POP = 59
START_END = 60
"""Event types of NVTX ranges."""

NEEDED = {
    STRINGS: "it has no names",
    RUNTIME: "no CUDA call was recorded",
    OPERATIONS[KERNEL]: "no kernel was recorded",
    NVTX: f"no NVTX range was recorded, and iterations are ranges with the text {ITERATION!r}",
}
"""Tables that must be there, and what it means if one is not. An export may leave out tables without rows."""

META = "CEILINGS_CAPTURE"
"""The facts beside what was recorded, with the schema version and the digest of all of it."""

Content = tuple[dict[str, Integers], dict[int, str], list[tuple[int, int, int, str]]]
_CHUNK = 50_000


def read(path: Path | str) -> Capture:
    """Read a kept capture or an export of Nsight Systems.

    Raises:
        UserError: The file is none, has an unknown form, was changed since it was kept, or holds the work of several
            devices.
    """
    if problem := not_a_file(path):
        raise UserError(f"{path} {problem}; capture it with capture_trace.py")
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as database:
            present = _check(database, path)
            rows, strings, ranges = _content(database, present)
            return assemble(rows, strings, ranges, _meta(database, path, rows, strings, ranges), path)
    except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:  # the latter: cells of another type
        raise UserError(
            f"{path} is no capture ({error}); give the .sqlite of capture_trace.py or of `nsys export --type sqlite`"
        ) from None


def _check(database: sqlite3.Connection, path: Path | str) -> dict[str, set[str]]:
    """The columns of each table that is there, all that are needed among them."""
    present = {table: {row[1] for row in database.execute(f"PRAGMA table_info({table})")} for table in COLUMNS}
    for table, meaning in NEEDED.items():
        if not present[table]:
            raise UserError(f"{path} has no table {table}: {meaning}; capture it anew, and export with --lazy=false")
    for table, columns in present.items():
        if columns and (missing := [name for name in COLUMNS[table] if name not in columns | {CONTEXT}]):
            raise UserError(
                f"{path} has an older schema: {table} has no {', '.join(missing)}; export it with Nsight Systems "
                "2023.1 or newer"
            )
    return {table: columns for table, columns in present.items() if columns}


def _content(database: sqlite3.Connection, present: Mapping[str, set[str]]) -> Content:
    """Rows by table, names by id, and ranges."""
    rows = {table: _rows(database, table, present) for table in (RUNTIME, *OPERATIONS)}
    for table, values in rows.items():
        if (values[:, 0] > values[:, 1]).any():
            raise ValueError(f"something in {table} ends before it begins")
    return rows, _strings(database), _ranges(database)


def _rows(database: sqlite3.Connection, table: str, present: Mapping[str, set[str]]) -> Integers:
    chunks = [np.empty((0, len(COLUMNS[table])), np.int64)]
    if table in present:
        known = [f'"{column}"' if column in present[table] else "NULL" for column in COLUMNS[table]]
        columns = ", ".join(f"coalesce({column}, -1)" for column in known)
        cursor = database.execute(f"SELECT {columns} FROM {table}")
        while rows := cursor.fetchmany(_CHUNK):
            chunks.append(np.array(rows, np.int64))
    return np.concatenate(chunks)


def _strings(database: sqlite3.Connection) -> dict[int, str]:
    used = f"SELECT nameId FROM {RUNTIME} UNION SELECT demangledName FROM {OPERATIONS[KERNEL]}"
    return dict(database.execute(f"SELECT id, value FROM {STRINGS} WHERE id IN ({used})"))


def _ranges(database: sqlite3.Connection) -> list[tuple[int, int, int, str]]:
    """Iterations, which may be start-end ranges, and the nested ranges of libraries."""
    return database.execute(
        f"SELECT n.start, n.end, n.globalTid, coalesce(n.text, s.value) AS label FROM {NVTX} n "
        f"LEFT JOIN {STRINGS} s ON s.id = n.textId WHERE label IS NOT NULL AND n.end IS NOT NULL "
        "AND (n.eventType = ? OR n.eventType = ? AND label = ?)",
        (PUSH_POP, START_END, ITERATION),
    ).fetchall()


def _digest(rows: Mapping[str, Integers], strings: Mapping[int, str], ranges: Sequence[Any], meta: Any) -> str:
    """Hex sha256 of all that is read of a capture."""
    total = hashlib.sha256()
    for table, values in rows.items():
        total.update(f"{table} {values.shape}\n".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    rest = [sorted(strings.items()), sorted(map(list, ranges)), meta]
    total.update(json.dumps(rest, sort_keys=True, allow_nan=False).encode())
    return total.hexdigest()


def _meta(
    database: sqlite3.Connection,
    path: Path | str,
    rows: Mapping[str, Integers],
    strings: Mapping[int, str],
    ranges: Sequence[Any],
) -> dict[str, Any]:
    """The facts beside a kept capture, which vouch for its content; an export of Nsight Systems has none."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (META,)).fetchone():
        return {"source": "nsys"}
    remedy = records.anew(path)
    try:
        facts = database.execute(f"SELECT name, value FROM {META}").fetchall()
        meta = {str(name): records.parsed(value.encode()) for name, value in facts}
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({META}: {error}); {remedy}") from None
    version, digest = meta.pop("schema_version", None), meta.pop("digest", None)
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {str(version)[:12]}, and this version of the pipeline reads {SCHEMA_VERSION}; "
            f"{remedy}"
        )
    if digest != _digest(rows, strings, ranges, meta):
        raise UserError(f"{path} was changed since it was kept (its content does not match its digest); {remedy}")
    return meta


def write(path: Path | str, capture: Capture) -> None:
    """Keep a capture, its processes, correlations and names numbered anew."""
    calls, operations, marks, ranges = capture.calls, capture.operations, capture.marks, capture.ranges
    process = 1 << 24
    correlation = np.where(operations.call >= 0, operations.call, len(calls.start) + np.arange(len(operations.start)))
    common = (
        *(operations.start, operations.end, np.zeros_like(operations.start), operations.stream),
        *(correlation + 1, np.full_like(operations.start, process), np.zeros_like(operations.start)),
    )
    graph_node = operations.node.astype(np.int64)
    further = {
        KERNEL: (graph_node, operations.name + 1),
        MEMCPY: (graph_node, operations.bytes, operations.copy_kind),
        MEMSET: (graph_node, operations.bytes),
        GRAPH: (),
    }
    texts = private.anonymous([*[ITERATION] * len(marks.start), *ranges.text])
    tables: dict[str, list[Any]] = {
        RUNTIME: [
            *(calls.start, calls.end, process + 1 + calls.thread, np.arange(1, len(calls.start) + 1)),
            *(calls.name + 1, calls.failed.astype(np.int64)),
        ],
        STRINGS: [range(1, len(capture.names) + 1), private.anonymous(capture.names)],
        NVTX: [
            *(np.concatenate([marks.start, ranges.start]), np.concatenate([marks.end, ranges.end])),
            process + 1 + np.concatenate([marks.thread, ranges.thread]),
            *([PUSH_POP] * len(texts), texts, [None] * len(texts)),
        ],
    }
    for kind, table in enumerate(OPERATIONS):
        chosen = operations.kind == kind
        tables[table] = [column[chosen] for column in (*common, *further[kind])]
    with atomic(path) as temporary, contextlib.closing(sqlite3.connect(temporary)) as database:
        for table, columns in tables.items():
            names = ", ".join(f'"{name}"' for name in COLUMNS[table])
            database.execute(f"CREATE TABLE {table} ({names})")
            plain = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
            places = ", ".join("?" * len(plain))
            database.executemany(f"INSERT INTO {table} VALUES ({places})", zip(*plain, strict=True))
        database.execute(f"CREATE TABLE {META} (name, value)")
        meta = {name: json.loads(json.dumps(value)) for name, value in private.anonymous(capture.meta).items()}
        read_again = _content(database, {table: set(COLUMNS[table]) for table in tables})
        seal = {"schema_version": SCHEMA_VERSION, "digest": _digest(*read_again, meta)}
        facts = [(name, json.dumps(value)) for name, value in {**meta, **seal}.items()]
        database.executemany(f"INSERT INTO {META} VALUES (?, ?)", facts)
        database.commit()
