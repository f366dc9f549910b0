"""A capture in Chrome's trace format, which ui.perfetto.dev opens: rows of threads and streams, arrows of launches."""

from __future__ import annotations

import re
from typing import Any

from ceilings.traces import calls as kinds
from ceilings.traces.capture import GRAPH, KERNEL, MEMCPY, MEMSET, Capture, Operations
from ceilings.traces.kernel_classes import kernel_class, short

HOST, DEVICE = 1, 2
PRIVATE = ("traceName", "host_name", "distributedInfo")
"""Keys of PyTorch's trace that name the machine and its folders."""

_WHAT = {MEMCPY: ("memcpy", "copy"), MEMSET: ("memset", "copy"), GRAPH: ("CUDA graph", "unknown")}
"""Name and class of what is no kernel."""


def chrome_trace(capture: Capture) -> dict[str, Any]:
    """The trace, times in us from the first record.

    Threads are numbered from 1: the viewer takes a thread 0 for the one that has its process's number.
    """
    calls, operations, marks = capture.calls, capture.operations, capture.marks
    events: list[dict[str, Any]] = [
        _metadata("process_name", HOST, 0, "host"),
        _metadata("process_name", DEVICE, 0, "device"),
    ]
    threads = sorted({int(thread) + 1 for part in (calls, marks) for thread in set(part.thread.tolist())})
    events += [_metadata("thread_name", HOST, thread, f"thread {thread}") for thread in threads]
    lanes = _lanes(operations)
    rows = {lane: number for number, lane in enumerate(sorted(set(lanes)), 1)}
    for (stream, beside), row in rows.items():
        events.append(_metadata("thread_name", DEVICE, row, f"stream {stream}" + ", overlapping" * bool(beside)))
    for number, (start, end, thread) in enumerate(zip(*_lists(marks.start, marks.end, marks.thread), strict=True)):
        events.append(_slice(f"iteration {number}", "iteration", (HOST, thread + 1), start, end))
    names = [kinds.plain(name) for name in capture.names] + ["a call without a name"]
    for start, end, thread, name in zip(*_lists(calls.start, calls.end, calls.thread, calls.name), strict=True):
        events.append(_slice(names[name], kinds.KINDS[kinds.kind(names[name])], (HOST, thread + 1), start, end))
    columns = (operations.start, operations.end, operations.kind, operations.name, operations.call, operations.bytes)
    for number, (start, end, kind, name, call, size) in enumerate(zip(*_lists(*columns), strict=True)):
        if kind == KERNEL:
            full = capture.names[name]
            (shown, what), details = (short(full), kernel_class(full)), {"name": full}
        else:
            (shown, what), details = _WHAT[kind], {"bytes": size} if size else {}
        row = rows[lanes[number]]
        events.append(_slice(shown, what, (DEVICE, row), start, end) | {"args": details})
        if call >= 0:
            # After the slices that they join: the viewer binds an end of an arrow to the slice that is open by then.
            flow = {"name": "launch", "cat": "launch", "id": number}
            begin, thread = int(calls.start[call]), int(calls.thread[call]) + 1
            events.append({**flow, "ph": "s", "pid": HOST, "tid": thread, "ts": begin / 1e3})
            events.append({**flow, "ph": "f", "bp": "e", "pid": DEVICE, "tid": row, "ts": start / 1e3})
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": capture.meta}


def _lanes(operations: Operations) -> list[tuple[int, int]]:
    """Each operation's stream, and its row of that stream's: the first where nothing runs when it begins.

    With programmatic dependent launch a kernel begins before the one ahead of it in its stream has ended, and of two
    slices that overlap on one row the viewer drops one.
    """
    lanes: list[tuple[int, int]] = []
    ends: dict[int, list[int]] = {}
    for start, end, stream in zip(*_lists(operations.start, operations.end, operations.stream), strict=True):
        rows = ends.setdefault(stream, [])
        row = next((row for row, last in enumerate(rows) if last <= start), len(rows))
        rows[row : row + 1] = [end]
        lanes.append((stream, row))
    return lanes


def without_machine(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace of PyTorch's profiler without the names of the host, its paths, the process and its threads."""
    events = [dict(event) for event in trace["traceEvents"]]
    for event in events:
        if event["ph"] == "M" and event["name"] == "process_name":
            event["args"] = {"name": "process"}
        elif event["ph"] == "M" and event["name"] == "thread_name":
            event["args"] = {"name": re.sub(r"\s*\(.*\)", "", event["args"]["name"])}
    return {name: value for name, value in trace.items() if name not in PRIVATE} | {"traceEvents": events}


def _lists(*columns: Any) -> list[list[int]]:
    return [column.tolist() for column in columns]


def _metadata(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _slice(name: str, category: str, row: tuple[int, int], start: int, end: int) -> dict[str, Any]:
    place = {"pid": row[0], "tid": row[1], "ts": start / 1e3, "dur": (end - start) / 1e3}
    return {"ph": "X", "name": name, "cat": category, **place}
