"""Exports of Nsight Systems 2022.1 to 2026, its reports where nsys is on PATH, and kept captures of this project.

What differs by version, of what is read here (docs/nsight_systems.md):

- 2022: facts of the export are in EXPORT_META_DATA; numbers have no ENUM_ tables; a GPU's number for CUDA is in
  TARGET_INFO_GPU.cuDevice; there is no CUPTI_ACTIVITY_KIND_GRAPH_TRACE;
- 2023: ENUM_ tables say what a number means;
- 2024: META_DATA_EXPORT and META_DATA_CAPTURE; CUPTI_ACTIVITY_KIND_GRAPH_TRACE; DIAGNOSTIC_EVENT in every export;
- later: TARGET_INFO_CUDA_DEVICE maps the devices of each process to GPUs; ``eventSyncId`` names the record of the event
  that is waited for; CUDA_HOST_CALLBACK and CUPTI_ACTIVITY_KIND_OVERHEAD; ``eventId`` of ranges.

No version is asked for: each table and column that is there is taken. Rows come in no order, and without
``--lazy=false`` an export leaves out tables without rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings import lifetime
from ceilings.errors import UserError
from ceilings.files import POINTER, not_a_file
from ceilings.traces import nsys, store
from ceilings.traces.capture import (
    COLUMNS,
    CONTEXT,
    GRAPH,
    KERNEL,
    MEMCPY,
    NVTX,
    OPERATIONS,
    PROCESS,
    RUNTIME,
    STRINGS,
    Calls,
    Integers,
    Operations,
    caller,
    joined_operations,
    key,
    outermost_calls,
    places,
)
from ceilings.traces.readers import nsight_spans
from ceilings.traces.readers.event_waits import latest_records, named_records
from ceilings.traces.readers.findings import Findings
from ceilings.traces.readers.impossible import misplaced, repeated
from ceilings.traces.readers.names import Names
from ceilings.traces.recording import Progress, Recording, Source, Stream, Waits, Work
from ceilings.traces.tables import Tables, opened

REPORT = b"NVIDIA Tegra Profiler Report"
"""How a report begins, .nsys-rep or .qdrep."""

EXPORT = "nsys export --type sqlite --lazy=false --output x.sqlite"

FORMS = {
    b"PAR1": f"is an export as Parquet; export the report with `{EXPORT} REPORT`",
    b"ARROW1": f"is an export as Arrow; export the report with `{EXPORT} REPORT`",
    b"\x89HDF\r\n\x1a\n": f"is an export as HDF5; export the report with `{EXPORT} REPORT`",
    b"QDSTRM": "is a recording that nsys did not turn into a report; `QdstrmImporter -i FILE` makes a .nsys-rep of it",
    POINTER: "is a pointer of git-lfs and not the file; run git lfs pull",
}
"""Other forms of the same content, by how a file begins."""

ROOM = 15
"""So many times the size of a report its export may need."""

SYNCHRONIZATION, EVENT = "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", "CUPTI_ACTIVITY_KIND_CUDA_EVENT"
DIAGNOSTICS = "DIAGNOSTIC_EVENT"
HOST_FOR_EVENT, STREAM_FOR_EVENT, HOST_FOR_STREAM, HOST_FOR_ALL = range(1, 5)
"""What waits for what, in CUPTI's numbers."""

WAITS = {
    "TYPE_EVENT_SYNCHRONIZE": HOST_FOR_EVENT,
    "TYPE_STREAM_WAIT_EVENT": STREAM_FOR_EVENT,
    "TYPE_STREAM_SYNCHRONIZE": HOST_FOR_STREAM,
    "TYPE_CONTEXT_SYNCHRONIZE": HOST_FOR_ALL,
}
"""The same by how their names end: an export may number them otherwise."""

OWNER = tuple(COLUMNS[OPERATIONS[GRAPH]].index(name) for name in ("globalPid", "deviceId", CONTEXT, "streamId"))
"""Columns of operations that say where they ran."""

MEMORY_KINDS = "ENUM_CUDA_MEM_KIND"
MIGRATION = 11
"""Copy kinds from here on are migrations of pages of unified memory."""

WHAT = dict(zip((RUNTIME, *OPERATIONS), ("CUDA calls", "kernels", "copies", "fills", "graphs as a whole"), strict=True))

