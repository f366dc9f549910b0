"""The timing loops of a GPU. Three numbers an iteration, all on the host's or the device's one clock:

``latency_ns``  host, from before the first call that submits until the wait for the stream returns;
``enqueue_ns``  host, the calls that submit;
``gpu_ns``      device, between an event before the work and one after it.

The event before is recorded before the host's clock starts, on an idle stream; the one after is recorded while the GPU
works. So a latency holds one event's recording, and only where the GPU is done before the host is. ``call_costs`` says
how long that takes.

Nothing is allocated, printed or decided between two iterations of a block; decisions fall between blocks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda
from ceilings.cuda import monitor as gpu_monitor
from ceilings.measure.loop import block_size, undisturbed
from ceilings.measure.stopping import NS, Protocol
from ceilings.runtimes.base import Inputs
from ceilings.runtimes.cuda_runner import CudaRunner, as_float32

SECONDARY_SHARE = 0.25
"""Part of the main series' minimum and maximum time that each further series gets."""

SECONDARY_WARMUP_SECONDS = 0.05
"""Warm-up of a further series: clocks are up already, only its own path is new."""

IN_FLIGHT = 8
"""Launches queued at most in the saturated regime: enough to hide any host, few enough to bound the queue."""

MEMORY_SOURCES = {
    "nvml-process": "NVML's figure for this process (context and libraries included), highest of readings between "
    "series",
    "nvml-difference": "device memory in use less that at the start of the process (context included), highest of "
    "readings between series; right if no other process allocated meanwhile",
}


@dataclasses.dataclass(frozen=True)
class Regime:
    """How one iteration goes.

    Attributes:
        prepare: Enqueued and waited for before each iteration, untimed.
        submit: Timed; enqueues one inference.
        items: What both are called with, in turn.
    """

    prepare: Callable[[Any], None]
    submit: Callable[[Any], Any]
    items: Sequence[Any]


class Samples:
    """The three numbers of every iteration so far."""

    def __init__(self) -> None:
        self.latency_ns: list[int] = []
        self.enqueue_ns: list[int] = []
        self.gpu_ns: list[int] = []


def secondary(protocol: Protocol) -> Protocol:
    """The protocol of the series beside the main one: the same stop rule within ``SECONDARY_SHARE`` of its time."""
    return dataclasses.replace(
        protocol,
        warmup_seconds=min(protocol.warmup_seconds, SECONDARY_WARMUP_SECONDS),
        warmup_max_seconds=max(SECONDARY_WARMUP_SECONDS, protocol.warmup_max_seconds * SECONDARY_SHARE),
        min_iterations=max(2, min(protocol.min_iterations, round(protocol.min_iterations * SECONDARY_SHARE))),
        min_seconds=protocol.min_seconds * SECONDARY_SHARE,
        max_seconds=protocol.max_seconds * SECONDARY_SHARE,
    )


