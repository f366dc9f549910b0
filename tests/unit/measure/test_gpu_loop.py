"""The GPU's loops against a device that only keeps a diary."""

from __future__ import annotations

import dataclasses
import time
import types

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure
from ceilings.measure import gpu_loop
from ceilings.measure.stopping import Protocol, secondary
from ceilings.runtimes.cuda_runner import as_float32
from ceilings.schemas.run import HOST_SPEED, LATENCIES

PROTOCOL = Protocol(
    warmup_seconds=0.01,
    warmup_max_seconds=0.5,
    min_iterations=20,
    min_seconds=0.05,
    max_seconds=0.2,
    precision=0.5,
    saturated_seconds=0.05,
    concurrency=1,
    time_limit_seconds=60,
)


STREAM = types.SimpleNamespace(native="stream", synchronize=lambda: None)


def test_one_iteration_prepares_waits_and_only_then_is_timed(diary):
    regime = gpu_loop.Regime(lambda _: diary.append("prepare"), lambda _: diary.append("launch"), ["a", "b"])
    samples = gpu_loop.Samples()
    gpu_loop.block(regime, STREAM, (cuda.Event(), cuda.Event()), 1, samples)
    assert diary == ["prepare", "wait", "record", "launch", "record", "wait", "elapsed"]
    assert samples.gpu_ns == [250_000]
    assert 0 < samples.enqueue_ns[0] <= samples.latency_ns[0]


def test_the_pool_goes_on_from_block_to_block(diary):
    seen = []
    regime = gpu_loop.Regime(lambda _: None, seen.append, ["a", "b", "c"])
    samples = gpu_loop.Samples()
    for count in (2, 2):
        gpu_loop.block(regime, STREAM, (cuda.Event(), cuda.Event()), count, samples)
    assert seen == ["a", "b", "c", "a"]


def test_a_series_has_the_layout_of_a_cpu_s_and_three_numbers_an_iteration(diary):
    regime = gpu_loop.Regime(lambda _: None, lambda _: time.sleep(0.001), ["a"])
    series, (start, end) = gpu_loop.closed_loop(regime, STREAM, PROTOCOL)
    assert set(series) == {*LATENCIES, *HOST_SPEED}
    assert len(series["latency_ns"]) == len(series["gpu_ns"]) == len(series["enqueue_ns"]) >= 20
    assert end - start >= PROTOCOL.min_seconds * 1e9
    assert series["stop_reason"] == "precise"


def test_an_error_of_the_device_ends_the_series(diary, monkeypatch):
    failed = cuda.cudart.cudaError_t.cudaErrorIllegalAddress
    monkeypatch.setattr(gpu_loop.cudart, "cudaStreamSynchronize", lambda _: (failed,))
    monkeypatch.setattr(cuda.cudart, "cudaGetLastError", lambda: (0,))
    regime = gpu_loop.Regime(lambda _: None, lambda _: None, ["a"])
    with pytest.raises(cuda.CudaError, match="cudaErrorIllegalAddress"):
        gpu_loop.block(regime, STREAM, (cuda.Event(), cuda.Event()), 1, gpu_loop.Samples())


def test_saturated_counts_what_ended_after_the_first(diary):
    regime = gpu_loop.Regime(lambda _: None, lambda _: time.sleep(0.001), ["a"])
    series, (start, end), inferences = gpu_loop.saturated(regime, STREAM, PROTOCOL, batch=4, depth=8)
    assert series["concurrency"] == 8
    assert series["completions"] == diary.count("record") - 1
    assert inferences == series["completions"] * 4
    assert series["inferences_per_s"] == pytest.approx(inferences / ((end - start) / 1e9))


def test_further_series_get_a_quarter_of_the_time():
    shorter = secondary(dataclasses.replace(PROTOCOL, min_seconds=2, max_seconds=8, min_iterations=1000))
    assert (shorter.min_seconds, shorter.max_seconds, shorter.min_iterations) == (0.5, 2, 250)
    assert shorter.precision == PROTOCOL.precision
    assert secondary(dataclasses.replace(PROTOCOL, min_iterations=3)).min_iterations == 2


def test_a_lack_of_memory_is_a_failure_of_the_cell(monkeypatch):
    monkeypatch.setattr(cuda.cudart, "cudaGetLastError", lambda: (0,))
    with pytest.raises(CellFailure) as caught:
        cuda.check((cuda.cudart.cudaError_t.cudaErrorMemoryAllocation, None), "allocating 8 bytes")
    assert caught.value.kind == "out-of-memory"
    assert cuda.check((cuda.cudart.cudaError_t.cudaSuccess, 1, 2)) == (1, 2)
    assert cuda.check((cuda.cudart.cudaError_t.cudaSuccess,)) is None


def test_bfloat16_is_the_upper_half_of_a_float32():
    values = np.array([1.0, -2.5, 0.0], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    assert as_float32(upper.view(np.uint8), "bfloat16").tolist() == values.tolist()
    assert as_float32(values.astype(np.float16).view(np.uint8), "float16").tolist() == values.tolist()
