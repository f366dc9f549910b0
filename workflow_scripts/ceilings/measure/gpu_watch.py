"""What a GPU does in a window of a co-location, and whether others use it."""

from __future__ import annotations

import time
from collections.abc import Collection
from types import TracebackType
from typing import Any

from ceilings.cuda import monitor
from ceilings.cuda.sm_activity import SmActivity


class GpuWatch:
    """Context that watches a GPU from beside it: it makes no CUDA context.

    Args:
        uuid: Of the GPU.
        ours: Numbers of the processes that belong to the measurement.
        served: Whether a server of MPS computes for them.
    """

    def __init__(self, uuid: str, ours: Collection[int], *, served: bool = False) -> None:
        self._ours, self._served = ours, served
        self._monitor = monitor.Monitor(uuid)
        self._refused: dict[str, str] = {}
        self._spans: list[tuple[int, int]] = []
        self._device: monitor.Device | None = None
        self._activity: SmActivity | None = None
        try:
            self._device = monitor.Device(uuid)
            self._activity = SmActivity(self._device)
        except Exception as error:  # no NVML, or none that answers: the run goes on and says so
            self._refused["nvml"] = f"{type(error).__name__}: {error}"

    def __enter__(self) -> GpuWatch:
        self._monitor.__enter__()
        self._monitor.wait_for_samples()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._monitor.__exit__(kind, error, tb)

    def begin(self) -> None:
        """A window opens."""
        self._began = time.perf_counter_ns()
        self._mark = self._activity.mark() if self._activity else None

    def end(self) -> dict[str, Any]:
        """A window closes.

        Returns:
            ``activity`` of the SMs since it opened, as shares (None where NVML does not say), and a summary of the
            samples in it.
        """
        activity = self._activity.since(self._mark) if self._activity else None
        self._monitor.poll()
        self._spans.append((self._began, time.perf_counter_ns()))
        return {"activity": activity, **monitor.summarise(monitor.between(self._monitor.samples, *self._spans[-1]))}

    def flags(self) -> list[str]:
        """Warnings that belong beside the numbers."""
        samples = [one for span in self._spans for one in monitor.between(self._monitor.samples, *span)]
        flags = monitor.flags(monitor.summarise(samples))
        seen = self._monitor.processes
        others = sorted(pid for pid in seen if pid not in self._ours)
        # A container numbers its processes anew, so some of ours may be listed under other numbers.
        unlisted = len(self._ours) - (len(seen) - len(others)) + self._served
        if len(others) > unlisted:
            flags.append(f"another process uses the GPU: {len(seen)} are listed, {len(self._ours)} belong here")
        return flags

    def facts(self) -> dict[str, Any]:
        """What does not change while measuring, and what NVML refused."""
        refused = self._refused | self._monitor.refused | (self._device.refused if self._device else {})
        return {**(self._device.facts() if self._device else {}), "refused": refused}