WARNINGS = {
    r"Not all CUDA events might have been collected": "Nsight Systems says that CUDA events may be missing",
    r"Not all NVTX events might have been collected": "Nsight Systems says that NVTX ranges may be missing",
    r"CUDA.* stopped unexpectedly": "Nsight Systems says that CUDA tracing stopped before the end",
    r"(?i)buffers? .*(full|exhausted|overflow)": "Nsight Systems says that a buffer was full",
}
"""Messages of the recorder that matter, and what is said of them. The messages hold paths and stay behind."""

LOST = re.compile(r"(?i)\b(\d+)\)? (?:\S+ ){0,4}?(?:were|was|have been) (?:lost|dropped)")


def read(path: Path | str, progress: Progress | None = None) -> Recording:
    """Read an export of Nsight Systems, a report of it where nsys is on PATH, or a kept capture of this project.

    Args:
        progress: Called with the share of the rows that were read, 0 to 1.

    Raises:
        UserError: It is none of these, is cut short, is being written, or holds nothing that was traced.
    """
    path = Path(path)
    with _database(path) as database:
        count = _Counter(progress)
        with opened(database, count.advance) as tables:
            tables.lenient = True
            facts = store.facts(tables, path)
            count.total = sum(map(tables.count, (*WHAT, *nsight_spans.TABLES)))
            return _recording(tables, path, facts)


@dataclasses.dataclass
class _Counter:
    """Rows that were read, as a share of all."""

    progress: Progress | None
    done: int = 0
    total: int = 0

    def advance(self, rows: int) -> None:
        self.done += rows
        if self.progress and self.total:
            self.progress(min(self.done / self.total, 1.0))


# ---- the file --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _database(path: Path) -> Iterator[Path]:
    """The SQLite file of an export or of a report."""
    _refuse_other_forms(path)
    with path.open("rb") as file:
        is_report = file.read(len(REPORT)) == REPORT
    if not is_report:
        yield path
        return
    if not shutil.which("nsys"):
        raise UserError(
            f"{path} is a report of Nsight Systems, and nsys is not on PATH to export it; where it is, run "
            f"`{EXPORT} {path.name}` and give the .sqlite"
        )
    with lifetime.temporary_folder() as folder:
        free, needed = shutil.disk_usage(folder).free, ROOM * path.stat().st_size
        if free < needed:
            raise UserError(
                f"{path} needs up to {needed / 1e9:.1f} GB to be exported, and {tempfile.gettempdir()} has "
                f"{free / 1e9:.1f} GB; name a larger place in TMPDIR"
            )
        database = Path(folder, "export.sqlite")
        if problem := nsys.exported(path, database, os.environ):
            version = nsys.version()
            raise UserError(
                f"{path} cannot be exported by {version} ({problem}); take one as new as that which made it"
            )
        yield database


def _refuse_other_forms(path: Path) -> None:
    if path.is_dir():
        kinds = {beside.suffix for beside in path.iterdir()} & {".parquet", ".arrow"}
        if kinds:
            raise UserError(f"{path} is an export as a folder of {kinds.pop()} files; `{EXPORT} REPORT` makes one file")
    if problem := not_a_file(path):
        raise UserError(f"{path} {problem}; name an export or a report of Nsight Systems")
    with path.open("rb") as file:
        head = file.read(64)
    for magic, meaning in FORMS.items():
        if head.startswith(magic):
            raise UserError(f"{path} {meaning}")


# ---- what it holds ---------------------------------------------------------------------------------------------------


