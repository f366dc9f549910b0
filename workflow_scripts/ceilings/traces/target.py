"""The process that is captured: ``python -m ceilings.traces.target TASK.json RESULT.json``.

Runs the cell as a benchmark does, with the same runner and the same order of calls, and marks each iteration. Warm-up
and a few settling iterations are outside the marks. What it measures is thrown away: a traced time is no latency.
"""

from __future__ import annotations

import dataclasses
import os
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from ceilings import gpu
from ceilings.cuda import device as cuda
from ceilings.cuda import monitor as gpu_monitor
from ceilings.errors import UserError
from ceilings.measure.gpu_loop import Regime, Samples, block
from ceilings.measure.loop import block_size, undisturbed
from ceilings.measure.setup import make_runner, read_pool
from ceilings.measure.stopping import NS, Protocol
from ceilings.traces import nvtx
from ceilings.traces.capture import ITERATION
from ceilings.traces.captured_process import answer_task

SETTLE_SECONDS = 0.2
"""Iterations for so long after recording began are not marked: a profiler starts and allocates its buffers in them."""

Mark = Callable[[], Any]


class Recorder(typing.Protocol):
    """What records the iterations."""

    def start(self) -> tuple[Mark, Mark]:
        """Begin to record; returns what marks an iteration's begin and its end."""
        ...

    def stop(self) -> None:
        """End, after everything submitted is done."""
        ...


class NvtxRecorder:
    """For a profiler outside of this process, which records between cudaProfilerStart and cudaProfilerStop."""

    def start(self) -> tuple[Mark, Mark]:
        marks = nvtx.ranges(ITERATION)
        for first in nvtx.ranges("first"):  # finds the profiler, which takes its time
            first()
        cuda.check(cudart.cudaProfilerStart(), "cudaProfilerStart")
        return marks

    def stop(self) -> None:
        cuda.check(cudart.cudaProfilerStop(), "cudaProfilerStop")


class TorchRecorder:
    """PyTorch's own profiler, which writes a trace in Chrome's format."""

    def __init__(self, path: Path) -> None:
        try:
            from torch import profiler
        except ImportError:
            raise UserError("a trace of PyTorch's profiler needs torch; pip install torch") from None
        self._path, self._range = path, profiler.record_function
        kinds = [profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]
        self._profile = profiler.profile(activities=kinds)

    def start(self) -> tuple[Mark, Mark]:
        open_ranges: list[Any] = []

        def begin() -> None:
            open_ranges.append(self._range(ITERATION))
            open_ranges[-1].__enter__()

        self._profile.start()
        return begin, lambda: open_ranges.pop().__exit__(None, None, None)

    def stop(self) -> None:
        self._profile.stop()
        self._profile.export_chrome_trace(str(self._path))


class CounterRecorder:
    """For Nsight Compute, which counts the kernels between cudaProfilerStart and cudaProfilerStop: of the marked
    iterations only, for each kernel takes several passes."""

    def start(self) -> tuple[Mark, Mark]:
        return (
            lambda: cuda.check(cudart.cudaProfilerStart(), "cudaProfilerStart"),
            lambda: cuda.check(cudart.cudaProfilerStop(), "cudaProfilerStop"),
        )

    def stop(self) -> None:
        pass


