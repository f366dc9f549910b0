"""Recordings made from captures of this project, and by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ceilings.traces.capture import ITERATION, KERNEL, Calls, Capture
from ceilings.traces.recording import RANGE, Recording, Source, Spans, Stream, Thread, Waits, Work


def source() -> Source:
    """Where nothing is missing."""
    return Source("ceilings", None, (), 0, (), {})


def waits() -> Waits:
    """No dependencies between streams."""
    none = np.empty(0, np.int64)
    return Waits(none, none, none, none)


def spans(entries: Sequence[tuple[int, int, int, int, int]]) -> Spans:
    """Of start, end, thread, name and kind of each."""
    columns = np.array(sorted(entries), np.int64).reshape(-1, 5).T
    return Spans(*columns)


def of_capture(capture: Capture, marks: bool) -> Recording:
    """A capture as a recording, with its iterations marked or not."""
    operations, names = capture.operations, list(capture.names)
    entries = []
    if marks:
        names.append(ITERATION)
        for start, end, thread in zip(capture.marks.start, capture.marks.end, capture.marks.thread, strict=True):
            entries.append((int(start), int(end), int(thread), len(names) - 1, RANGE))
    threads = int(max(capture.calls.thread.max(initial=0), capture.marks.thread.max(initial=0))) + 1
    numbers, stream = np.unique(operations.stream, return_inverse=True)
    columns = {
        name: getattr(operations, name)
        for name in ("start", "end", "kind", "name", "call", "node", "bytes", "copy_kind")
    }
    return Recording(
        calls=capture.calls,
        work=Work(**columns, stream=stream, device=np.zeros(len(stream), np.int64)),
        spans=spans(entries),
        waits=waits(),
        threads=tuple(Thread(0, f"thread {number + 1}") for number in range(threads)),
        streams=tuple(Stream(0, 0, 1, int(number)) for number in numbers),
        names=tuple(names),
        device_names={},
        source=source(),
    )


class Maker:
    """Makes a recording call by call; times in us, kept in ns.

    Attributes:
        label: What ``bytes`` of the operations that follow holds: the iteration that they truly are of.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int, int]] = []
        self.work: list[tuple[int, ...]] = []
        self.entries: list[tuple[int, int, int, int, int]] = []
        self.names: dict[str, int] = {}
        self.label = 0

    def name(self, text: str) -> int:
        """The number of a name."""
        return self.names.setdefault(text, len(self.names))

    def call(self, start: float, end: float, name: str, thread: int = 0) -> int:
        """A call; its number."""
        self.calls.append((round(start * 1000), round(end * 1000), thread, self.name(name)))
        return len(self.calls) - 1

    def operation(
        self, start: float, end: float, call: int, kind: int = KERNEL, *, name: str = "", copy: int = 0, stream: int = 0
    ) -> None:
        """Something on the device."""
        number = self.name(name) if name else -1
        self.work.append((round(start * 1000), round(end * 1000), stream, kind, number, call, copy, self.label))

    def range(self, start: float, end: float, text: str, thread: int = 0, kind: int = RANGE) -> None:
        """A range on a thread."""
        self.entries.append((round(start * 1000), round(end * 1000), thread, self.name(text), kind))

    def recording(
        self, processes: Sequence[int] = (0,), streams: Sequence[Stream] = (Stream(0, 0, 1, 7),)
    ) -> Recording:
        """All of it; ``processes``: of each thread."""
        calls = np.array(self.calls, np.int64).reshape(-1, 4)
        order = np.argsort(calls[:, 0], kind="stable")
        rank = np.empty(len(order) + 1, np.int64)
        rank[order], rank[-1] = np.arange(len(order)), -1
        start, end, thread, name = calls[order].T
        work = np.array(self.work, np.int64).reshape(-1, 8)
        begin, finish, stream, kind, number, call, copy, label = work[np.lexsort((work[:, 1], work[:, 0]))].T
        device = np.array([one.device for one in streams], np.int64)[stream]
        none = np.zeros(len(begin), bool)
        return Recording(
            calls=Calls(start, end, thread, name, np.zeros(len(start), bool)),
            work=Work(begin, finish, stream, kind, number, rank[call], none, label, copy, device=device),
            spans=spans(self.entries),
            waits=waits(),
            threads=tuple(Thread(process, f"thread {k + 1}") for k, process in enumerate(processes)),
            streams=tuple(streams),
            names=tuple(self.names),
            device_names={},
            source=source(),
        )