def _recording(tables: Tables, path: Path, facts: dict[str, Any] | None) -> Recording:
    if not any(table in tables for table in (*WHAT, *nsight_spans.TABLES)):
        raise UserError(
            f"{path} holds no CUDA call, kernel or range; record with --trace=cuda,nvtx and export it again"
        )
    if STRINGS not in tables:
        raise UserError(f"{path} has no table {STRINGS}, so nothing in it has a name; export it again, whole")
    findings, names = Findings(), Names(tables)
    rows = _rows(tables, RUNTIME, names, findings)
    traced = np.unique(rows[:, 2])
    spans = nsight_spans.read(tables, names, findings, traced)
    threads = np.union1d(traced, spans[:, 2])
    calls, keys, callers = outermost_calls(rows, np.arange(len(names)), threads)
    findings.count("CUDA calls inside others", len(rows) - len(calls.start))
    del rows
    operations, used = _operations(tables, names, findings, (keys, callers), np.concatenate([calls.start, spans[:, 0]]))
    pageable = _pageable(tables, operations)
    _from_zero(calls, operations, spans)
    _check(calls, operations, findings)
    waiting_calls = np.isin(calls.name, [names.number(name) for name in names.texts() if "StreamWaitEvent" in name])
    waits = _waits(tables, calls, keys, callers, findings)
    if waiting_calls.any() and not (waits.stream >= 0).any():
        findings.lacks.append(
            f"{int(waiting_calls.sum()):,} calls let a stream wait for an event; for which, is not there."
        )
    del keys, callers
    owners = np.concatenate([used, waits.owners])
    device_names = _devices(tables, owners)
    owners, stream = _distinct(owners)
    of_work, of_waits = stream[: len(used)], np.append(stream[len(used) :], -1)
    number = {process: place for place, process in enumerate(np.union1d(threads & PROCESS, owners[:, 0]).tolist())}
    labels, nested = nsight_spans.nested(spans, threads, [number[tid & PROCESS] for tid in threads.tolist()])
    columns = {field.name: getattr(operations, field.name) for field in dataclasses.fields(operations)}
    columns["stream"] = of_work[operations.stream]
    return Recording(
        calls=calls,
        work=Work(**columns, device=owners[columns["stream"], 1], pageable=pageable),
        spans=nested,
        waits=Waits(of_waits[waits.stream], waits.call, of_waits[waits.after_stream], waits.after_call),
        threads=labels,
        streams=tuple(Stream(number[process], *place) for process, *place in owners.tolist()),
        names=names.texts(),
        device_names=device_names,
        source=_source(tables, facts, findings),
    )


def _rows(tables: Tables, table: str, names: Names, findings: Findings) -> Integers:
    """Rows of calls or operations with their names numbered; those without a sound interval are left out."""
    rows = findings.sound(tables.rows(table, COLUMNS[table]), WHAT[table])
    named = {RUNTIME: "nameId", OPERATIONS[KERNEL]: "demangledName"}.get(table)
    if named:
        place = COLUMNS[table].index(named)
        rows[:, place] = names.numbered(rows[:, place])
    return rows


def _operations(
    tables: Tables, names: Names, findings: Findings, joins: tuple[Integers, Integers], host: Integers
) -> tuple[Operations, Integers]:
    """Operations of all devices, and the places where they ran, columns as OWNER, which ``stream`` indexes."""
    rows = {table: _rows(tables, table, names, findings) for table in OPERATIONS}
    _leave_impossible(rows, host, findings)
    if len(graphs := rows[OPERATIONS[GRAPH]]):  # those whose nodes are there too are there twice
        nodes = np.concatenate([key(rows[table][:, 5], rows[table][:, 4]) for table in OPERATIONS[:GRAPH]])
        doubled = np.isin(key(graphs[:, 5], graphs[:, 4]), nodes)
        findings.count("graphs as a whole left out, for their nodes are there", int(doubled.sum()))
        rows[OPERATIONS[GRAPH]] = graphs[~doubled]
    used, place = _distinct(np.concatenate([rows[table][:, OWNER] for table in OPERATIONS]))
    operations, order = joined_operations(rows, np.arange(len(names)), *joins)
    return dataclasses.replace(operations, stream=place[order]), used


def _leave_impossible(rows: dict[str, Integers], host: Integers, findings: Findings) -> None:
    """Keep each operation once, and none that lies far from everything else."""
    for table in OPERATIONS:
        again = repeated(rows[table])
        findings.problem(int(again.sum()), f"{WHAT[table]} are there twice, equal in each number: counted once.")
        findings.count(f"{WHAT[table]} that are there twice", int(again.sum()))
        rows[table] = rows[table][~again]
    every = np.concatenate([rows[table][:, : len(COLUMNS[OPERATIONS[GRAPH]])] for table in OPERATIONS])
    owner = _distinct(every[:, OWNER])[1] if len(every) else every[:, 0]
    far = misplaced(every[:, 0], every[:, 1], owner, host)
    bounds = np.cumsum([len(rows[table]) for table in OPERATIONS])[:-1]
    for table, wrong in zip(OPERATIONS, np.split(far, bounds), strict=True):
        findings.problem(
            int(wrong.sum()), f"{WHAT[table]} begin far before or end far after everything else: left out."
        )
        findings.count(f"{WHAT[table]} left out", int(wrong.sum()))
        rows[table] = rows[table][~wrong]


def _pageable(tables: Tables, operations: Operations) -> NDArray[np.bool_] | None:
    """Which operations copy from or to pageable memory; None where the export does not say."""
    table = OPERATIONS[MEMCPY]
    if MEMORY_KINDS not in tables or not {"srcKind", "dstKind"} <= tables.columns(table):
        return None
    kinds = tables.database.execute(f"SELECT id FROM {MEMORY_KINDS} WHERE label = 'Pageable'").fetchall()
    rows = tables.rows(table, ("start", "srcKind", "dstKind"))
    starts = rows[np.isin(rows[:, 1:], kinds).any(1), 0]
    return (operations.kind == MEMCPY) & np.isin(operations.start, starts)


