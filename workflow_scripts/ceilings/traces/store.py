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
from ceilings.files import atomic
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
from ceilings.traces.tables import Tables, opened

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


def read(path: Path | str) -> Capture:
    """Read a kept capture or an export of Nsight Systems.

    Raises:
        UserError: The file is none, has an unknown form, was changed since it was kept, or holds the work of several
            devices.
    """
    with opened(path) as tables:
        _check(tables, path)
        rows, strings, ranges = _content(tables)
        return assemble(rows, strings, ranges, _meta(tables, path, rows, strings, ranges), path)


def facts(tables: Tables, path: Path | str) -> dict[str, Any] | None:
    """The facts beside a kept capture, whose content they vouch for; None for an export of Nsight Systems.

    Raises:
        UserError: It was changed since it was kept, or is of another version.
    """
    if META not in tables:
        return None
    _check(tables, path)
    return _meta(tables, path, *_content(tables))


def _check(tables: Tables, path: Path | str) -> None:
    """Refuse a file without the tables and columns that are needed."""
    for table, meaning in NEEDED.items():
        if table not in tables:
            raise UserError(f"{path} has no table {table}: {meaning}; capture it anew, and export with --lazy=false")
    for table, columns in COLUMNS.items():
        present = tables.columns(table)
        if present and (missing := [name for name in columns if name not in present | {CONTEXT}]):
            raise UserError(
                f"{path} has an older schema: {table} has no {', '.join(missing)}; export it with Nsight Systems "
                "2023.1 or newer"
            )


def _content(tables: Tables) -> Content:
    """Rows by table, names by id, and ranges."""
    rows = {table: tables.rows(table, COLUMNS[table]) for table in (RUNTIME, *OPERATIONS)}
    for table, values in rows.items():
        if (values[:, 0] > values[:, 1]).any():
            raise ValueError(f"something in {table} ends before it begins")
    name, kernel_name = COLUMNS[RUNTIME].index("nameId"), COLUMNS[OPERATIONS[KERNEL]].index("demangledName")
    used = np.union1d(rows[RUNTIME][:, name], rows[OPERATIONS[KERNEL]][:, kernel_name])
    return rows, tables.strings(used.tolist()), _ranges(tables)


def _ranges(tables: Tables) -> list[tuple[int, int, int, str]]:
    """Iterations, which may be start-end ranges, and the nested ranges of libraries."""
    return tables.database.execute(
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
    tables: Tables,
    path: Path | str,
    rows: Mapping[str, Integers],
    strings: Mapping[int, str],
    ranges: Sequence[Any],
) -> dict[str, Any]:
    """The facts beside a kept capture, which vouch for its content; an export of Nsight Systems has none."""
    if META not in tables:
        return {"source": "nsys"}
    remedy = records.anew(path)
    try:
        entries = tables.database.execute(f"SELECT name, value FROM {META}").fetchall()
        meta = {str(name): records.parsed(value.encode()) for name, value in entries}
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
    content: dict[str, list[Any]] = {
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
        content[table] = [column[chosen] for column in (*common, *further[kind])]
    with atomic(path) as temporary, contextlib.closing(sqlite3.connect(temporary)) as database:
        for table, columns in content.items():
            names = ", ".join(f'"{name}"' for name in COLUMNS[table])
            database.execute(f"CREATE TABLE {table} ({names})")
            plain = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
            places = ", ".join("?" * len(plain))
            database.executemany(f"INSERT INTO {table} VALUES ({places})", zip(*plain, strict=True))
        database.execute(f"CREATE TABLE {META} (name, value)")
        meta = {name: json.loads(json.dumps(value)) for name, value in private.anonymous(capture.meta).items()}
        read_again = _content(Tables(database))
        seal = {"schema_version": SCHEMA_VERSION, "digest": _digest(*read_again, meta)}
        entries = [(name, json.dumps(value)) for name, value in {**meta, **seal}.items()]
        database.executemany(f"INSERT INTO {META} VALUES (?, ?)", entries)
        database.commit()
