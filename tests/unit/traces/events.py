"""Captures made by hand, whose account can be computed by hand."""

# An event is all of its fields, and a line of them reads best.
# ruff: noqa: PLR0917

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from ceilings.traces import capture, store
from ceilings.traces.capture import COLUMNS, GRAPH, KERNEL, MEMCPY, MEMSET, NVTX, OPERATIONS, RUNTIME, STRINGS

PROCESS = 4711 << 24
MAIN = 1
SECRETS = ("HOME=/root/secret", "host-of-mine", "python3 program.py", "worker-thread-name")


class Events:
    """Events in us from 1,000,000 us on, of ``process`` and in ``context``; each call gets a correlation."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple]] = {table: [] for table in COLUMNS}
        self.names: dict[str, int] = {}
        self.zero = 1_000_000
        self.process = PROCESS
        self.context = 1

    def call(
        self, start: float, end: float, name: str, thread: int = MAIN, correlation: int = 0, status: int = 0
    ) -> int:
        number = correlation or 100 + len(self.rows[RUNTIME])
        span = self._span(start, end)
        self.rows[RUNTIME].append((*span, self.process + thread, number, self._name(name), status))
        return number

    def kernel(
        self,
        correlation: int,
        start: float,
        end: float,
        name: str = "gemm",
        stream: int = 7,
        node: int = 0,
        device: int = 0,
    ):
        self.rows[OPERATIONS[KERNEL]].append(
            (*self._span(start, end), device, stream, *self._launched(correlation), node, self._name(name))
        )

    def copy(
        self, correlation: int, start: float, end: float, kind: int = 2, node: int = 0, size: int = 64, stream: int = 7
    ):
        self.rows[OPERATIONS[MEMCPY]].append(
            (*self._span(start, end), 0, stream, *self._launched(correlation), node, size, kind)
        )

    def fill(self, correlation: int, start: float, end: float):
        self.rows[OPERATIONS[MEMSET]].append((*self._span(start, end), 0, 7, *self._launched(correlation), 0, 64))

    def graph(self, correlation: int, start: float, end: float):
        self.rows[OPERATIONS[GRAPH]].append((*self._span(start, end), 0, 7, *self._launched(correlation)))

    def launch(
        self, start: float, end: float, *kernels: tuple, name: str = "cudaLaunchKernel_v7000", thread: int = MAIN
    ) -> int:
        correlation = self.call(start, end, name, thread)
        for kernel in kernels:
            self.kernel(correlation, *kernel)
        return correlation

    def mark(self, start: float, end: float, thread: int = MAIN, text: str = capture.ITERATION):
        self.rows[NVTX].append((*self._span(start, end), self.process + thread, store.PUSH_POP, text, None))

    def capture(self, **meta) -> capture.Capture:
        arrays = {
            table: np.array(self.rows[table], np.int64).reshape(-1, len(COLUMNS[table]))
            for table in (RUNTIME, *OPERATIONS)
        }
        ranges = [(*row[:3], row[4]) for row in self.rows[NVTX]]
        strings = {number: name for name, number in self.names.items()}
        return capture.assemble(arrays, strings, ranges, {"source": "cupti", **meta}, "test")

    def export(self, path: Path, without: tuple[str, ...] = (), older: dict[str, str] | None = None) -> Path:
        """As ``nsys export`` writes it: more columns and tables than are read, and secrets in them.

        Args:
            without: Tables that are left out.
            older: Table to a column that it lacks.
        """
        rows = {**self.rows, STRINGS: [(number, name) for name, number in self.names.items()]}
        rows[STRINGS] += [(900 + k, secret) for k, secret in enumerate(SECRETS)]
        with sqlite3.connect(path) as database:
            for table, columns in COLUMNS.items():
                if table in without:
                    continue
                left = (older or {}).get(table)
                kept = [place for place, column in enumerate(columns) if column != left]
                names = ", ".join(f'"{columns[place]}"' for place in kept)
                database.execute(f"CREATE TABLE {table} ({names}, further)")
                values = [(*(row[place] for place in kept), SECRETS[0]) for row in rows[table]]
                database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * (len(kept) + 1))})", values)
            database.execute("CREATE TABLE PROCESSES (name)")
            database.executemany("INSERT INTO PROCESSES VALUES (?)", [(secret,) for secret in SECRETS])
        return path

    def _span(self, start: float, end: float) -> tuple[int, int]:
        return round((self.zero + start) * 1000), round((self.zero + end) * 1000)

    def _launched(self, correlation: int) -> tuple[int, int, int]:
        return correlation, self.process, self.context

    def _name(self, name: str) -> int:
        return self.names.setdefault(name, 10 + len(self.names))
