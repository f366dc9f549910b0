"""The counters of a GPU's multiprocessors, against a double of NVML with the structures of the real bindings."""

import types

import pynvml
import pytest

from ceilings.cuda.monitor import Device
from ceilings.cuda.sm_activity import METRICS, SmActivity

KEPT = ("c_nvmlGpmMetricsGet_t", "c_nvmlGpmSample_t", "NVML_GPM_METRICS_GET_VERSION", "NVML_SUCCESS", "NVMLError")


class Nvml(types.SimpleNamespace):
    """A card whose counters grow by what is asked of it; ``refuses`` names the call that it refuses."""

    def __init__(self, shares, refuses=""):
        super().__init__(**{name: getattr(pynvml, name) for name in (*KEPT, *METRICS.values())})
        self.shares, self.refuses, self.open = shares, refuses, 0

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return "card"

    def nvmlGpmSampleAlloc(self):
        self.open += 1
        return self.c_nvmlGpmSample_t()

    def nvmlGpmSampleGet(self, handle, sample):
        if self.refuses == "sample":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return sample

    def nvmlGpmSampleFree(self, sample):
        self.open -= 1

    def nvmlGpmMetricsGet(self, asked):
        assert asked.version == 1 and asked.numMetrics == len(METRICS)
        for at in range(asked.numMetrics):
            metric = asked.metrics[at]
            share = self.shares.get(metric.metricId)
            metric.nvmlReturn = pynvml.NVML_SUCCESS if share is not None else pynvml.NVML_ERROR_NOT_SUPPORTED
            metric.value = 100 * (share or 0)
        return asked


def activity_of(nvml):
    device = Device("GPU-1", nvml)
    return device, SmActivity(device)


def test_shares_are_those_between_two_marks_and_what_is_not_given_is_none():
    nvml = Nvml({pynvml.NVML_GPM_METRIC_SM_UTIL: 0.25, pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL: 0.5})
    device, activity = activity_of(nvml)
    shares = activity.since(activity.mark())
    assert shares == pytest.approx({"sm": 0.25, "busy": 0.5, "warps": None, "memory": None})
    assert nvml.open == 0 and not device.refused


def test_a_card_without_counters_says_none_and_why():
    device, activity = activity_of(Nvml({}, refuses="sample"))
    assert activity.since(activity.mark()) is None
    assert device.refused == {"sm_activity": "Not Supported"}
