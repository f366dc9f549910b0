"""Traces as PyTorch's profiler writes them, made by hand, whose content is known."""

# An event is all of its fields, and a line of them reads best.
# ruff: noqa: PLR0917

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

PID, TID = 4711, 4712
SECRETS = ("/home/bob/secret", "host-of-mine", "bob", "/home/bob")
BASE_US = 1_700_000_000_000_000
"""Of 2023: a double is off by a quarter of a microsecond there."""


class Trace:
    """Events with times in ns from a base in 2023, written with three digits behind the microseconds."""

    def __init__(self, device: int = 0, pid: Any = PID) -> None:
        self.events: list[dict[str, Any]] = []
        self.beside: dict[str, Any] = {
            "schemaVersion": 1,
            "deviceProperties": [{"id": device, "name": "NVIDIA H100 80GB HBM3", "totalGlobalMem": 1}],
            "distributedInfo": {"backend": "nccl", "rank": 3, "world_size": 8, "hostname": SECRETS[1]},
            "host_name": SECRETS[1],
            "username": SECRETS[2],
            "env": {"HOME": SECRETS[3]},
        }
        self.device, self.pid = device, pid

    def call(self, start: int, end: int, name: str, correlation: int, **more: Any) -> None:
        self._add("cuda_runtime", start, end, name, {"correlation": correlation, "cbid": 211}, more)

    def kernel(self, start: int, end: int, name: str, correlation: int, stream: int = 7, **more: Any) -> None:
        self._device("kernel", start, end, name, correlation, stream, {"grid": [1, 2, 3]}, more)

    def copy(self, start: int, end: int, name: str, correlation: int, size: int = 64, stream: int = 7) -> None:
        self._device("gpu_memcpy", start, end, name, correlation, stream, {"bytes": size}, {})

    def fill(self, start: int, end: int, correlation: int) -> None:
        self._device("gpu_memset", start, end, "Memset (Device)", correlation, 7, {"bytes": 8}, {})

    def span(self, category: str, start: int, end: int, name: str, **more: Any) -> None:
        self._add(category, start, end, name, {}, more)

    def launch(self, start: int, end: int, correlation: int, *kernels: tuple[int, int, str], **more: Any) -> None:
        """A call, and the kernels that it starts."""
        self.call(start, end, "cudaLaunchKernel", correlation)
        for begin, finish, name in kernels:
            self.kernel(begin, finish, name, correlation, **more)

    def arrow(self, start: int, end: int, number: int, stream: int = 7) -> None:
        """From the main thread to a stream of the device."""
        common = {"cat": "ac2g", "name": "ac2g", "id": number}
        self.events.append({"ph": "s", "pid": self.pid, "tid": TID, "ts": us(start), **common})
        self.events.append({"ph": "f", "bp": "e", "pid": self.device, "tid": stream, "ts": us(end), **common})

    def sync(self, kind: str, start: int, end: int, **args: Any) -> None:
        args = {"cuda_sync_kind": kind, "device": self.device, "context": 1, **args}
        place = {"pid": self.device, "tid": args.get("stream", -1)}
        self._add("cuda_sync", start, end, kind, args, place)

    def _device(
        self, category: str, start: int, end: int, name: str, correlation: int, stream: int, args: dict, more: dict
    ) -> None:
        place = {"device": self.device, "context": 1, "stream": stream, "correlation": correlation}
        self._add(category, start, end, name, place | args, {"pid": self.device, "tid": stream} | more)

    def _add(self, category: str, start: int, end: int, name: str, args: dict, more: dict) -> None:
        event = {"ph": "X", "cat": category, "name": name, "pid": self.pid, "tid": TID, "ts": us(start)}
        event |= {"dur": Exact(f"{(end - start) / 1000:.3f}"), "args": args | more.pop("args", {})}
        self.events.append(event | more)

    def text(self, indent: int | None = None, behind: bool = False) -> str:
        """The file; ``behind``: the events come before the other keys."""
        events = {"traceEvents": self.events}
        content = events | self.beside if behind else self.beside | events
        return json.dumps(content, indent=indent, default=str).replace('"@', "").replace('@"', "")

    def write(self, path: Path, **options: Any) -> Path:
        text = self.text(**options).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        return path


class Exact(str):
    """A number in JSON as it is written here."""

    def __new__(cls, number: str) -> Exact:
        return super().__new__(cls, f"@{number}@")


def us(ns: int) -> Exact:
    """A time in microseconds since 1970, exact."""
    return Exact(f"{BASE_US + ns // 1000}.{ns % 1000:03d}")


def inference() -> Trace:
    """Two iterations of three kernels, a copy and a fill, under ranges, operators and functions."""
    trace = Trace()
    for number in range(2):
        at = 1_000_000 * number
        trace.span("user_annotation", at, at + 900_000, f"ProfilerStep#{number}")
        trace.span("python_function", at + 1, at + 800_000, "/home/bob/secret/model.py(12): forward")
        trace.span("cpu_op", at + 10_000, at + 100_000, "aten::linear")
        trace.span("cpu_op", at + 20_001, at + 90_003, "aten::addmm")
        trace.launch(at + 30_001, at + 35_002, 10 * number + 1, (at + 40_003, at + 60_007, "gemm"))
        trace.launch(at + 50_000, at + 52_000, 10 * number + 2, (at + 61_000, at + 63_000, "gelu"))
        trace.launch(at + 53_000, at + 54_000, 10 * number + 3, (at + 62_000, at + 65_000, "beside"), stream=20)
        trace.call(at + 110_000, at + 113_000, "cudaMemsetAsync", 10 * number + 4)
        trace.fill(at + 114_000, at + 115_000, 10 * number + 4)
        trace.call(at + 120_000, at + 160_000, "cudaMemcpyAsync", 10 * number + 5)
        trace.copy(at + 130_000, at + 150_000, "Memcpy DtoH (Device -> Pageable)", 10 * number + 5, 4096)
    return trace