def _from_zero(calls: Calls, operations: Operations, spans: Integers) -> None:
    """Let times begin at the first of them."""
    times = [(calls.start, calls.end), (operations.start, operations.end), (spans[:, 0], spans[:, 1])]
    zero = min((int(start.min()) for start, _ in times if len(start)), default=0)
    for start, end in times:
        np.subtract(start, zero, out=start)
        np.subtract(end, zero, out=end)


def _check(calls: Calls, operations: Operations, findings: Findings) -> None:
    """Note what does not fit between calls and operations."""
    for kind, table in enumerate(OPERATIONS):
        orphans = int(((operations.kind == kind) & (operations.call < 0)).sum())
        findings.problem(orphans, f"{WHAT[table]} refer to no CUDA call that is there.")
    launched = operations.call >= 0
    early = operations.start[launched] < calls.start[operations.call[launched]]
    findings.problem(int(early.sum()), "operations of the device begin before the call that launched them.")
    migrations = (operations.kind == MEMCPY) & (operations.copy_kind >= MIGRATION)
    findings.count("migrations of pages, among the copies", int(migrations.sum()))


def _distinct(rows: Integers) -> tuple[Integers, Integers]:
    """Distinct rows in order, and the place of each row among them."""
    index = np.zeros(len(rows), np.int64)
    for column in rows.T:  # sorting whole rows takes ten times as long
        values = np.unique(column)
        index = index * len(values) + np.searchsorted(values, column)
        index = np.searchsorted(np.unique(index), index)
    first = np.unique(index, return_index=True)[1]
    return rows[first], index


# ---- waits, devices, and what the file says of itself ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Waits:
    """As ``recording.Waits``, but that streams are rows of ``owners``, columns as OWNER."""

    owners: Integers
    stream: Integers
    call: Integers
    after_stream: Integers
    after_call: Integers


def _waits(tables: Tables, calls: Calls, keys: Integers, callers: Integers, findings: Findings) -> _Waits:
    columns = ("globalPid", "deviceId", CONTEXT, "streamId", "correlationId", "eventId", "eventSyncId", "syncType")
    waits, records = tables.rows(SYNCHRONIZATION, columns), tables.rows(EVENT, columns[:-1])
    kinds = _kinds_of_waits(tables)
    waits = waits[np.isin(waits[:, 7], list(kinds))]
    kind = np.array([kinds[number] for number in waits[:, 7].tolist()], np.int64)
    call = caller(keys, callers, waits[:, 0], waits[:, 4])
    maker = caller(keys, callers, records[:, 0], records[:, 4])
    events = np.unique(np.concatenate([key(part[:, 0], part[:, 5]) for part in (waits, records)]))
    event, recorded = (places(events, key(part[:, 0], part[:, 5])) for part in (waits, records))
    record = latest_records((event, call), (recorded, maker))
    named = named_records(waits[:, 6], records[:, 6])
    record = np.where(named >= 0, named, record)
    for_event = np.isin(kind, (HOST_FOR_EVENT, STREAM_FOR_EVENT))
    unknown = for_event & (record < 0)
    findings.count("waits", len(waits))
    findings.count("waits for events without a record: left out", int(unknown.sum()))
    # Rows of both tables are the places: a wait's stream is its row's, and so is the stream that the host waits for.
    row, of_record = np.arange(len(waits)), len(waits) + record
    after = np.select([for_event, kind == HOST_FOR_STREAM], [of_record, row], -1)
    after_call = np.where(for_event & ~unknown, np.append(maker, -1)[record], -1)
    stream = np.where(kind == STREAM_FOR_EVENT, row, -1)
    kept = ~unknown
    used = np.unique(np.concatenate([stream[kept], after[kept], [-1]]))[1:]
    numbers = np.full(len(waits) + len(records) + 1, -1)
    numbers[used] = np.arange(len(used))
    owners = np.concatenate([waits[:, :4], records[:, :4]])[used]
    return _Waits(owners, numbers[stream[kept]], call[kept], numbers[after[kept]], after_call[kept])


