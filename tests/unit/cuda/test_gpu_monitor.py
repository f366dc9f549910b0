"""What samples of a GPU say, and that a refusing NVML ends no run."""

from __future__ import annotations

import dataclasses
import os
import types

import numpy as np
import pytest

from ceilings.cuda import monitor as gpu_monitor
from ceilings.cuda.monitor import Device, Monitor, Sample

MS = 1_000_000


def sample(t_ms, **fields):
    values = {field.name: None for field in dataclasses.fields(Sample)}
    return Sample(**{**values, "t_ns": round(t_ms * MS), "cost_s": 0.001, **fields})


def test_a_steady_clock_is_a_plateau_and_a_ramp_is_none():
    assert gpu_monitor.plateau([sample(i, sm_mhz=1980) for i in range(4)])
    assert gpu_monitor.plateau([sample(i, sm_mhz=mhz) for i, mhz in enumerate((345, 1200, 1980, 1965, 1980, 1980))])
    assert not gpu_monitor.plateau([sample(i, sm_mhz=mhz) for i, mhz in enumerate((1980, 1900, 1800, 1700))])
    assert not gpu_monitor.plateau([sample(i, sm_mhz=1980) for i in range(3)])


def test_a_clock_that_cannot_be_read_holds_nothing_up():
    assert gpu_monitor.plateau([sample(0), sample(1)])
    assert not gpu_monitor.plateau([])


def test_only_samples_of_the_span_count():
    samples = [sample(t, sm_mhz=mhz) for t, mhz in ((0, 345), (10, 1980), (20, 1965), (30, 345))]
    summary = gpu_monitor.summarise(gpu_monitor.between(samples, 5 * MS, 25 * MS))
    assert summary["sm_mhz"] == {"min": 1965, "median": 1972.5, "max": 1980}
    assert summary["power_w"] is None
    assert gpu_monitor.flags(summary) == []


def test_a_throttled_run_is_flagged_with_its_share():
    samples = [sample(i, sm_mhz=mhz, reasons=bits) for i, (mhz, bits) in enumerate(((1980, 0), (1200, 4), (1980, 1)))]
    assert gpu_monitor.flags(gpu_monitor.summarise(samples)) == [
        "throttled: SW power cap in 33% of samples",
        "SM clock moved between 1200 and 1980 MHz",
    ]


def test_nothing_read_is_nothing_flagged():
    summary = gpu_monitor.summarise([])
    assert summary["samples"] == 0 and summary["throttled"] is None
    assert gpu_monitor.flags(summary) == []


