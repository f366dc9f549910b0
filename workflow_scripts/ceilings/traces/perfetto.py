"""A recording in Chrome's trace format, which ui.perfetto.dev opens: rows of threads and streams, arrows of launches.

Of two slices of one row that cross, the viewer drops one. So what crosses lies on a row beside.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ceilings import foreign
from ceilings.files import atomic
from ceilings.traces import calls as kinds
from ceilings.traces.capture import GRAPH, KERNEL, MEMCPY, MEMSET, Integers
from ceilings.traces.kernel_classes import kernel_class, short
from ceilings.traces.readers.nesting import lanes
from ceilings.traces.recording import Recording

Segment = tuple[int, int, str]
"""Begin and end in ns, and a label."""

PRIVATE = ("traceName", "host_name", "distributedInfo")
"""Keys of PyTorch's trace that name the machine and its folders."""

SPAN_KINDS = ("range", "operator", "function", "profiler")
"""Categories of the kinds of spans, in their order."""

_WHAT = {MEMCPY: ("memcpy", "copy"), MEMSET: ("memset", "copy"), GRAPH: ("CUDA graph", "unknown")}
"""Name and class of what is no kernel."""

_CHUNK = 50_000
_LONGEST = 200


def write(
    output: Path | str,
    recording: Recording,
    between: Sequence[tuple[int, int]] = (),
    path: Iterable[Segment] = (),
) -> None:
    """Write the trace, event by event: memory does not grow with it.

    Args:
        between: Iterations, begin and end in ns; only what runs during one of them is written. Without any, all is.
        path: Segments of the critical path.
    """
    with atomic(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
        writer = _Writer(file)
        steps = [(begin, end, f"iteration {number}") for number, (begin, end) in enumerate(between)]
        _summary(writer, {"critical path": list(path), "iterations": steps})
        rows = _host(writer, recording, between)
        _devices(writer, recording, between, rows)
        about = {"format": recording.source.format, "tool": recording.source.tool}
        file.write(f'\n], "otherData": {json.dumps(about)}}}\n')


@dataclasses.dataclass
class Rows:
    """Rows of threads, and of each call the index of its row; -1 for one that is not written."""

    made: list[tuple[int, int]]
    of_call: Integers


@dataclasses.dataclass
class _Writer:
    """Writes events, a comma between two of them; gives out numbers of processes and rows."""

    file: TextIO
    processes: int = 0
    empty: bool = True

    def event(self, text: str) -> None:
        self.file.write(text if self.empty else f",\n{text}")
        self.empty = False

    def process(self, name: str) -> int:
        """The number of a new process."""
        self.processes += 1
        self._name("process_name", self.processes, 0, name)
        self.event(
            f'{{"ph":"M","name":"process_sort_index","pid":{self.processes},"tid":0,'
            f'"args":{{"sort_index":{self.processes}}}}}'
        )
        return self.processes

    def row(self, process: int, number: int, name: str) -> tuple[int, int]:
        """A row of a process; the viewer takes number 0 for the one that has its process's number."""
        self._name("thread_name", process, number, name)
        return process, number

    def _name(self, what: str, process: int, row: int, name: str) -> None:
        self.event(f'{{"ph":"M","name":"{what}","pid":{process},"tid":{row},"args":{{"name":{json.dumps(name)}}}}}')

    def slice(self, row: tuple[int, int], start: int, end: int, label: str, further: str = "") -> None:
        """A slice of a row; ``label`` is JSON of its name and category, ``further`` of more."""
        self.event(
            f'{{"ph":"X",{label},"pid":{row[0]},"tid":{row[1]},"ts":{_us(start)},"dur":{_us(end - start)}{further}}}'
        )

    def arrow(self, number: int, out_of: tuple[tuple[int, int], int], into: tuple[tuple[int, int], int]) -> None:
        """An arrow from a row at a time to another. The viewer binds its ends to the slices that are open by then."""
        for phase, (row, time) in (('"s"', out_of), ('"f","bp":"e"', into)):
            self.event(
                f'{{"ph":{phase},"name":"launch","cat":"launch","id":{number},"pid":{row[0]},"tid":{row[1]},'
                f'"ts":{_us(time)}}}'
            )


def _us(ns: int) -> str:
    """Microseconds and a fifth of a nanosecond: exact for viewers that round to ns, and for those that cut off."""
    return f"{ns // 1000}.{ns % 1000:03d}2"


def _label(name: str, category: str) -> str:
    return f'"name":{json.dumps(foreign.one_line(name, _LONGEST) or "(no name)")},"cat":"{category}"'


def _beside(word: str, number: int) -> str:
    """What follows the name of a row beside another: nothing for the first."""
    return "" if not number else f", {word}" if number == 1 else f", {word} {number}"


def _during(start: Integers, end: Integers, between: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
    """Places of what runs during one of some intervals; all of them without any."""
    if not between:
        return np.arange(len(start))
    kept = np.zeros(len(start), bool)
    for begin, finish in between:
        kept |= (start < finish) & (end > begin)
    return np.flatnonzero(kept)


def _summary(writer: _Writer, tracks: dict[str, list[Segment]]) -> None:
    """Rows above all others: the critical path, and the iterations."""
    if not any(tracks.values()):
        return
    process = writer.process("summary")
    row = 0
    for name, segments in tracks.items():
        columns = np.array([segment[:2] for segment in segments], np.int64).reshape(-1, 2)
        order, lane = lanes(columns[:, 0], columns[:, 1], np.zeros(len(segments), np.int64))
        for beside in range(int(lane.max(initial=-1)) + 1):
            row += 1
            place = writer.row(process, row, name + _beside("beside", beside))
            for number in order[lane[order] == beside].tolist():
                begin, end, label = segments[number]
                writer.slice(place, begin, end, _label(label, name.replace(" ", "-")))


def _host(writer: _Writer, recording: Recording, between: Sequence[tuple[int, int]]) -> Rows:
    """Threads with their calls and spans; the row of each call that is written."""
    calls, spans = recording.calls, recording.spans
    of_calls, of_spans = (_during(part.start, part.end, between) for part in (calls, spans))
    names = [kinds.plain(name) for name in recording.names] + ["a call without a name"]
    labels = [_label(name, kinds.KINDS[kinds.kind(name)]) for name in names]
    several = len({thread.process for thread in recording.threads}) > 1
    host: dict[int, int] = {}
    rows = Rows([], np.full(len(calls.start), -1, np.int64))
    used = np.union1d(calls.thread[of_calls], spans.thread[of_spans]).tolist()
    number = 0
    for thread in used:
        about = recording.threads[thread]
        if about.process not in host:
            host[about.process] = writer.process(f"process {about.process}" if several else "host")
        mine, beside = of_calls[calls.thread[of_calls] == thread], of_spans[spans.thread[of_spans] == thread]
        start = np.concatenate([spans.start[beside], calls.start[mine]])  # of two alike the span is the outer one
        end = np.concatenate([spans.end[beside], calls.end[mine]])
        order, lane = lanes(start, end, np.zeros(len(start), np.int64))
        inside = lane[order]
        for crossing in range(int(lane.max(initial=0)) + 1):
            number += 1
            label = about.label.rpartition(", ")[2] if several else about.label
            row = writer.row(host[about.process], number, label + _beside("across others", crossing))
            places = order[inside == crossing]
            rows.of_call[mine[places[places >= len(beside)] - len(beside)]] = len(rows.made)
            rows.made.append(row)
            for place in _chunked(places):
                if place < len(beside):
                    span = beside[place]
                    label = _label(recording.names[spans.name[span]], SPAN_KINDS[spans.kind[span]])
                    writer.slice(row, int(spans.start[span]), int(spans.end[span]), label)
                else:
                    call = mine[place - len(beside)]
                    writer.slice(row, int(calls.start[call]), int(calls.end[call]), labels[calls.name[call]])
    return rows


def _chunked(values: Integers) -> Iterator[int]:
    """Values one by one, not all of them as objects at once."""
    for first in range(0, len(values), _CHUNK):
        yield from values[first : first + _CHUNK].tolist()


def _devices(writer: _Writer, recording: Recording, between: Sequence[tuple[int, int]], threads: Rows) -> None:
    """Streams of each device, and arrows from the calls that launched what runs there."""
    work, calls = recording.work, recording.calls
    chosen = _during(work.start, work.end, between)
    labels: dict[tuple[int, int], str] = {}
    devices: dict[int, int] = {}
    numbers: dict[int, int] = {}
    for index in np.unique(work.stream[chosen]).tolist():
        stream = recording.streams[index]
        name = recording.device_names.get(stream.device)
        if stream.device not in devices:
            devices[stream.device] = writer.process(
                f"device {stream.device}" + (f", {foreign.one_line(name, _LONGEST)}" if name else "")
            )
        of_stream = chosen[work.stream[chosen] == index]
        lane = _lanes(work.start[of_stream], work.end[of_stream])
        alike = [other for other in recording.streams if (other.device, other.number) == (stream.device, stream.number)]
        shown = f"stream {stream.number}"
        if len({other.process for other in alike}) > 1:
            shown += f" of process {stream.process}"
        if len({other.context for other in alike if other.process == stream.process}) > 1:
            shown += f" in context {stream.context}"
        for beside in range(int(lane.max(initial=0)) + 1):
            numbers[stream.device] = numbers.get(stream.device, 0) + 1
            row = writer.row(devices[stream.device], numbers[stream.device], shown + _beside("overlapping", beside))
            for place in _chunked(of_stream[lane == beside]):
                kind, number = int(work.kind[place]), int(work.name[place])
                if (kind, number) not in labels:
                    labels[kind, number] = _operation(kind, recording.names[number] if number >= 0 else "(no name)")
                size = int(work.bytes[place])
                begin, end = int(work.start[place]), int(work.end[place])
                further = f',"args":{{"bytes":{size}}}' if size and kind != KERNEL else ""
                writer.slice(row, begin, end, labels[kind, number], further)
                call = int(work.call[place])
                if call >= 0 and (made := threads.of_call[call]) >= 0:
                    writer.arrow(place, (threads.made[made], int(calls.start[call])), (row, begin))


def _operation(kind: int, name: str) -> str:
    """Name, category and, of a kernel, the full name."""
    if kind == KERNEL:
        full = json.dumps(foreign.one_line(name))
        return f'{_label(short(name), kernel_class(name))},"args":{{"name":{full}}}'
    return _label(*_WHAT[kind])


def _lanes(start: Integers, end: Integers) -> Integers:
    """Of each operation of a stream its row: the first where nothing runs when it begins.

    With programmatic dependent launch a kernel begins before the one ahead of it in its stream has ended.
    """
    lane = np.zeros(len(start), np.int64)
    if (start[1:] >= np.maximum.accumulate(end)[:-1]).all():
        return lane
    ends: list[int] = []
    for place, (begin, finish) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        row = next((row for row, last in enumerate(ends) if last <= begin), len(ends))
        ends[row : row + 1] = [finish]
        lane[place] = row
    return lane


def without_machine(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace of PyTorch's profiler without the names of the host, its paths, the process and its threads."""
    events = [dict(event) for event in trace["traceEvents"]]
    for event in events:
        if event["ph"] == "M" and event["name"] == "process_name":
            event["args"] = {"name": "process"}
        elif event["ph"] == "M" and event["name"] == "thread_name":
            event["args"] = {"name": re.sub(r"\s*\(.*\)", "", event["args"]["name"])}
    return {name: value for name, value in trace.items() if name not in PRIVATE} | {"traceEvents": events}
