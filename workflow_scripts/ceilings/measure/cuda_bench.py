"""The bench of a GPU: its loops, and what is watched beside them: clocks, power, memory, energy, compilations."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ceilings import gpu
from ceilings.cuda import device as cuda
from ceilings.cuda import monitor as gpu_monitor
from ceilings.gpu import Gpu
from ceilings.measure.bench import Bench, Measurement
from ceilings.measure.gpu_loop import IN_FLIGHT, Regime, closed_loop, saturated
from ceilings.measure.loop import nothing, requests
from ceilings.runtimes.cuda_runner import CudaRunner
from ceilings.workload import generation

MEMORY_SOURCES = {
    "nvml-process": "NVML's figure for this process (context and libraries included), highest of readings between "
    "series",
    "nvml-difference": "device memory in use less that at the start of the process (context included), highest of "
    "readings between series; right if no other process allocated meanwhile",
}

INSIDE = "latency holds the copies of inputs and outputs: this runtime has no boundary on the device"


ENERGY_SECONDS = 2.5
"""Whole requests are repeated for so long, since their energy is known nowhere else: a counter that is refreshed every
100 ms and read every 25 bounds it within 5%."""


class CudaBench(Bench):
    """Measures a :class:`CudaRunner`."""

    runner: CudaRunner

    def __init__(self, runner: CudaRunner) -> None:
        super().__init__(runner)
        self._refused: dict[str, str] = {}
        self._device: gpu_monitor.Device | None = None
        self._gpu: Gpu | None = None
        self._monitor: gpu_monitor.Monitor | None = None
        self._facts: dict[str, Any] = {}
        self._spans: dict[str, tuple[int, int, int]] = {}
        self._peak: int | None = None
        self._base: int | None = None
        self._source = ""
        self._settled = False
        try:
            self._gpu = gpu.visible()
            self._device = gpu_monitor.Device(self._gpu.uuid)
        except Exception as error:  # no NVML, or none that answers: the run goes on and says so
            self._refused["nvml"] = f"{type(error).__name__}: {error}"
        if self._device is not None:
            self._base = self._device.used_bytes()

    def refuse_other_device(self, slug: str) -> None:
        """Raise unless CUDA's device is the one that the cell names.

        Raises:
            UserError: It is another one.
        """
        if self._gpu is not None:
            gpu.refuse_other(self._gpu, slug)

    def closed_loop(
        self,
        submit: Callable[[Any], Any] | None = None,
        *,
        items: Sequence[Any] | None = None,
        prepare: Callable[[Any], None] | None = None,
        main: bool = False,
    ) -> dict[str, Any]:
        """A series in which each inference waits for the one before.

        Args:
            submit: What is timed, called with the items in turn: it enqueues on the runner's stream; default: the
                runner's launch.
            items: Default: the runner's iterations over the slots.
            prepare: Enqueued and waited for before each iteration, untimed; default: what the runner does to make
                ready for an iteration, as the copy of a slot into its input buffers; nothing for other items.
            main: Whether it is the cell's latency: under the whole protocol, with a warm-up that also waits for the SM
                clock, and with its energy. Others are under ``shorter``.
        """
        launch, whole = submit or self.runner.launch, 1
        if prepare is None:
            prepare = self.runner.activate if items is None else nothing
        if items is None:
            items, whole = self.runner.iterations(self.slots), self.whole
        regime = Regime(prepare, launch, items, whole)
        if not main:
            return closed_loop(regime, self.runner.exposed_stream, self.shorter)[0]
        series, span = closed_loop(regime, self.runner.exposed_stream, self.protocol, self._monitor)
        # A decode step's energy cannot be had here: the prefills between them use as much, or more.
        inferences = 0 if self._prefills else len(series["latency_ns"]) * self.batch
        self._spans["latency"] = (*span, inferences)
        if self.runner.transfers_inside and self.runner.workload.task.generates:
            series["enqueue_ns"] = None  # every token travels to the host, and here the call that submits waits for it
        elif self.runner.transfers_inside:
            self.flags.append(INSIDE)
        return series

    @property
    def _prefills(self) -> bool:
        """Whether there are prefills between the iterations."""
        return self.runner.workload.task.generates and generation.phase(self.runner.shape) == "decode"

    def requests(self) -> tuple[list[list[int]], dict[str, Any]]:
        """As every bench's, with the energy of the tokens."""
        poll = self._monitor.poll if self._monitor else _no_monitor
        runner: Any = self.runner  # one that generates
        least = ENERGY_SECONDS if self._monitor and "energy_j" not in self._monitor.refused else 0.0
        seconds = {name: max(getattr(self.shorter, name), least) for name in ("min_seconds", "max_seconds")}
        times, ended, span = requests(runner.request, self.slots, dataclasses.replace(self.shorter, **seconds), poll)
        self._spans["requests"] = (*span, len(times) * self.batch * self.runner.shape["generated"])
        return times, ended

    def saturated(self) -> dict[str, Any]:
        """The throughput with up to ``IN_FLIGHT`` launches queued, and its energy."""
        depth = 1 if self.runner.transfers_inside else IN_FLIGHT
        self.runner.activate(self.slots[0])
        resident = Regime(self.runner.activate, self.runner.launch, self.slots)
        series, span, inferences = saturated(resident, self.runner.stream, self.protocol, batch=self.batch, depth=depth)
        self._spans["throughput"] = (*span, inferences)
        self._facts["in_flight"] = depth
        return series

    def _measure(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        self.note_memory()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.runner.failures())
            if self._gpu is not None:
                self._monitor = stack.enter_context(gpu_monitor.Monitor(self._gpu.uuid))
                self._monitor.wait_for_samples()
            costs = cuda.call_costs(self.runner.exposed_stream or cuda.Stream())
            self.runner.run(self.slots[0])
            compiled = self.runner.compilations()
            series = self._series(measurements)
            if (now := self.runner.compilations()) != compiled:
                self.flags.append(f"{now - compiled} compilations fell into the timed part")
            return {"series": series, "flags": self.flags, **self._watched({"calls": costs, **self._facts})}

    def _watched(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The record's ``gpu``, with these facts, and ``energy``."""
        watched: dict[str, Any] = {**(dataclasses.asdict(self._gpu) if self._gpu else {"uuid": None}), **facts}
        energy: dict[str, Any] | None = None
        if self._monitor is not None:
            # Readings after the last series, so that the energy counter can be read at its end.
            time.sleep(gpu_monitor.SETTLING_S)
            self._monitor.poll()
            samples = self._monitor.samples
            energy = {
                name: gpu_monitor.energy(samples, start, end, count)
                for name, (start, end, count) in self._spans.items()
            }
            for name, (start, end, _) in self._spans.items():
                summary = gpu_monitor.summarise(gpu_monitor.between(samples, start, end))
                watched[name] = summary
                self.flags += [f"{name}: {flag}" for flag in gpu_monitor.flags(summary)]
            self._refused |= self._monitor.refused
            self._refused |= {
                f"energy of {name}": f"the counter does not bound it within {gpu_monitor.LARGEST_ERROR:.0%} over "
                f"{(end - start) / 1e9:.2g} s"
                for name, (start, end, count) in self._spans.items()
                if count and not energy[name] and "energy_j" not in self._refused
            }
        if self._device is not None:
            watched = self._device.facts() | watched
            seen = (self._monitor.processes if self._monitor else {}) | (self._device.processes() or {})
            others, flag = gpu_monitor.neighbours(seen, os.getpid())
            watched["other_processes"] = {str(pid): used for pid, used in others.items()}
            self.flags += [flag] if flag else []
            self._refused |= self._device.refused
        watched["refused"] = self._refused
        return {"gpu": watched, "energy": energy}

    def close_memory(self) -> None:
        """Read the device's memory a last time: what is allocated from now on is the measurement's, not the cell's."""
        self.note_memory()
        self._settled = True

    def note_memory(self) -> None:
        if self._device is None or self._settled:
            return
        used = (self._device.processes() or {}).get(os.getpid())
        if used is not None:
            self._source = MEMORY_SOURCES["nvml-process"]
        elif (in_use := self._device.used_bytes()) is not None and self._base is not None:
            used = max(0, in_use - self._base)
            self._source = MEMORY_SOURCES["nvml-difference"]
        if used is not None:
            self._peak = max(self._peak or 0, int(used))

    def memory(self) -> dict[str, Any]:
        """Peak device memory of this process, and how it is known; for a failed cell up to the failure."""
        self.note_memory()
        return {
            "peak_device_bytes": self._peak,
            "source": self._source if self._peak is not None else "nothing could be read",
        }


def _no_monitor() -> None:
    pass


BENCH = CudaBench