def recorder(source: str, raw: Path) -> Recorder:
    """The recorder of a source, before anything of CUDA is loaded."""
    if source == "cupti":
        from ceilings.traces.cupti import CuptiRecorder

        return CuptiRecorder(raw)
    if source == "ncu":
        return CounterRecorder()
    return TorchRecorder(raw) if source == "torch" else NvtxRecorder()


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Run and record the cell that ``task`` describes.

    Args:
        task: What :func:`ceilings.traces.recorder.record` wrote.

    Returns:
        ``iterations``, ``warmup_p50_ns`` (of the same process, before anything was recorded), ``warmup_stable``,
        ``gpu`` (which ran it) and ``flags``.

    Raises:
        CellFailure: The cell cannot run.
    """
    spec = task["spec"]
    card = gpu.visible()
    gpu.refuse_other(card, task["cell"]["device"])
    elements = read_pool(task)
    recording = recorder(task["source"], Path(task["raw"]))
    runner: Any = make_runner(task)
    runner.load()
    runner.name_work()
    slots = [runner.place(element) for element in elements]
    runner.run(slots[0])
    items, whole = runner.iterations(slots), len(runner.iterations(slots[:1]))
    regime, stream, unmarked = (
        Regime(runner.activate, runner.launch, items, whole),
        runner.exposed_stream,
        (_nothing,) * 2,
    )
    with runner.failures(), undisturbed():
        warmup_ns, stable = warm_up(regime, stream, warm_protocol(spec["protocol"]))
        marks = recording.start()
        settled = time.perf_counter() + SETTLE_SECONDS
        while time.perf_counter() < settled:
            iterate(regime, stream, max(whole, len(slots)), unmarked)
        first = lead(whole, spec["iterations"])
        iterate(regime, stream, first, unmarked)
        iterate(regime, stream, spec["iterations"], marks, first)
        cuda.check(cudart.cudaDeviceSynchronize(), "waiting for the device")
        flags = neighbours(card)
        recording.stop()
    return {
        "iterations": spec["iterations"],
        "warmup_p50_ns": float(np.median(warmup_ns[-200:])),
        "warmup_stable": stable,
        "gpu": {name: getattr(card, name) for name in ("slug", "name", "mig", "multiprocessors", "driver")},
        "flags": flags,
    }


def neighbours(card: gpu.Gpu) -> list[str]:
    """A flag if another process computes on the GPU, of which CUPTI records nothing; none if NVML does not answer."""
    try:
        flag = gpu_monitor.neighbours(gpu_monitor.Device(card.uuid).processes(), os.getpid())[1]
    except Exception:  # no NVML, or none for this device: a capture needs none
        return []
    return [flag] if flag else []


def warm_protocol(values: dict[str, float]) -> Protocol:
    """A protocol that warms up and never measures."""
    return Protocol.from_json({**dict.fromkeys((field.name for field in dataclasses.fields(Protocol)), 0), **values})


def lead(whole: int, iterations: int) -> int:
    """Iterations before the marked ones, so that these are the middle of a request where it is longer than they are.

    >>> lead(1, 100), lead(31, 100), lead(511, 100)
    (0, 0, 205)
    """
    return max(0, whole - iterations) // 2


def warm_up(regime: Regime, stream: cuda.Stream | None, protocol: Protocol) -> tuple[list[int], bool]:
    """A benchmark's warm-up; its latencies, and whether it became stable."""
    samples, events = Samples(), None if stream is None else (cuda.Event(), cuda.Event())
    start, stable = time.perf_counter_ns(), False
    while not stable and time.perf_counter_ns() - start < protocol.warmup_max_seconds * NS:
        block(regime, stream, events, block_size(samples.latency_ns), samples)
        stable = protocol.warm(samples.latency_ns)
    return samples.latency_ns, stable


def iterate(regime: Regime, stream: cuda.Stream | None, count: int, marks: tuple[Mark, Mark], first: int = 0) -> None:
    """The calls of :func:`ceilings.measure.gpu_loop.block` in their order, with marks for its clock.

    Args:
        stream: None where the runtime hides it: then ``submit`` waits itself.
        first: Number of the item to begin with.
    """
    if stream is None:
        _iterate_hidden(regime, count, marks, first)
        return
    record, synchronize = cudart.cudaEventRecord, cudart.cudaStreamSynchronize
    prepare, submit, items = regime.prepare, regime.submit, regime.items
    begin, end = cuda.Event().native, cuda.Event().native
    handle, pool = stream.native, len(items)
    enter, leave = marks
    for i in range(first, first + count):
        item = items[i % pool]
        prepare(item)
        synchronize(handle)
        record(begin, handle)
        enter()
        launched = submit(item)
        record(end, handle)
        waited = synchronize(handle)
        leave()
        if waited[0]:
            cuda.check(waited, "waiting for an inference")
        del launched


def _iterate_hidden(regime: Regime, count: int, marks: tuple[Mark, Mark], first: int) -> None:
    """The calls of :func:`ceilings.measure.loop.block` in their order, with marks for its clock."""
    prepare, submit, items = regime.prepare, regime.submit, regime.items
    enter, leave = marks
    for i in range(first, first + count):
        item = items[i % len(items)]
        prepare(item)
        enter()
        launched = submit(item)
        leave()
        del launched


def _nothing() -> None:
    pass


if __name__ == "__main__":
    answer_task(run)
