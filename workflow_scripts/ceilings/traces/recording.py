"""A trace of any program in memory: all its processes, threads, devices and streams.

A :class:`ceilings.traces.capture.Capture` is the closed loop of one process on one device, as this project records it.
A recording is what others made: each reader of ``ceilings.traces.readers`` returns one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.capture import Calls, Operations

Integers = NDArray[np.int64]

Progress = Callable[[float], None]
"""What a reader calls with the share of the file that it has read, 0 to 1."""

RANGE, OPERATOR, FUNCTION, LOADING = range(4)
"""Kinds of spans: a range that a program or its user marks (NVTX, ``record_function``, ``ProfilerStep#3``); an operator
of a framework (``aten::mm``); a function of the program (Python's call stack); a part of the profiler itself."""

AMBIGUOUS = "could be of several processes"
"""Words of a problem of a source: the call of some work is not certain, so all that rests on launches is in doubt."""

CUT = "before its events do"
"""Words of a problem of a source: a part of the file is not there."""


@dataclasses.dataclass(frozen=True)
class Thread:
    """A thread of the host, or what stands for one.

    Attributes:
        process: Number of its process in the recording, from 0.
        label: How pages call it: ``thread 2``, and ``process 1, thread 2`` where there are several processes. No names
            from the trace.
    """

    process: int
    label: str


@dataclasses.dataclass(frozen=True)
class Stream:
    """A stream of a device.

    Attributes:
        process: Number of the process that it belongs to; -1 where the trace does not say.
        device: The device's number as the trace gives it.
        context: CUDA context, -1 where the trace does not say.
        number: The stream's number as the trace gives it.
    """

    process: int
    device: int
    context: int
    number: int


@dataclasses.dataclass(frozen=True)
class Work(Operations):
    """Operations of all devices, by start. ``stream`` is an index into the recording's streams.

    Attributes:
        device: Of each operation, the device's number as the trace gives it.
        pageable: Of each operation, whether it copies from or to pageable memory of the host; None where the trace does
            not say.
    """

    device: Integers
    pageable: NDArray[np.bool_] | None = None


@dataclasses.dataclass(frozen=True)
class Spans:
    """What a program did on its threads beside CUDA calls, by start; spans of one thread are nested.

    Attributes:
        start, end: In ns.
        thread: Index into the recording's threads.
        name: Index into the recording's names.
        kind: RANGE, OPERATOR, FUNCTION or LOADING.
    """

    start: Integers
    end: Integers
    thread: Integers
    name: Integers
    kind: Integers


@dataclasses.dataclass(frozen=True)
class Waits:
    """What the trace says to wait for work: a stream, for an event of another stream, or the host.

    Attributes:
        stream: Index of the stream that waits; -1 where the host waits, within ``call``.
        call: Index of the call that made it wait; -1 where unknown. What is launched to the stream after it waits.
        after_stream: Index of the stream in which the event was recorded, or that the host waits for; -1 where the host
            waits for all streams of a device.
        after_call: Index of the call that recorded the event; -1 where unknown. What was launched to the stream before
            it is waited for.
    """

    stream: Integers
    call: Integers
    after_stream: Integers
    after_call: Integers


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a recording comes from, and what it cannot tell.

    Attributes:
        format: ``nsight-systems``, ``pytorch-profiler``, ``ceilings`` (a kept capture of this project).
        tool: The recorder and its version, where the file says so.
        lacks: One sentence for each thing that the file cannot tell: "It holds no event dependencies between streams."
        dropped: Records that the recorder says it lost; None where the file does not say.
        problems: One sentence for each thing that is wrong with the file: events without an end, that end before they
            begin, that refer to a call that is not there, clocks that do not fit. Counted, never silently left out.
        counts: Events of the file by what became of them; those that were left out among them.
    """

    format: str
    tool: str | None
    lacks: tuple[str, ...]
    dropped: int | None
    problems: tuple[str, ...]
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Recording:
    """What was recorded. All times are in ns since the first record, exact to the trace's last digit.

    Attributes:
        calls: CUDA (or HIP) calls of all threads, outermost only, by start; ``thread`` is an index into ``threads``.
        work: What ran on the devices; ``work.call`` is the index of the launching call, -1 where the trace has none.
        spans: Ranges, operators and functions.
        waits: Dependencies between streams, as far as the trace says them.
        threads, streams, names: What the indices mean. A name is as the trace has it: whoever shows it makes it
            harmless.
        device_names: Name of each device that the trace describes ("NVIDIA H100 80GB HBM3").
        source: Where it comes from.
    """

    calls: Calls
    work: Work
    spans: Spans
    waits: Waits
    threads: tuple[Thread, ...]
    streams: tuple[Stream, ...]
    names: tuple[str, ...]
    device_names: dict[int, str]
    source: Source