def _kinds_of_waits(tables: Tables) -> dict[int, int]:
    """Numbers of kinds of synchronisation to what waits for what."""
    if "ENUM_CUPTI_SYNC_TYPE" not in tables:
        return dict(zip(WAITS.values(), WAITS.values(), strict=True))
    rows = tables.database.execute("SELECT id, name FROM ENUM_CUPTI_SYNC_TYPE").fetchall()
    return {int(number): kind for number, name in rows for ending, kind in WAITS.items() if str(name).endswith(ending)}


def _devices(tables: Tables, owners: Integers) -> dict[int, str]:
    """Names of the devices. Where processes number them differently, they get the machine's numbers.

    Args:
        owners: Columns as OWNER; the device is replaced.
    """
    described = dict(_described(tables, "id", "name"))
    mapped = tables.rows("TARGET_INFO_CUDA_DEVICE", ("pid", "cudaId", "gpuId")).tolist()
    gpus = {(pid, device): gpu for pid, device, gpu in mapped}
    pid, device = owners[:, 0] >> 24 & 0xFFFFFF, owners[:, 1].copy()
    used = sorted(set(zip(pid.tolist(), device.tolist(), strict=True)))
    gpu_of = {pair: gpus.get(pair, gpus.get((-1, pair[1]))) for pair in used}
    pairs = {(number, gpu_of[one, number]) for one, number in used}
    if any(gpu is None for _, gpu in pairs):  # no map, or not of all
        described = dict(_described(tables, "cuDevice", "name")) or described
        return {number: described[number] for number, _ in pairs if number in described}
    if len({number for number, _ in pairs}) < len(pairs) or len({gpu for _, gpu in pairs}) < len(pairs):
        owners[:, 1] = np.array([gpu_of[pair] for pair in zip(pid.tolist(), device.tolist(), strict=True)], np.int64)
        pairs = {(gpu, gpu) for _, gpu in pairs}
    return {number: described[gpu] for number, gpu in pairs if gpu in described}


def _described(tables: Tables, number: str, text: str) -> list[tuple[int, str]]:
    """Number and name of each GPU."""
    if not {number, text} <= tables.columns("TARGET_INFO_GPU"):
        return []
    rows = tables.database.execute(f"SELECT {number}, {text} FROM TARGET_INFO_GPU")
    return [(int(one), str(name)) for one, name in rows if one is not None and name]


def _source(tables: Tables, facts: dict[str, Any] | None, findings: Findings) -> Source:
    lost = _diagnostics(tables, findings)
    for table, many in sorted(tables.left_out.items()):
        what = WHAT.get(table, "ranges" if table == NVTX else "further rows")
        findings.problem(many, f"{what} hold a text, or a number out of all bounds, for a number: left out.")
    counts, lacks = findings.counts, findings.lacks
    if graphs := counts.get(WHAT[OPERATIONS[GRAPH]], 0):
        lacks.append(f"{graphs:,} launches of CUDA graphs are there as a whole, without their kernels.")
    if not counts.get("NVTX ranges"):
        lacks.append("It holds no NVTX ranges.")
    if not counts.get(WHAT[RUNTIME]):
        lacks.append("It holds no CUDA calls.")
    if not any(counts.get(WHAT[table]) for table in OPERATIONS):
        lacks.append("It holds no work of a device.")
    lacks.append("It holds no operators of a framework and no Python functions.")
    if facts is None:
        return Source("nsight-systems", _tool(tables), tuple(lacks), lost, tuple(findings.problems), counts)
    lost = facts.get("dropped", lost)
    return Source("ceilings", facts.get("tool"), tuple(lacks), lost, tuple(findings.problems), counts)


def _tool(tables: Tables) -> str:
    """The exporter and its version: nothing else of what the export says of itself is read."""
    for table in ("META_DATA_EXPORT", "EXPORT_META_DATA"):
        if table in tables:
            query = f"SELECT value FROM {table} WHERE name = 'EXPORT_PRODUCT_VERSION'"
            for (value,) in tables.database.execute(query):
                if version := re.match(r"\d{4}(\.\d+)+", str(value)):
                    return f"Nsight Systems {version[0]}"
    return "Nsight Systems"


def _diagnostics(tables: Tables, findings: Findings) -> int | None:
    """Note what the recorder warns of; how many events it says it lost, None where it does not say."""
    if "text" not in tables.columns(DIAGNOSTICS):
        return None
    messages = [str(text) for (text,) in tables.database.execute(f"SELECT text FROM {DIAGNOSTICS}")]
    for pattern, sentence in WARNINGS.items():
        if any(re.search(pattern, message) for message in messages):
            findings.problems.append(f"{sentence}.")
    lost = [int(match[1]) for message in messages if (match := LOST.search(message))]
    return sum(lost) if lost else None
