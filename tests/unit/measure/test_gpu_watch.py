"""What a watch says of windows, from samples that are planted: no card is here, so the sampler's process is none."""

import dataclasses
import os
import time
import types

import pytest

from ceilings.cuda.monitor import Sample
from ceilings.measure import gpu_watch


def sample(**fields):
    values = {field.name: None for field in dataclasses.fields(Sample)}
    return Sample(**{**values, "t_ns": time.perf_counter_ns(), "cost_s": 0.001, **fields})


@pytest.fixture
def watch(monkeypatch):
    """A watch whose monitor gets the samples that a test plants, and which has no NVML."""
    sampler = types.SimpleNamespace(samples=[], processes={}, refused={"energy_j": "Not Supported"}, poll=lambda: None)
    monkeypatch.setattr(gpu_watch.monitor, "Monitor", lambda uuid: sampler)

    def make(ours, served=False):
        return gpu_watch.GpuWatch("GPU-1", ours, served=served), sampler

    return make


def test_a_window_has_the_samples_within_it_and_a_flag_stands_once(watch):
    one, sampler = watch({os.getpid()})
    for clock in (1000.0, 1980.0):
        sampler.samples.append(sample(sm_mhz=345.0))  # between windows
        one.begin()
        sampler.samples.append(sample(sm_mhz=clock, utilisation=0.5))
        seen = one.end()
        assert (seen["samples"], seen["sm_mhz"]["max"], seen["utilisation"]["median"]) == (1, clock, 0.5)
        assert seen["activity"] is None
    assert one.flags() == ["SM clock moved between 1000 and 1980 MHz"]
    refused = one.facts()["refused"]
    assert refused["energy_j"] == "Not Supported" and "nvml" in refused  # and why nothing else is known


@pytest.mark.parametrize(
    ("ours", "seen", "served", "flagged"),
    [
        ({1, 2, 3}, {2, 3}, False, False),  # who leads has no context
        ({1, 2, 3}, {2, 3, 9}, False, False),  # a container may list the third under another number
        ({1, 2, 3}, {1, 2, 3, 9}, False, True),
        ({1, 2, 3}, {1, 2, 3, 9}, True, False),  # the server of MPS
        ({1, 2, 3}, {7, 8, 9, 10}, False, True),
    ],
)
def test_another_process_is_flagged(watch, ours, seen, served, flagged):
    one, sampler = watch(ours, served)
    sampler.processes = dict.fromkeys(seen)
    assert any("another process uses the GPU" in flag for flag in one.flags()) == flagged
