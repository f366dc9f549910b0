"""What a CUDA graph costs by its kernels: to capture, to instantiate, to launch first and again, and in memory.

A program that replays graphs pays this for each shape that it answers. All times are host times, called from Python.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda
from ceilings.limits.copy_kernel import WORD, CopyKernel
from ceilings.limits.transfer_bench import ranged

NODES = (1, 10, 100, 1000)
"""Kernels of a graph, one after the other; each copies 4 B."""

KEPT = 8
"""Graphs of one size that are there at once: memory grows in blocks, so that of one graph would be the block's."""

AGAIN = 20
"""Launches after the first one."""

TIMES = ("capture", "instantiate", "first", "again")

METHOD = "kernels of 4 B in a row on one stream; first and again: cudaGraphLaunch until the stream is idle"


class GraphCosts:
    """Measures graphs on device 0.

    Args:
        rounds: Repetitions, each over all sizes.
        nodes: Kernels of a graph.
    """

    def __init__(self, rounds: int, nodes: Sequence[int] = NODES) -> None:
        self.rounds, self.nodes = rounds, tuple(nodes)
        self.stream = cuda.Stream()
        self._buffers = cuda.DeviceBuffer(WORD), cuda.DeviceBuffer(WORD)
        source, target = (buffer.pointer for buffer in self._buffers)
        self._launch = CopyKernel().launcher(target, source, WORD, self.stream)

    def run(self) -> dict[str, Any]:
        """A point a size: median and range over rounds of each time in us, and bytes of the device a graph."""
        print("graphs", file=sys.stderr, flush=True)
        self._round(1)  # what only the first of all graphs needs
        rounds = {nodes: [self._round(nodes) for _ in range(self.rounds)] for nodes in self.nodes}
        points = [
            {
                "nodes": nodes,
                **{f"{name}_us": ranged([times[name] for times, _ in taken]) for name in TIMES},
                "device_bytes": round(statistics.median(nbytes for _, nbytes in taken)),
            }
            for nodes, taken in rounds.items()
        ]
        return {"method": METHOD, "rounds": self.rounds, "points": points}

    def _round(self, nodes: int) -> tuple[dict[str, float], float]:
        """Medians over some graphs in us, and the memory that each of them takes."""
        before, kept, taken = cuda.memory_used(), [], []
        for _ in range(KEPT):
            executable, times = self._graph(nodes)
            kept.append(executable)
            taken.append(times)
        grown = max(0, cuda.memory_used() - before) / KEPT
        for executable in kept:
            cuda.check(cudart.cudaGraphExecDestroy(executable), "freeing a graph")
        columns = zip(*taken, strict=True)
        return {name: statistics.median(column) / 1e3 for name, column in zip(TIMES, columns, strict=True)}, grown

    def _graph(self, nodes: int) -> tuple[Any, tuple[float, ...]]:
        """One graph, and its times in ns in the order of ``TIMES``."""
        clock, launch, handle = time.perf_counter_ns, self._launch, self.stream.native
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        start = clock()
        cuda.check(cudart.cudaStreamBeginCapture(handle, mode), "beginning a capture")
        for _ in range(nodes):
            launch()
        template = cuda.check(cudart.cudaStreamEndCapture(handle), "ending a capture")
        captured = clock()
        executable = cuda.check(cudart.cudaGraphInstantiate(template, 0), "instantiating a graph")
        instantiated = clock()
        launches = [self._replay(executable) for _ in range(1 + AGAIN)]
        cuda.check(cudart.cudaGraphDestroy(template), "freeing a graph's template")
        return executable, (captured - start, instantiated - captured, launches[0], statistics.median(launches[1:]))

    def _replay(self, executable: Any) -> int:
        start = time.perf_counter_ns()
        result = cudart.cudaGraphLaunch(executable, self.stream.native)
        cuda.check(result, "launching a CUDA graph")
        self.stream.synchronize()
        return time.perf_counter_ns() - start
