"""Recordings made by hand, whose account can be computed by hand; times in us."""

# An event is all of its fields, and a line of them reads best.
# ruff: noqa: PLR0917

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ceilings.traces.capture import KERNEL, MEMCPY, Calls
from ceilings.traces.explained.account import Accounted, Accounts
from ceilings.traces.recording import OPERATOR, Recording, Source, Spans, Stream, Thread, Waits, Work

US = 1_000


@dataclasses.dataclass
class Built:
    """Events of a recording; a call is known by its number in the order in which it was made."""

    calls: list[list[int]] = dataclasses.field(default_factory=list)
    work: list[list[Any]] = dataclasses.field(default_factory=list)
    spans: list[list[int]] = dataclasses.field(default_factory=list)
    waits: list[list[int]] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    threads: list[Thread] = dataclasses.field(default_factory=lambda: [Thread(0, f"thread {k}") for k in (1, 2)])
    streams: list[Stream] = dataclasses.field(default_factory=lambda: [Stream(0, 0, 0, 7), Stream(0, 0, 0, 20)])
    source: dict[str, Any] = dataclasses.field(default_factory=dict)

    def _name(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def call(self, start: float, end: float, name: str = "cudaLaunchKernel", thread: int = 0) -> int:
        self.calls.append([round(start * US), round(end * US), thread, self._name(name)])
        return len(self.calls) - 1

    def ran(
        self, call: int, start: float, end: float, name: str | None = "gemm", stream: int = 0, copy: int = 0
    ) -> None:
        """Work of a call (-1: of none that is recorded); without a name a copy."""
        kind = MEMCPY if name is None else KERNEL
        number = -1 if name is None else self._name(name)
        device = self.streams[stream].device
        self.work.append([round(start * US), round(end * US), stream, kind, number, call, copy, device])

    def launch(self, start: float, end: float, *ran: tuple[Any, ...], thread: int = 0, name: str = "cudaLaunchKernel"):
        """A call and its work: start, end, and what else ``ran`` takes."""
        call = self.call(start, end, name, thread)
        for one in ran:
            self.ran(call, *one)
        return call

    def copy(self, start: float, end: float, ran: tuple[float, float], kind: int, stream: int = 0, thread: int = 0):
        call = self.call(start, end, "cudaMemcpyAsync", thread)
        self.ran(call, *ran, None, stream, kind)
        return call

    def wait(self, start: float, end: float, thread: int = 0, name: str = "cudaDeviceSynchronize") -> int:
        return self.call(start, end, name, thread)

    def span(self, start: float, end: float, name: str, thread: int = 0, kind: int = OPERATOR) -> None:
        self.spans.append([round(start * US), round(end * US), thread, self._name(name), kind])

    def recording(self) -> Recording:
        """All of it, in the order of time."""
        order = sorted(range(len(self.calls)), key=lambda k: self.calls[k][0])
        place = {number: k for k, number in enumerate(order)} | {-1: -1}
        calls = np.array([self.calls[k] for k in order], np.int64).reshape(-1, 4).T
        work = np.array(sorted(self.work), np.int64).reshape(-1, 8).T
        spans = np.array(sorted(self.spans), np.int64).reshape(-1, 5).T
        rows = [[stream, place[call], after, place[source]] for stream, call, after, source in self.waits]
        facts = {"format": "pytorch-profiler", "tool": None, "lacks": (), "dropped": None, "problems": (), "counts": {}}
        return Recording(
            calls=Calls(*calls, np.zeros(len(calls[0]), bool)),
            work=Work(
                start=work[0],
                end=work[1],
                stream=work[2],
                kind=work[3],
                name=work[4],
                call=np.array([place[int(call)] for call in work[5]], np.int64),
                node=np.zeros(len(work[0]), bool),
                bytes=np.where(work[3] == MEMCPY, 4096, 0),
                copy_kind=work[6],
                device=work[7],
            ),
            spans=Spans(*spans),
            waits=Waits(*np.array(rows, np.int64).reshape(-1, 4).T),
            threads=tuple(self.threads),
            streams=tuple(self.streams),
            names=tuple(self.names),
            device_names={0: "NVIDIA H100 80GB HBM3"},
            source=Source(**(facts | self.source)),
        )

    def account(self, begin: float, end: float, thread: int = 0) -> Accounted:
        return Accounts(self.recording()).of(round(begin * US), round(end * US), thread)


@dataclasses.dataclass(frozen=True)
class Alike:
    """A group of iterations."""

    label: str
    count: int
    trend: str | None = None


@dataclasses.dataclass(frozen=True)
class Plain:
    """Iterations as a plain list of begin and end in us: one thread, one group."""

    spans: list[tuple[float, float]]
    waiting: int = 0
    by: str = "range"
    name: str | None = "step"
    certainty: float = 1.0
    why: str = "A range marks them."
    overlapping: bool = False
    notes: tuple[str, ...] = ()
    others: tuple[Any, ...] = ()

    @property
    def begin(self) -> np.ndarray:
        return np.array([round(begin * US) for begin, _ in self.spans], np.int64)

    @property
    def end(self) -> np.ndarray:
        return np.array([round(end * US) for _, end in self.spans], np.int64)

    @property
    def thread(self) -> np.ndarray:
        return np.full(len(self.spans), self.waiting, np.int64)

    @property
    def group(self) -> np.ndarray:
        return np.zeros(len(self.spans), np.int64)

    @property
    def groups(self) -> tuple[Alike, ...]:
        return (Alike("all", len(self.spans)),)

    @property
    def inside_ns(self) -> int:
        return int((self.end - self.begin).sum())

    @property
    def between_ns(self) -> int:
        return int(self.end[-1] - self.begin[0]) - self.inside_ns
