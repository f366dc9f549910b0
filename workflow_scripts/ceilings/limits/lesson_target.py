"""The process that runs lessons: ``python -m ceilings.limits.lesson_target TASK.json RESULT.json``.

Checks every variant's output, then times it, or runs it once between cudaProfilerStart and cudaProfilerStop.
"""

from __future__ import annotations

import ctypes
import functools
import statistics
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from ceilings.cuda import device as cuda
from ceilings.cuda.compiled import Compiled, called
from ceilings.limits import lessons
from ceilings.limits.lesson_kernels import SOURCE
from ceilings.limits.lessons import EDGE, OUTPUTS, PRODUCT, ROUNDS, SUMMED, TILE, Launch, Lesson, Variant
from ceilings.traces.captured_process import answer_task

WARM, REPEATS = 3, 20
CHECKED_ROWS = 64
SHARED = ("MAX_DYNAMIC_SHARED_SIZE_BYTES", "PREFERRED_SHARED_MEMORY_CARVEOUT")
"""What a kernel is granted before it asks for more than 48 KiB, so that as many blocks fit as the sizes allow."""
CHUNK = 1 << 24


class Bench:
    """The kernels with their buffers on device 0."""

    def __init__(self) -> None:
        cuda.initialise()
        self.lessons = lessons.lessons(*sizes())
        names = {launch.kernel for lesson in self.lessons for v in lesson.variants for launch in v.launches}
        compiled = Compiled(SOURCE, "lessons.cu")
        self._kernels = {name: compiled.function(name) for name in ("fill", *sorted(names))}
        for kernel, nbytes in self._shared().items():
            most, carveout = (getattr(driver.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{name}") for name in SHARED)
            called(driver.cuFuncSetAttribute(self._kernels[kernel], most, nbytes))
            called(driver.cuFuncSetAttribute(self._kernels[kernel], carveout, 100))
        self.stream = cuda.Stream()
        self._events = cuda.Event(), cuda.Event()
        inputs, self._outputs = lessons.input_floats(), lessons.output_floats(sizes()[0])
        self._in, self._out = cuda.DeviceBuffer(inputs * 4), cuda.DeviceBuffer(self._outputs * 4)
        depth = PRODUCT * TILE
        self._pointers = {
            "in": self._in.pointer,
            "out": self._out.pointer,
            "left": self._in.pointer,
            "right": self._in.pointer + depth * 4,
            "bias": self._in.pointer + 2 * depth * 4,
        }
        self.run(Launch("fill", (1024, 1), (256, 1), ("in", inputs), wide=True))
        self.stream.synchronize()

    def _shared(self) -> dict[str, int]:
        """The most shared memory that any launch of a kernel asks for, of those that do."""
        most: dict[str, int] = {}
        for lesson in self.lessons:
            for launch in (launch for variant in lesson.variants for launch in variant.launches if launch.shared):
                most[launch.kernel] = max(launch.shared, most.get(launch.kernel, 0))
        return most

    def run(self, launch: Launch) -> None:
        """Enqueue one kernel."""
        values, types = [], []
        for argument in launch.arguments:
            values.append(self._pointers[argument] if isinstance(argument, str) else argument)
            whole = ctypes.c_ulonglong if launch.wide else ctypes.c_int
            types.append(ctypes.c_void_p if isinstance(argument, str) else whole)
        called(
            driver.cuLaunchKernel(
                self._kernels[launch.kernel],
                *(*launch.grid, 1, *launch.block, 1, launch.shared, self.stream.handle),
                (tuple(values), tuple(types)),
                0,
            )
        )

    def once(self, variant: Variant) -> None:
        """Enqueue all of a variant."""
        for launch in variant.launches:
            self.run(launch)

    def times_us(self, variant: Variant) -> list[float]:
        """Device times of repetitions, one after the other, in us."""
        begin, end = self._events
        times = []
        for number in range(WARM + REPEATS):
            begin.record(self.stream)
            self.once(variant)
            end.record(self.stream)
            self.stream.synchronize()
            if number >= WARM:
                times.append(cuda.elapsed_ns(begin, end) / 1e3)
        return times

    def output(self, count: int) -> NDArray[np.float32]:
        """The first floats of the output."""
        host = np.empty(count, np.float32)
        cuda.check(cudart.cudaMemcpy(host.ctypes.data, self._out.pointer, host.nbytes, cuda.D2H), "copying back")
        return host

    def poison(self) -> None:
        """Fill the output with NaN, so that what a kernel leaves out shows."""
        cuda.check(cudart.cudaMemset(self._out.pointer, 0xFF, self._out.nbytes), "filling")
        cuda.check(cudart.cudaDeviceSynchronize(), "filling")


def sizes() -> tuple[int, int]:
    """Multiprocessors of device 0, and the shared memory of one in bytes."""
    return cuda.attribute("MultiProcessorCount"), cuda.attribute("MaxSharedMemoryPerMultiprocessor")


def value(places: NDArray[np.uint64]) -> NDArray[np.float32]:
    """What the input holds at these places.

    >>> value(np.array([0, 1], np.uint64)).tolist()
    [0.0, 0.6180339455604553]
    """
    mixed = (places * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    return ((mixed >> np.uint64(8)).astype(np.float64) / 2**24).astype(np.float32)


def wrong(lesson: Lesson, variant: Variant, bench: Bench) -> str | None:
    """What is wrong with the output of a variant that ran; None if nothing is."""
    if lesson.name == "access":
        expected = value(np.arange(OUTPUTS, dtype=np.uint64) * np.uint64(variant.launches[0].arguments[2]))
        exact = np.array_equal(bench.output(OUTPUTS), expected)
        return None if exact else "it copies other values"
    if lesson.name in ("tiling", "banks"):
        expected = value(np.arange(EDGE**2, dtype=np.uint64)).reshape(EDGE, EDGE).T
        exact = np.array_equal(bench.output(EDGE**2).reshape(EDGE, EDGE), expected)
        return None if exact else "it is not the transposed matrix"
    if lesson.name == "occupancy":
        threads = variant.launches[0].grid[0] * variant.launches[0].block[0]
        found, expected_sum = bench.output(threads).sum(dtype=np.float64), summed()
        return None if np.isclose(found, expected_sum, rtol=1e-3) else f"the sum is {found:g}, not {expected_sum:g}"
    if lesson.name == "waves":
        threads = variant.launches[0].grid[0] * variant.launches[0].block[0]
        last = 1 - 0.99999**ROUNDS * (1 - value(np.arange(threads, dtype=np.uint64)).astype(np.float64))
        return None if np.allclose(bench.output(threads), last, atol=2e-3) else "the chains end elsewhere"
    return None if np.allclose(bench.output(CHECKED_ROWS * PRODUCT), activated(), atol=1e-3) else "the product is wrong"


@functools.cache
def summed() -> float:
    """The sum of the inputs that the lesson on occupancy reads."""
    chunks = range(0, SUMMED, CHUNK)
    return float(sum(value(np.arange(i, i + CHUNK, dtype=np.uint64)).sum(dtype=np.float64) for i in chunks))


def activated() -> NDArray[np.float64]:
    """The first rows of GELU of the product and its bias, in FP64."""
    depth = PRODUCT * TILE
    values = value(np.arange(2 * depth + PRODUCT, dtype=np.uint64)).astype(np.float64)
    left, right = values[: CHECKED_ROWS * TILE].reshape(-1, TILE), values[depth : 2 * depth].reshape(TILE, PRODUCT)
    x = left @ right + values[2 * depth :]
    result: NDArray[np.float64] = 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))
    return result.ravel()


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Run all lessons.

    Args:
        task: ``counted``: whether under Nsight Compute.

    Returns:
        ``sizes``, and ``times_us`` (of each lesson of each variant; empty where counted) as median, low and high.

    Raises:
        RuntimeError: A variant computes something wrong.
    """
    bench = Bench()
    times: dict[str, dict[str, dict[str, float]]] = {}
    for lesson in bench.lessons:
        for variant in lesson.variants:
            if task["counted"]:
                bench.once(variant)
                bench.stream.synchronize()
                cuda.check(cudart.cudaProfilerStart(), "cudaProfilerStart")
                bench.once(variant)
                bench.stream.synchronize()
                cuda.check(cudart.cudaProfilerStop(), "cudaProfilerStop")
                continue
            bench.poison()
            bench.once(variant)
            bench.stream.synchronize()
            if flaw := wrong(lesson, variant, bench):
                raise RuntimeError(f"{lesson.name}, {variant.name}: {flaw}")
            taken = bench.times_us(variant)
            middle = {"median": statistics.median(taken), "low": min(taken), "high": max(taken)}
            times.setdefault(lesson.name, {})[variant.name] = middle
    return {"sizes": list(sizes()), "times_us": times}


if __name__ == "__main__":
    answer_task(run)
