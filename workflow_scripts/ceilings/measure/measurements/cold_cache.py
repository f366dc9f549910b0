"""Latency when the L2 cache holds nothing of the inference."""

from __future__ import annotations

from typing import Any

from ceilings.cuda import device as cuda
from ceilings.measure.cuda_bench import CudaBench


def measure(bench: CudaBench) -> dict[str, Any]:
    """The series ``latency_cold``: L2 overwritten before each iteration."""
    # The buffer that flushes the cache is the instrument's: it counts for no peak of memory.
    bench.close_memory()
    flush = cuda.L2Flush(bench.runner.stream)
    activate = bench.runner.activate

    def prepare(slot: Any) -> None:
        activate(slot)
        flush()

    return {"latency_cold": bench.closed_loop(prepare=prepare)}
