"""What an export of Nsight Systems knows of threads beside CUDA calls: ranges, libraries, blocking calls, itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ceilings.traces.capture import NVTX, Integers
from ceilings.traces.readers.findings import Findings
from ceilings.traces.readers.names import Names
from ceilings.traces.readers.nesting import lanes
from ceilings.traces.recording import FUNCTION, LOADING, OPERATOR, RANGE, Spans, Thread
from ceilings.traces.tables import Tables

PUSH_POP, START_END, DOMAIN = 59, 60, 75
"""Types of NVTX events that are read: the two kinds of ranges, and the name of a domain."""

PLAIN_DOMAINS = ("", "NVTX")
"""Domains whose ranges are called by their text alone: the default one, and that of the Python package nvtx."""

FUNCTIONS = {
    "CUDNN_EVENTS": ("cuDNN calls", OPERATOR),
    "CUBLAS_EVENTS": ("cuBLAS calls", OPERATOR),
    "OSRT_API": ("calls of the operating system", FUNCTION),
    "CUDA_HOST_CALLBACK": ("host functions of streams", FUNCTION),
    "PROFILER_OVERHEAD": ("parts of the profiler", LOADING),
    "CUPTI_ACTIVITY_KIND_OVERHEAD": ("parts of the profiler", LOADING),
}
"""Tables whose rows are spans of a thread, each with a name."""

TABLES = (NVTX, *FUNCTIONS)
BLOCKING = "OSRT_API"


def read(tables: Tables, names: Names, findings: Findings, traced: Integers) -> Integers:
    """A row for each span: start, end, globalTid, name, kind.

    Args:
        traced: Threads with CUDA calls. Blocking calls of threads with neither these nor ranges say nothing here.
    """
    parts = [_ranges(tables, names, findings)]
    interesting = np.union1d(traced, parts[0][:, 2])
    for table, (what, kind) in FUNCTIONS.items():
        rows = findings.sound(tables.rows(table, ("start", "end", "globalTid", "nameId")), what)
        if table == BLOCKING:
            kept = np.isin(rows[:, 2], interesting)
            findings.count(f"{what} on other threads: left out", int((~kept).sum()))
            rows = rows[kept]
        rows[:, 3] = names.numbered(rows[:, 3])
        parts.append(np.column_stack([rows, np.full(len(rows), kind)]))
    return np.concatenate(parts)


def _ranges(tables: Tables, names: Names, findings: Findings) -> Integers:
    """NVTX ranges; one of a named domain is called ``domain:text``."""
    columns = ("start", "end", "globalTid", "textId", "text", "domainId", "eventType")
    read_types = f"WHERE eventType IN ({PUSH_POP}, {START_END}, {DOMAIN})"
    every = tables.rows(NVTX, columns, read_types, names.number)
    is_domain = every[:, 6] == DOMAIN
    rows = findings.sound(every[~is_domain], "NVTX ranges")
    text = np.where(rows[:, 4] >= 0, rows[:, 4], names.numbered(rows[:, 3]))
    for name, process, domain in _domains(every[is_domain], names):
        inside = (rows[:, 5] == domain) & (rows[:, 2] >> 24 == process)
        for number in np.unique(text[inside]).tolist():
            text[inside & (text == number)] = names.number(f"{name}:{names.texts()[number]}")
    return np.column_stack([rows[:, :3], text, np.full(len(rows), RANGE)])


def _domains(rows: Integers, names: Names) -> list[tuple[str, int, int]]:
    """Name, process and number of each domain that is to be named."""
    text = np.where(rows[:, 4] >= 0, rows[:, 4], names.numbered(rows[:, 3]))
    named = [(names.texts()[number], int(row[2]) >> 24, int(row[5])) for number, row in zip(text, rows, strict=True)]
    return [domain for domain in named if domain[0] not in PLAIN_DOMAINS]


def nested(spans: Integers, threads: Integers, processes: Sequence[int]) -> tuple[tuple[Thread, ...], Spans]:
    """The threads, and the spans on them.

    Ranges that begin and end on their own (``nvtxRangeStart``) may cross others: these lie on threads that stand for
    none, behind the real ones.

    Args:
        spans: Of :func:`read`.
        threads: Ascending ``globalTid`` of all threads.
        processes: Number of the process of each.
    """
    start, end, tid, name, kind = spans.T
    order, lane = lanes(start, end, tid)
    several = len(set(processes)) > 1
    numbers = np.arange(len(threads)) - np.searchsorted(processes, processes)
    labels = [
        (f"process {process}, " if several else "") + f"thread {number}"
        for process, number in zip(processes, numbers.tolist(), strict=True)
    ]
    made = [Thread(process, label) for process, label in zip(processes, labels, strict=True)]
    thread = np.searchsorted(threads, tid)
    further, place = np.unique(np.column_stack([thread, lane])[lane > 0], axis=0, return_inverse=True)
    made += [Thread(processes[at], f"{labels[at]}, ranges across others {beside}") for at, beside in further.tolist()]
    thread[lane > 0] = len(threads) + place.reshape(-1)
    order = order[np.argsort(start[order], kind="stable")]
    return tuple(made), Spans(start[order], end[order], thread[order], name[order], kind[order])
