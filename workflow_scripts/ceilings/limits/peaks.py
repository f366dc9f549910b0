"""What this GPU reaches: bandwidths, matrix rates, launch costs and copy rates, each with its range over repeats.

Device times come from CUDA events around work that is long against the events' 0.5 us tick; host times from
``perf_counter_ns``. Buffers and matrices are random: zeros draw less power and run faster.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from cuda.bindings import driver
from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda
from ceilings.cuda.cuda_graph import captured
from ceilings.limits.peak_kernels import Kernels

MIB = 1 << 20
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
OTHER_LIMITS = 18
"""Limits that are no matrix rates: each limit has an equal share of the time."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the work is.

    Attributes:
        products: (M, N, K) of the models' products.
        buffer_bytes: Of the bandwidth buffers.
        transfer_bytes: Of a copy between host and device.
        square: Edge of the large product.
        launches: Repetitions of a launch.
    """

    products: tuple[tuple[int, int, int], ...]
    buffer_bytes: int = 1024 * MIB
    transfer_bytes: int = 256 * MIB
    square: int = 8192
    launches: int = 1000


TINY = Sizes(((128, 768, 768),), 32 * MIB, 4 * MIB, 256, 50)
"""For a check that everything runs; the numbers mean nothing."""


@dataclasses.dataclass(frozen=True)
class Peak:
    """One limit: median and range over ``repeats``, in ``unit``, and how it was taken."""

    median: float
    low: float
    high: float
    repeats: int
    unit: str
    method: str


class Bench:
    """Measures limits on device 0.

    Args:
        repeats: Of each limit.
        seconds: For all of them; a limit ends after three repeats once its share is used up.
        sizes: Of the work.
    """

    def __init__(self, repeats: int, seconds: float, sizes: Sizes) -> None:
        cuda.initialise()
        self.repeats, self.seconds, self.sizes = repeats, seconds, sizes
        self.stream = cuda.Stream()
        self.events = cuda.Event(), cuda.Event()
        self.kernels = Kernels()
        self.peaks: dict[str, dict[str, Any]] = {}
        torch.cuda.set_stream(torch.cuda.ExternalStream(self.stream.handle))
        torch.set_grad_enabled(False)
        torch.manual_seed(0)

    def run(self) -> dict[str, dict[str, Any]]:
        """All limits by name; one that cannot be had is ``{"unavailable": why}``."""
        groups = (self._memory, self._launches, self._transfers, self._products)
        for number, group in enumerate(groups, 1):
            print(f"{number} of {len(groups)}: {group.__name__.strip('_')}", file=sys.stderr, flush=True)
            try:
                group()
            except Exception as error:  # one group that cannot run takes none of the others with it
                self.peaks[group.__name__.strip("_")] = {"unavailable": f"{type(error).__name__}: {error}"}
            torch.cuda.empty_cache()
        return self.peaks

    # --- taking numbers ---------------------------------------------------------------------------------------------

    def _take(self, name: str, unit: str, method: str, once: Callable[[], float]) -> None:
        """Repeat ``once``, which returns a value in ``unit``, after one unrecorded call."""
        try:
            once()
            start = time.monotonic()
            values: list[float] = []
            share = self.seconds / (OTHER_LIMITS + len(PRECISIONS) * (1 + len(self.sizes.products)))
            while len(values) < self.repeats and (len(values) < 3 or time.monotonic() - start < share):
                values.append(once())
        except Exception as error:  # a precision that the device or the library does not have
            torch.cuda.synchronize()
            self.peaks[name] = {"unavailable": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
            return
        peak = Peak(statistics.median(values), min(values), max(values), len(values), unit, method)
        self.peaks[name] = dataclasses.asdict(peak)

    def _device_s(self, work: Callable[[], Any]) -> float:
        """Device time of what ``work`` enqueues, in seconds."""
        begin, end = self.events
        begin.record(self.stream)
        work()
        end.record(self.stream)
        self.stream.synchronize()
        return cuda.elapsed_ns(begin, end) / 1e9

    # --- limits -----------------------------------------------------------------------------------------------------

    def _memory(self) -> None:
        n = self.sizes.buffer_bytes
        source = torch.randint(0, 1 << 30, (n // 4,), dtype=torch.int32, device="cuda")
        target = torch.empty_like(source)
        handle, times = self.stream.native, 8

        def copy() -> float:
            def work() -> None:
                for _ in range(times):
                    cuda.check(cudart.cudaMemcpyAsync(target.data_ptr(), source.data_ptr(), n, cuda.D2D, handle))

            return 2 * n * times / self._device_s(work) / 1e9

        self._take(
            "copy_bandwidth",
            "GB/s",
            f"{times} cudaMemcpyAsync of {n // MIB} MiB on the device; reads plus writes",
            copy,
        )

        def read() -> float:
            def work() -> None:
                for _ in range(times):
                    self.kernels.read(self.stream, source.data_ptr(), n, 1)

            return n * times / self._device_s(work) / 1e9

        self._take(
            "read_bandwidth", "GB/s", f"{times} kernels, each 16-byte loads over {n // MIB} MiB; bytes read", read
        )
        inside = min(cuda.attribute("L2CacheSize") // 4, n) & ~0xFF

        def read_l2() -> float:
            seconds = self._device_s(lambda: self.kernels.read(self.stream, source.data_ptr(), inside, 200))
            return inside * 200 / seconds / 1e9

        method = f"one kernel that reads {inside // 1024} KiB (a quarter of L2) 200 times past L1; bytes read"
        self._take("l2_read_bandwidth", "GB/s", method, read_l2)

    def _launches(self) -> None:
        function, handle, count = self.kernels.nothing, self.stream.handle, self.sizes.launches
        launch, clock = driver.cuLaunchKernel, time.perf_counter_ns
        synchronize, native = cudart.cudaStreamSynchronize, self.stream.native

        def enqueue() -> float:
            times = []
            for _ in range(count):
                start = clock()
                launch(function, 1, 1, 1, 1, 1, 1, 0, handle, 0, 0)
                times.append(clock() - start)
                synchronize(native)
            return statistics.median(times) / 1e3

        python = "called from Python, about 1 us of which is included"
        self._take("launch_enqueue", "us", f"cuLaunchKernel of an empty kernel on an idle stream; {python}", enqueue)

        def complete() -> float:
            times = []
            for _ in range(count):
                start = clock()
                launch(function, 1, 1, 1, 1, 1, 1, 0, handle, 0, 0)
                synchronize(native)
                times.append(clock() - start)
            return statistics.median(times) / 1e3

        self._take("launch_to_completion", "us", f"the same until cudaStreamSynchronize returns; {python}", complete)

        def rate() -> float:
            start = clock()
            for _ in range(count):
                launch(function, 1, 1, 1, 1, 1, 1, 0, handle, 0, 0)
            synchronize(native)
            return count / (clock() - start) * 1e9

        self._take("launch_rate", "1/s", f"{count} launches of an empty kernel, then one wait; {python}", rate)
        for nodes in (1, 100):
            self._graph_launches(nodes)
        method = "median host time on an idle stream, from Python"
        for name in ("event_record", "synchronize_idle"):
            self._take(name, "us", method, functools.partial(self._call_cost, name))

    def _call_cost(self, name: str) -> float:
        return cuda.call_costs(self.stream, self.sizes.launches)[f"{name}_ns"] / 1e3

    def _graph_launches(self, nodes: int) -> None:
        with captured(self.stream) as graph:
            for _ in range(nodes):
                self.kernels.launch_nothing(self.stream)
        launch, handle, clock = cudart.cudaGraphLaunch, self.stream.native, time.perf_counter_ns
        executable, count = graph.native, max(10, self.sizes.launches // 5)

        def host(wait: bool) -> float:
            times = []
            for _ in range(count):
                start = clock()
                launch(executable, handle)
                middle = clock()
                cudart.cudaStreamSynchronize(handle)
                times.append((clock() if wait else middle) - start)
            return statistics.median(times) / 1e3

        method = f"cudaGraphLaunch of {nodes} empty kernels in a row, from Python"
        self._take(f"graph_enqueue.{nodes}", "us", f"{method}; the call", lambda: host(False))
        self._take(f"graph_to_completion.{nodes}", "us", f"{method}; until the stream is idle", lambda: host(True))
        if nodes > 1:
            self._take(
                "graph_node",
                "us",
                f"device time of {method}, over the kernels",
                lambda: self._device_s(lambda: launch(executable, handle)) / nodes * 1e6,
            )
        cuda.check(cudart.cudaGraphExecDestroy(executable))

    def _transfers(self) -> None:
        large, small = self.sizes.transfer_bytes, 4096
        device = cuda.DeviceBuffer(large)
        pinned = cuda.PinnedBuffer(large)
        pageable = np.random.default_rng(0).integers(0, 255, large, dtype=np.uint8)
        pinned.array((large,), np.uint8)[...] = pageable
        for kind, host in (("pinned", pinned.pointer), ("pageable", pageable.ctypes.data)):
            for direction in ("h2d", "d2h"):
                pair = (device.pointer, host) if direction == "h2d" else (host, device.pointer)
                way = cuda.H2D if direction == "h2d" else cuda.D2H

                call = f"cudaMemcpyAsync and cudaStreamSynchronize, {kind} host memory, host clock"
                rate = functools.partial(self._copy_rate, pair, way, large)
                self._take(f"{direction}_bandwidth.{kind}", "GB/s", f"{call}, {large // MIB} MiB", rate)
                latency = functools.partial(self._copy_latency, pair, way, small)
                method = f"{call}, {small} bytes, median of {self.sizes.launches}"
                self._take(f"{direction}_latency.{kind}", "us", method, latency)

    def _copy_s(self, pair: tuple[int, int], way: Any, nbytes: int) -> float:
        start = time.perf_counter_ns()
        cudart.cudaMemcpyAsync(*pair, nbytes, way, self.stream.native)
        cuda.check(cudart.cudaStreamSynchronize(self.stream.native), "copying")
        return (time.perf_counter_ns() - start) / 1e9

    def _copy_rate(self, pair: tuple[int, int], way: Any, nbytes: int) -> float:
        return nbytes / self._copy_s(pair, way, nbytes) / 1e9

    def _copy_latency(self, pair: tuple[int, int], way: Any, nbytes: int) -> float:
        return statistics.median(self._copy_s(pair, way, nbytes) for _ in range(self.sizes.launches)) * 1e6

    def _products(self) -> None:
        edge = self.sizes.square
        for shape in ((edge, edge, edge), *self.sizes.products):
            for precision in PRECISIONS:
                name = f"matrix_rate.{precision}.{'x'.join(map(str, shape))}"
                self._take(name, "TFLOP/s", self._product_method(precision, shape), self._product(precision, shape))

    def _product_method(self, precision: str, shape: tuple[int, int, int]) -> str:
        call = {"int8": "torch._int_mm (to int32)", "fp8": "torch._scaled_mm (e4m3 to bf16)"}.get(precision, "torch.mm")
        return f"{call}, (M, N, K) = {shape}, K-major weights, in a CUDA graph; 2 M N K over device time; operands stay"

    def _product(self, precision: str, shape: tuple[int, int, int]) -> Callable[[], float]:
        """A function that measures one product; its first call makes everything, so that a failure is one product's."""
        m, n, k = shape
        flops = 2.0 * m * n * k
        # About 2 ms a replay at 500 TFLOP/s, and not so many that capturing takes long.
        times = int(min(200, max(1, 1e12 / flops)))
        state: dict[str, Any] = {}

        def prepare() -> None:
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            multiply = _operands(precision, shape)
            for _ in range(3):
                multiply()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(times):
                    multiply()
            state["graph"], state["keep"] = graph, multiply
            graph.replay()

        def once() -> float:
            if not state:
                prepare()
            return flops * times / self._device_s(state["graph"].replay) / 1e12

        return once


def _operands(precision: str, shape: tuple[int, int, int]) -> Callable[[], Any]:
    """A call that multiplies random matrices (M, K) by (K, N), the second stored as (N, K) like a linear layer's."""
    m, n, k = shape
    left, right = torch.randn(m, k, device="cuda"), torch.randn(n, k, device="cuda")
    if precision == "int8":
        a, b = ((x * 40).clamp(-127, 127).to(torch.int8) for x in (left, right))
        return lambda: torch._int_mm(a, b.t())
    if precision == "fp8":
        a, b = (x.to(torch.float8_e4m3fn) for x in (left, right))
        one = torch.ones((), device="cuda")
        return lambda: torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    a, b = left.to(kind), right.to(kind)
    out = torch.empty(m, n, dtype=kind, device="cuda")
    return lambda: torch.mm(a, b.t(), out=out)
