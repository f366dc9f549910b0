"""All that a GPU's cell is measured by, against a device that keeps a diary and has its memory on the host."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import types

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

from ceilings import gpu
from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure
from ceilings.measure import gpu_loop, transfers
from ceilings.measure.cuda_bench import INSIDE, CudaBench
from ceilings.measure.measurements import boundaries, closed_loop, cold_cache, saturated
from ceilings.measure.stopping import Protocol
from ceilings.runtimes.cuda_runner import CudaRunner
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

PROTOCOL = Protocol(
    warmup_seconds=0.001,
    warmup_max_seconds=0.02,
    min_iterations=8,
    min_seconds=0.001,
    max_seconds=0.01,
    precision=0.5,
    saturated_seconds=0.002,
    concurrency=1,
    time_limit_seconds=60,
)
DIMS = ("batch", "sequence")
WORKLOAD = Workload(
    TASKS["tensors"],
    (TensorSpec("left", "float32", DIMS, "reals"), TensorSpec("right", "int64", DIMS, "integers", 0, 9)),
    (TensorSpec("sum", "float32", DIMS), TensorSpec("product", "float32", DIMS)),
)
SHAPE = Shape.parse("b2-s3")
MEASUREMENTS = {"closed": closed_loop, "boundaries": boundaries, "saturated": saturated, "cold": cold_cache}


class Buffer:
    """Memory of the device or of the host."""

    def __init__(self, nbytes):
        self.values = np.zeros(nbytes, np.uint8)
        self.pointer = self.values.ctypes.data

    def upload(self, array):
        self.values[:] = np.ascontiguousarray(array).view(np.uint8).ravel()

    def array(self, sizes, dtype):
        return self.values.view(dtype).reshape(sizes)


class Runner(CudaRunner):
    """Adds and multiplies, with one output in half precision."""

    memory = types.SimpleNamespace(DeviceBuffer=Buffer, PinnedBuffer=Buffer)
    output_types = ("float32", "float16")

    def __init__(self, diary):
        super().__init__(None, "fp16", WORKLOAD, SHAPE, 1, {})
        self.diary = diary
        self.stream = types.SimpleNamespace(native="stream", synchronize=lambda: diary.append("wait"))

    def load(self):
        self.inputs = [Buffer(tensor.nbytes(SHAPE)) for tensor in WORKLOAD.inputs]
        self.input_buffers = {
            tensor.name: (buffer.pointer, len(buffer.values))
            for tensor, buffer in zip(WORKLOAD.inputs, self.inputs, strict=True)
        }
        self.results = [Buffer(nbytes) for nbytes in self.output_bytes]

    def launch(self, slot):
        self.diary.append("launch")
        left, right = self.inputs[0].array((2, 3), np.float32), self.inputs[1].array((2, 3), np.int64)
        self.results[0].array((2, 3), np.float32)[...] = left + right
        self.results[1].array((2, 3), np.float16)[...] = left * right

    def output_pointers(self, launched):
        return tuple(buffer.pointer for buffer in self.results)


class Inside(Runner):
    transfers_inside = True


@pytest.fixture
def make(diary, monkeypatch):
    """A bench by runner, on a device without NVML."""

    def refuse():
        raise cuda.CudaError("no device")

    def download(pointer, nbytes):
        return np.frombuffer(ctypes.string_at(pointer, nbytes), np.uint8)

    monkeypatch.setattr(gpu, "visible", refuse)
    monkeypatch.setattr(cuda, "call_costs", lambda _: {"clock_ns": 1.0})
    monkeypatch.setattr(cuda, "download", download)
    monkeypatch.setattr(cuda, "L2Flush", lambda _: lambda: diary.append("flush"))

    def make(kind):
        runner = kind(diary)
        bench = CudaBench(runner)
        runner.load()
        random = np.random.default_rng(0)
        bench.elements = [
            {"left": random.standard_normal((2, 3)).astype(np.float32), "right": random.integers(0, 9, (2, 3))}
            for _ in range(3)
        ]
        bench.slots = [runner.place(element) for element in bench.elements]
        return bench

    return make


def iteration(diary, mark, after=0):
    """The first iteration of a series, from what follows the one before, that holds ``mark``."""
    parts = [list(part) for end, part in itertools.groupby(diary, lambda call: call == "elapsed") if not end]
    return [part for part in parts if mark in part][after]


def measured(bench, diary, measurements):
    diary.clear()
    return bench.measure(bench.slots, bench.elements, PROTOCOL, measurements)


def test_every_measurement_gives_its_series(make, diary):
    record = measured(make(Runner), diary, MEASUREMENTS)
    assert list(record["series"]) == [
        *("latency", "latency_end_to_end", "latency_end_to_end_pageable"),
        *("throughput", "latency_cold"),
    ]
    for name, series in record["series"].items():
        if name != "throughput":
            assert len(series["latency_ns"]) == len(series["gpu_ns"]) == len(series["enqueue_ns"]) >= 2, name
    assert record["series"]["throughput"]["concurrency"] == 8 == record["gpu"]["in_flight"]
    assert record["gpu"]["calls"] == {"clock_ns": 1.0}
    assert record["gpu"]["refused"] == {"nvml": "CudaError: no device"}
    assert record["flags"] == [] and record["energy"] is None


@pytest.mark.parametrize(
    ("measurement", "expected"),
    [
        (closed_loop, ["copy", "copy", "wait", "record", "launch", "record", "wait"]),
        (boundaries, ["wait", "record", "copy", "copy", "launch", "copy", "copy", "record", "wait"]),
        (cold_cache, ["copy", "copy", "flush", "wait", "record", "launch", "record", "wait"]),
    ],
    ids=["closed-loop", "boundaries", "cold-cache"],
)
def test_what_an_iteration_does_in_which_order(make, diary, measurement, expected):
    """Two inputs, two outputs: between the two records lies what is timed."""
    bench = make(Runner)
    measured(bench, diary, {"it": measurement})
    assert iteration(diary, "record", after=1) == expected


def test_the_saturated_loop_places_one_element_and_then_only_launches(make, diary):
    bench = make(Runner)
    measured(bench, diary, {"it": saturated})
    first = ["copy", "copy", "launch", "wait"]  # the first run of all
    assert diary[: len(first) + 19] == [*first, "copy", "copy", "wait", *["launch", "record"] * 8]
    assert diary[len(first) + 19 : len(first) + 22] == ["wait event"] * 2 + ["launch"]


def test_launches_that_copy_have_no_boundary_on_the_device(make, diary):
    record = measured(make(Inside), diary, MEASUREMENTS)
    assert "latency_end_to_end" not in record["series"] and "latency_end_to_end_pageable" in record["series"]
    assert record["series"]["throughput"]["concurrency"] == 1
    assert record["flags"] == [INSIDE]


def test_compilations_while_timed_are_flagged(make, diary):
    bench = make(Runner)
    counts = iter([3, 5])
    bench.runner.compilations = lambda: next(counts)
    assert measured(bench, diary, {"it": closed_loop})["flags"] == ["2 compilations fell into the timed part"]


def test_a_series_has_one_measurement(make, diary):
    with pytest.raises(RuntimeError, match="the measurement again gives the series latency"):
        measured(make(Runner), diary, {"it": closed_loop, "again": closed_loop})


@pytest.mark.parametrize("pinned", [True, False])
def test_copies_are_those_of_the_inference(make, diary, pinned):
    bench = make(Runner)
    runner, inputs = bench.runner, bench.elements[1]
    element = transfers.host_element(runner, inputs, bench.slots[1], pinned)
    transfers.verify_transfers(runner, element)
    total, product = (element.values[0].view(np.float32), element.values[1].view(np.float16))
    np.testing.assert_array_equal(total.reshape(2, 3), (inputs["left"] + inputs["right"]).astype(np.float32))
    np.testing.assert_array_equal(product.reshape(2, 3), (inputs["left"] * inputs["right"]).astype(np.float16))
    another = transfers.host_element(runner, bench.elements[2], bench.slots[2], pinned)
    with pytest.raises(RuntimeError, match="output sum as copied differs"):
        transfers.verify_transfers(runner, dataclasses.replace(element, copies=another.copies))


def test_an_input_of_another_size_is_refused(make, diary):
    bench = make(Runner)
    short = {**bench.elements[0], "right": np.zeros((2, 2), np.int64)}
    with pytest.raises(ValueError, match="input right has 32 bytes; the runtime reads 48"):
        transfers.host_element(bench.runner, short, bench.slots[0], True)


class Nvml:
    """A device whose memory is read as these numbers, one after the other."""

    def __init__(self, listed, used):
        self.listed, self.used = iter(listed), iter(used)

    def processes(self):
        return next(self.listed)

    def used_bytes(self):
        return next(self.used)


def test_memory_is_the_highest_reading_before_the_instrument_s_own_buffer(make, monkeypatch):
    bench = make(Runner)
    bench._device, bench._base = Nvml([{}] * 3, [500, 900, 700]), 100
    bench.note_memory()
    bench.note_memory()
    bench.close_memory()
    assert bench.memory()["peak_device_bytes"] == 800
    assert bench.memory()["source"].startswith("device memory in use less that at the start")


def test_a_failure_of_the_runtime_is_the_cell_s(make, diary):
    bench = make(Runner)

    def launch(_):
        raise CellFailure("out-of-memory", "too large")

    bench.runner.launch = launch
    with pytest.raises(CellFailure, match="too large"):
        measured(bench, diary, {"it": closed_loop})
    assert gpu_loop.IN_FLIGHT == 8 and bench.memory() == {
        "peak_device_bytes": None,
        "source": "nothing could be read",
    }