def closed_loop(
    regime: Regime, stream: cuda.Stream, protocol: Protocol, monitor: gpu_monitor.Monitor | None = None
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Warm up until stable, then measure until the stop rule.

    Args:
        regime: What one iteration does.
        stream: Where it does it.
        protocol: When a warm-up is over and when to stop.
        monitor: If given, warm-up also waits for the SM clock's plateau.

    Returns:
        A series as in :func:`ceilings.measure.loop.closed_loop`, and its span of ``perf_counter_ns``.
    """
    warmup, measured = Samples(), Samples()
    events = (cuda.Event(), cuda.Event())
    with undisturbed():
        start = time.perf_counter_ns()
        stable = False
        while not stable and time.perf_counter_ns() - start < protocol.warmup_max_seconds * NS:
            block(regime, stream, events, block_size(warmup.latency_ns), warmup)
            stable = protocol.warm(warmup.latency_ns)
            if monitor is not None:
                monitor.poll()
                stable = stable and gpu_monitor.plateau(gpu_monitor.between(monitor.samples, start, 1 << 63))

        start = time.perf_counter_ns()
        reason = None
        while reason is None:
            block(regime, stream, events, block_size(measured.latency_ns or warmup.latency_ns), measured)
            if monitor is not None:
                monitor.poll()
            reason = protocol.stop_reason(measured.latency_ns, time.perf_counter_ns() - start)
        end = time.perf_counter_ns()
    series = {
        "latency_ns": measured.latency_ns,
        "gpu_ns": measured.gpu_ns,
        "enqueue_ns": measured.enqueue_ns,
        "warmup_ns": warmup.latency_ns,
        "warmup_stable": stable,
        "stop_reason": reason,
    }
    return series, (start, end)


def block(
    regime: Regime, stream: cuda.Stream, events: tuple[cuda.Event, cuda.Event], count: int, samples: Samples
) -> None:
    """Time ``count`` inferences, one at a time, going on in the ring where ``samples`` end."""
    clock = time.perf_counter_ns
    record, synchronize, elapsed = cudart.cudaEventRecord, cudart.cudaStreamSynchronize, cudart.cudaEventElapsedTime
    prepare, submit, items = regime.prepare, regime.submit, regime.items
    handle, begin, end = stream.native, events[0].native, events[1].native
    keep_latency, keep_enqueue = samples.latency_ns.append, samples.enqueue_ns.append
    keep_gpu, ring = samples.gpu_ns.append, len(items)
    position = len(samples.latency_ns)
    for i in range(position, position + count):
        item = items[i % ring]
        prepare(item)
        synchronize(handle)
        record(begin, handle)
        start = clock()
        # Kept until after the clock has stopped: freeing a framework's result is not part of an inference.
        launched = submit(item)
        submitted = clock()
        record(end, handle)
        waited = synchronize(handle)
        stop = clock()
        if waited[0]:
            cuda.check(waited, "waiting for an inference")
        del launched
        keep_latency(stop - start)
        keep_enqueue(submitted - start)
        keep_gpu(round(cuda.check(elapsed(begin, end), "reading the events") * 1e6))


def saturated(
    regime: Regime, stream: cuda.Stream, protocol: Protocol, *, batch: int, depth: int
) -> tuple[dict[str, Any], tuple[int, int], int]:
    """Throughput with up to ``depth`` launches queued.

    The clock starts when the first launch is done, with the others queued behind it, and stops when all are done.
    Nothing is prepared between launches, so the inputs stay as they are: what a model costs does not depend on them,
    and a copy would compete with the work.

    Returns:
        The ``throughput`` series, its span of ``perf_counter_ns``, and the inferences in that span.
    """
    events = [cuda.Event(timing=False) for _ in range(depth)]
    natives = [event.native for event in events]
    record, wait, clock = cudart.cudaEventRecord, cudart.cudaEventSynchronize, time.perf_counter_ns
    submit, items, handle = regime.submit, regime.items, stream.native
    ring = len(items)
    with undisturbed():
        stream.synchronize()
        for i in range(depth):
            submit(items[i % ring])
            record(natives[i], handle)
        cuda.check(wait(natives[0]), "waiting for an inference")
        start = clock()
        deadline = start + int(protocol.saturated_seconds * NS)
        launched = depth
        while clock() < deadline:
            slot = launched % depth
            wait(natives[slot])
            submit(items[launched % ring])
            record(natives[slot], handle)
            launched += 1
        stream.synchronize()
        end = clock()
    completions, seconds = launched - 1, (end - start) / NS
    series = {
        "concurrency": depth,
        "completions": completions,
        "seconds": seconds,
        "inferences_per_s": completions * batch / seconds,
    }
    return series, (start, end), completions * batch


@dataclasses.dataclass(frozen=True)
class HostElement:
    """One element of the ring in host memory, with room for its logits.

    Attributes:
        copies: (device pointer, host pointer, bytes) of each input.
        output: Host pointer of the logits.
        values: The logits' bytes.
        slot: The same element on the device.
        keep: What owns the memory.
    """

    copies: tuple[tuple[int, int, int], ...]
    output: int
    values: np.ndarray
    slot: Any
    keep: tuple[Any, ...]


def host_element(runner: CudaRunner, inputs: Inputs, slot: Any, pinned: bool) -> HostElement:
    """Put one element into host memory, page-locked or not, once and for all iterations."""
    copies: list[tuple[int, int, int]] = []
    keep: list[Any] = []
    for name, (pointer, nbytes) in runner.input_buffers.items():
        source = np.ascontiguousarray(inputs[name])
        if source.nbytes != nbytes:
            raise ValueError(f"input {name} has {source.nbytes} bytes; the runtime reads {nbytes}")
        if pinned:
            buffer = runner.memory.PinnedBuffer(nbytes)
            buffer.array(source.shape, source.dtype)[...] = source
            copies.append((pointer, buffer.pointer, nbytes))
            keep.append(buffer)
        else:
            source = source.copy()
            copies.append((pointer, source.ctypes.data, nbytes))
            keep.append(source)
    if pinned:
        room = runner.memory.PinnedBuffer(runner.output_bytes)
        values = room.array((runner.output_bytes,), np.uint8)
        return HostElement(tuple(copies), room.pointer, values, slot, (*keep, room))
    values = np.zeros(runner.output_bytes, np.uint8)
    return HostElement(tuple(copies), values.ctypes.data, values, slot, tuple(keep))


def end_to_end(runner: CudaRunner, elements: Sequence[HostElement]) -> Regime:
    """Copy in, launch, copy out, on one stream; the wait is the loop's."""
    copy, to_device, to_host = cudart.cudaMemcpyAsync, cuda.H2D, cuda.D2H
    handle, launch, pointer, nbytes = runner.stream.native, runner.launch, runner.output_pointer, runner.output_bytes

    def submit(element: HostElement) -> Any:
        for destination, source, size in element.copies:
            copy(destination, source, size, to_device, handle)
        launched = launch(element.slot)
        copy(element.output, pointer(launched), nbytes, to_host, handle)
        return launched

    return Regime(_nothing, submit, elements)


def _nothing(_: Any) -> None:
    pass


class Instrument:
    """Measures a :class:`CudaRunner`; made before the runner loads, so that it knows the device's state before.

    Series: ``latency`` (inputs and outputs on the device, weights in L2 as far as they fit), ``latency_end_to_end``
    (pinned host buffers), ``latency_end_to_end_pageable``, ``throughput``, ``latency_cold`` (L2 overwritten before
    each iteration). The main series obeys the whole protocol, the others :func:`secondary` of it.
    """

    def __init__(self) -> None:
        self._refused: dict[str, str] = {}
        self._device: gpu_monitor.Device | None = None
        self._uuid: str | None = None
        self._peak: int | None = None
        self._base: int | None = None
        self._source = ""
        self._settled = False
        try:
            self._uuid = cuda.device_uuid()
            self._device = gpu_monitor.Device(self._uuid)
        except Exception as error:  # no NVML, or none that answers: the run goes on and says so
            self._refused["nvml"] = f"{type(error).__name__}: {error}"
        if self._device is not None:
            self._base = self._device.used_bytes()

    def measure(
        self, runner: CudaRunner, slots: Sequence[Any], ring: Sequence[Inputs], protocol: Protocol
    ) -> dict[str, Any]:
        """All series of a loaded runner.

        Args:
            runner: Loaded and run at least once.
            slots: The ring, placed.
            ring: The ring in host memory.
            protocol: Of the study.

        Returns:
            The record's ``series``, ``flags``, ``gpu`` and ``energy``.

        Raises:
            CellFailure: The runtime failed, for one because memory ran out.
        """
        self._note_memory()
        with contextlib.ExitStack() as stack:
            stack.enter_context(runner.failures())
            monitor = None
            if self._uuid is not None:
                monitor = stack.enter_context(gpu_monitor.Monitor(self._uuid))
                monitor.wait_for_samples()
            return self._measure(runner, slots, ring, protocol, monitor)

    def _measure(
        self,
        runner: CudaRunner,
        slots: Sequence[Any],
        ring: Sequence[Inputs],
        protocol: Protocol,
        monitor: gpu_monitor.Monitor | None,
    ) -> dict[str, Any]:
        stream, batch = runner.stream, runner.shape[0]
        series: dict[str, Any] = {}
        flags: list[str] = []
        costs = cuda.call_costs(stream)
        resident = Regime(runner.activate, runner.launch, slots)
        runner.run(slots[0])
        compiled = runner.compilations()
        shorter = secondary(protocol)

        series["latency"], latency_span = closed_loop(resident, stream, protocol, monitor)
        self._note_memory()
        if runner.transfers_inside:
            flags.append("latency holds the copies of inputs and logits: this runtime has no boundary on the device")
            series["latency_end_to_end_pageable"] = closed_loop(resident, stream, shorter)[0]
        else:
            for name, pinned in (("latency_end_to_end", True), ("latency_end_to_end_pageable", False)):
                elements = [host_element(runner, one, slot, pinned) for one, slot in zip(ring, slots, strict=True)]
                series[name] = closed_loop(end_to_end(runner, elements), stream, shorter)[0]
                verify_transfers(runner, elements[0])
        depth = 1 if runner.transfers_inside else IN_FLIGHT
        runner.activate(slots[0])
        series["throughput"], busy_span, inferences = saturated(resident, stream, protocol, batch=batch, depth=depth)
        # Before the buffer that flushes the cache exists: it is the instrument's, not the runtime's.
        self._note_memory()
        self._settled = True
        series["latency_cold"] = self._cold(resident, stream, shorter)
        if (now := runner.compilations()) != compiled:
            flags.append(f"{now - compiled} compilations fell into the timed part")

        gpu: dict[str, Any] = {"uuid": self._uuid, "calls": costs, "in_flight": depth}
        energy: dict[str, Any] | None = None
        if monitor is not None:
            # Readings after the last series, so that the energy counter can be read at its end.
            time.sleep(4 * gpu_monitor.PERIOD_S)
            monitor.poll()
            spans = {
                "latency": (*latency_span, len(series["latency"]["latency_ns"]) * batch),
                "throughput": (*busy_span, inferences),
            }
            energy = {
                name: gpu_monitor.energy(monitor.samples, start, end, count)
                for name, (start, end, count) in spans.items()
            }
            for name, (start, end, _) in spans.items():
                summary = gpu_monitor.summarise(gpu_monitor.between(monitor.samples, start, end))
                gpu[name] = summary
                flags += [f"{name}: {flag}" for flag in gpu_monitor.flags(summary)]
            self._refused |= monitor.refused
        if self._device is not None:
            gpu |= self._device.facts()
            others, flag = gpu_monitor.neighbours(self._device.processes(), os.getpid())
            gpu["other_processes"] = {str(pid): used for pid, used in others.items()}
            flags += [flag] if flag else []
            self._refused |= self._device.refused
        gpu["refused"] = self._refused
        return {"series": series, "flags": flags, "gpu": gpu, "energy": energy}

    def _cold(self, resident: Regime, stream: cuda.Stream, protocol: Protocol) -> dict[str, Any]:
        """The device-resident series with a cache that holds nothing of it."""
        flush = cuda.L2Flush(stream)

        def prepare(item: Any) -> None:
            resident.prepare(item)
            flush()

        return closed_loop(Regime(prepare, resident.submit, resident.items), stream, protocol)[0]

    def memory(self) -> dict[str, Any]:
        """Peak device memory of this process, and how it is known; for a failed cell up to the failure."""
        self._note_memory()
        return {
            "peak_device_bytes": self._peak,
            "source": self._source if self._peak is not None else "nothing could be read",
        }

    def _note_memory(self) -> None:
        if self._device is None or self._settled:
            return
        own = (self._device.processes() or {}).get(os.getpid())
        if own is not None:
            self._source = MEMORY_SOURCES["nvml-process"]
        elif (used := self._device.used_bytes()) is not None and self._base is not None:
            own = max(0, used - self._base)
            self._source = MEMORY_SOURCES["nvml-difference"]
        if own is not None:
            self._peak = max(self._peak or 0, int(own))


def verify_transfers(runner: CudaRunner, element: HostElement) -> None:
    """Compare the logits that an end-to-end iteration leaves on the host with the runner's own.

    Raises:
        RuntimeError: They differ: the timed copies are not those of this inference.
    """
    element.values[:] = 0
    end_to_end(runner, [element]).submit(element)
    runner.stream.synchronize()
    found = as_float32(element.values, runner.output_type)
    expected = runner.logits(runner.run(element.slot)).ravel()
    scale = float(np.abs(expected).max()) or 1.0
    if not np.allclose(found, expected, rtol=0, atol=0.02 * scale):
        raise RuntimeError(f"copied logits differ from the runner's by {np.abs(found - expected).max():.3g}")
