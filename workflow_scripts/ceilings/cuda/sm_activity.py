"""How much of a GPU's multiprocessors works, between two times: NVML's GPU performance metrics (GPM).

GPM reads counters of the hardware, so what lies between two of its samples is known whole. Hopper and later GPUs have
it, slices of a card (MIG) not by this call. What NVML calls utilisation is another thing: the share of time in which
any kernel runs, however few multiprocessors it occupies.
"""

from __future__ import annotations

from typing import Any

from ceilings.cuda.monitor import Device

METRICS = {
    "sm": "NVML_GPM_METRIC_SM_UTIL",
    "warps": "NVML_GPM_METRIC_SM_OCCUPANCY",
    "busy": "NVML_GPM_METRIC_GRAPHICS_UTIL",
    "memory": "NVML_GPM_METRIC_DRAM_BW_UTIL",
}
"""Mean share of multiprocessors that are busy, of warps that are active, of time with any work, of the bandwidth."""

FIELD = "sm_activity"
"""As what NVML refuses it."""


class SmActivity:
    """The counters of one GPU; without them :meth:`since` says None, and the device's ``refused`` why."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def mark(self) -> Any:
        """The counters as they are now; None where they cannot be read."""
        return self._device.read(FIELD, self._sample)

    def since(self, mark: Any) -> dict[str, float | None] | None:
        """Shares by the names of ``METRICS`` from ``mark`` until now; each None where NVML does not give it."""
        now = self.mark() if mark is not None else None
        if now is None:
            return None
        shares: dict[str, float | None] | None = self._device.read(FIELD, lambda: self._between(mark, now))
        for sample in (mark, now):
            self._device.nvml.nvmlGpmSampleFree(sample)
        return shares

    def _sample(self) -> Any:
        nvml = self._device.nvml
        return nvml.nvmlGpmSampleGet(self._device.handle, nvml.nvmlGpmSampleAlloc())

    def _between(self, first: Any, second: Any) -> dict[str, float | None]:
        nvml = self._device.nvml
        asked = nvml.c_nvmlGpmMetricsGet_t()
        asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
        asked.numMetrics = len(METRICS)
        asked.sample1, asked.sample2 = first, second
        for at, name in enumerate(METRICS.values()):
            asked.metrics[at].metricId = getattr(nvml, name)
        nvml.nvmlGpmMetricsGet(asked)
        return {
            name: asked.metrics[at].value / 100 if asked.metrics[at].nvmlReturn == nvml.NVML_SUCCESS else None
            for at, name in enumerate(METRICS)
        }