def counted(until_ms, watts, refresh_ms):
    """Readings every 25 ms of a counter that is refreshed every so often."""
    joules = np.concatenate([[0.0], np.cumsum([watts(t) / 1e3 for t in range(until_ms)])])
    return [sample(t, energy_j=float(joules[t // refresh_ms * refresh_ms])) for t in range(0, until_ms, 25)]


@pytest.mark.parametrize("refresh_ms", [20, 50, 100])
@pytest.mark.parametrize("start_ms", [503, 561, 598])
@pytest.mark.parametrize(("idle", "busy"), [(500, 500), (120, 600), (600, 120)])
def test_the_true_energy_lies_within_what_the_counter_bounds(refresh_ms, start_ms, idle, busy):
    for seconds in (0.7, 2.5):
        end_ms = start_ms + round(seconds * 1e3)
        samples = counted(end_ms + 250, lambda t: busy if start_ms <= t < end_ms else idle, refresh_ms)  # noqa: B023
        found = gpu_monitor.energy(samples, start_ms * MS, end_ms * MS, 10)
        if found is None:
            assert idle > busy or (seconds < 1 and refresh_ms == 100)
            continue
        assert found["joules"] == pytest.approx(busy * seconds, rel=found["uncertainty"])
        assert idle > busy or found["uncertainty"] < 2.5 * (refresh_ms + 25) / 1e3 / seconds
        assert idle != busy or found["joules"] == pytest.approx(busy * seconds, rel=0.03 / seconds)


def test_a_counter_that_stood_still_says_nothing():
    samples = [sample(t, energy_j=7.0) for t in range(0, 2000, 25)]
    assert gpu_monitor.energy(samples, 510 * MS, 1510 * MS, 100) is None


def test_energy_is_interpolated_between_the_samples_around_the_span():
    samples = [sample(t, energy_j=t * 0.5) for t in range(0, 2001, 25)]  # 500 W
    found = gpu_monitor.energy(samples, 510 * MS, 1510 * MS, inferences=100)
    assert found["joules"] == pytest.approx(500)
    assert found["mean_watts"] == pytest.approx(500)
    assert found["joules_per_inference"] == pytest.approx(5)
    assert found["uncertainty"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("samples", "end_ms"),
    [
        ([sample(t, energy_j=t) for t in range(0, 1000, 25)], 100),
        ([sample(t) for t in range(0, 1000, 25)], 900),
        ([sample(t, energy_j=t) for t in range(0, 500, 25)], 900),
    ],
    ids=["too short", "refused", "samples end early"],
)
def test_energy_that_cannot_be_known_is_none(samples, end_ms):
    assert gpu_monitor.energy(samples, 0, end_ms * MS, 10) is None


def test_neighbours():
    assert gpu_monitor.neighbours({10: 1}, this=10) == ({}, None)
    assert gpu_monitor.neighbours({99: 1}, this=10) == ({}, None)  # one process, numbered by another namespace
    others, flag = gpu_monitor.neighbours({10: 1, 7: None}, this=10)
    assert others == {7: None} and flag == "another process uses the GPU: pid 7"


def fake_nvml(refuse=()):
    """The functions that are called, checked against the real module, answering with constants."""
    real = pytest.importorskip("pynvml")
    answers = {
        "nvmlInit": None,
        "nvmlDeviceGetHandleByUUID": "handle",
        "nvmlDeviceGetClockInfo": 1980,
        "nvmlDeviceGetPowerUsage": 123_000,
        "nvmlDeviceGetTemperature": 40,
        "nvmlDeviceGetCurrentClocksEventReasons": 4,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 4,
        "nvmlDeviceGetUtilizationRates": types.SimpleNamespace(gpu=50),
        "nvmlDeviceGetTotalEnergyConsumption": 5_000,
        "nvmlDeviceGetComputeRunningProcesses": [types.SimpleNamespace(pid=os.getpid(), usedGpuMemory=7)],
        "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(used=9),
        "nvmlDeviceGetName": b"NVIDIA Test",
        "nvmlSystemGetDriverVersion": "1.2",
        "nvmlDeviceGetMaxClockInfo": 1980,
        "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    }
    calls = []

    def function(name):
        def call(*_):
            calls.append(name)
            if name in refuse:
                raise real.NVMLError(real.NVML_ERROR_NOT_SUPPORTED)
            return answers[name]

        return call

    missing = [name for name in answers if not hasattr(real, name)]
    assert not missing
    constants = {name: getattr(real, name) for name in ("NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU")}
    return types.SimpleNamespace(
        **{name: function(name) for name in answers}, **constants, NVMLError=real.NVMLError, calls=calls
    )


def test_units():
    device = Device("GPU-0", fake_nvml())
    read = device.sample()
    assert (read.sm_mhz, read.power_w, read.utilisation, read.energy_j, read.reasons) == (1980, 123.0, 0.5, 5.0, 4)
    assert device.facts() == {"name": "NVIDIA Test", "driver": "1.2", "max_sm_mhz": 1980, "power_limit_w": 700.0}
    assert device.processes() == {os.getpid(): 7} and device.used_bytes() == 9


def test_a_refused_call_is_null_with_its_reason_and_not_tried_again():
    nvml = fake_nvml(refuse=("nvmlDeviceGetPowerUsage",))
    device = Device("GPU-0", nvml)
    assert device.sample().power_w is None and device.sample().power_w is None
    assert list(device.refused) == ["power_w"]
    assert nvml.calls.count("nvmlDeviceGetPowerUsage") == 1


def test_without_a_driver_the_sampler_says_why_and_the_run_goes_on():
    try:
        Device("GPU-none")
    except Exception:
        pass
    else:
        pytest.skip("this machine has an NVIDIA driver")
    with Monitor("GPU-none") as monitor:
        assert not monitor.wait_for_samples(timeout_s=10)
    assert monitor.samples == [] and "everything" in monitor.refused


NVML = """
import itertools, types
NVMLError = type("NVMLError", (Exception,), {})
calls = itertools.count()
def listed(_):
    there = [4711] if next(calls) == 1 else []  # for as long as one listing
    return [types.SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in [PARENT, *there]]
nvmlDeviceGetComputeRunningProcesses = listed
def refuse(*_):
    raise NVMLError("not supported")
def __getattr__(name):
    if not name.startswith(("nvml", "NVML_")):
        raise AttributeError(name)
    return (lambda *_: None) if name in ("nvmlInit", "nvmlDeviceGetHandleByUUID") else refuse
"""


def test_a_process_that_came_and_went_while_timing_is_seen(tmp_path, monkeypatch):
    (tmp_path / "pynvml.py").write_text(NVML.replace("PARENT", str(os.getpid())))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Monitor("GPU-0", period_s=0.001) as monitor:
        assert monitor.wait_for_samples(40, timeout_s=20)
    assert monitor.processes == {os.getpid(): None, 4711: None} and "power_w" in monitor.refused
    assert gpu_monitor.neighbours(monitor.processes, os.getpid())[1] == "another process uses the GPU: pid 4711"
