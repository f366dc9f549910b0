"""A capture in Chrome's trace format, which ui.perfetto.dev opens: rows of threads and streams, arrows of launches."""

from __future__ import annotations

import re
from typing import Any

from ceilings.traces import calls as kinds
from ceilings.traces.capture import GRAPH, KERNEL, MEMCPY, MEMSET, Capture
from ceilings.traces.kernels import kernel_class, short

HOST, DEVICE = 1, 2
PRIVATE = ("traceName", "host_name", "distributedInfo")
"""Keys of PyTorch's own trace that tell of the machine and its folders."""

_WHAT = {MEMCPY: "memcpy", MEMSET: "memset", GRAPH: "CUDA graph"}


def chrome_trace(capture: Capture) -> dict[str, Any]:
    """The trace, times in us from the first record."""
    calls, operations, marks = capture.calls, capture.operations, capture.marks
    events: list[dict[str, Any]] = [
        _metadata("process_name", HOST, 0, "host"),
        _metadata("process_name", DEVICE, 0, "device"),
    ]
    threads = {int(thread) for part in (calls, marks) for thread in set(part.thread.tolist())}
    events += [_metadata("thread_name", HOST, thread, f"thread {thread}") for thread in sorted(threads)]
    streams = sorted(set(operations.stream.tolist()))
    events += [_metadata("thread_name", DEVICE, stream, f"stream {stream}") for stream in streams]
    for number, (start, end, thread) in enumerate(zip(*_lists(marks.start, marks.end, marks.thread), strict=True)):
        events.append(_slice(f"iteration {number}", "iteration", (HOST, thread), start, end))
    names = [kinds.plain(name) for name in capture.names] + ["a call without a name"]
    for start, end, thread, name in zip(*_lists(calls.start, calls.end, calls.thread, calls.name), strict=True):
        events.append(_slice(names[name], kinds.KINDS[kinds.kind(names[name])], (HOST, thread), start, end))
    columns = (operations.start, operations.end, operations.stream, operations.kind, operations.name, operations.call)
    sizes = operations.bytes.tolist()
    for number, (start, end, stream, kind, name, call) in enumerate(zip(*_lists(*columns), strict=True)):
        full = capture.names[name] if kind == KERNEL else _WHAT[kind]
        what = kernel_class(full) if kind == KERNEL else "copy"
        shown = short(full) if kind == KERNEL else full
        details = {"name": full} if kind == KERNEL else {"bytes": sizes[number]}
        events.append(_slice(shown, what, (DEVICE, stream), start, end) | {"args": details})
        if call >= 0:
            flow = {"name": "launch", "cat": "launch", "id": number}
            begin, thread = int(calls.start[call]), int(calls.thread[call])
            events.append({**flow, "ph": "s", "pid": HOST, "tid": thread, "ts": begin / 1e3})
            events.append({**flow, "ph": "f", "bp": "e", "pid": DEVICE, "tid": stream, "ts": start / 1e3})
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": capture.meta}


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
