"""The PyCUDA half of the TensorRT runners on a real device, around kernels of PyTorch instead of an engine."""

from __future__ import annotations

import importlib
import time

import numpy as np
import pytest

from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

pytest.importorskip("pycuda")

SHAPE = Shape.parse("b4-s64")
SIZES = (SHAPE["batch"], SHAPE["sequence"])
WIDTH = 256
WORKLOAD = Workload(
    TASKS["sequence-classification"],
    (
        TensorSpec("input_ids", "int64", ("batch", "sequence"), "tokens", 0, 999),
        TensorSpec("attention_mask", "int64", ("batch", "sequence"), "mask"),
    ),
    (TensorSpec("logits", "float32", ("batch", 2)), TensorSpec("hidden", "float32", ("batch", WIDTH))),
)


@pytest.fixture(scope="session")
def weights():
    random = np.random.default_rng(0)
    return [random.normal(0, 0.1, size).astype(np.float32) for size in ((SIZES[1], WIDTH), (WIDTH, WIDTH), (WIDTH, 2))]


@pytest.fixture(scope="session")
def pool():
    random = np.random.default_rng(1)
    return [
        {
            "input_ids": random.integers(0, 1000, SIZES, dtype=np.int64),
            "attention_mask": random.integers(0, 2, SIZES, dtype=np.int64),
        }
        for _ in range(3)
    ]


def expected(weights, inputs):
    values = (inputs["input_ids"] * inputs["attention_mask"]).astype(np.float32) / 1000
    for weight in weights[:-1]:
        values = np.tanh(values @ weight)
    return {"logits": values @ weights[-1], "hidden": values}


def close(found, wanted):
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)


class View:
    """Memory that someone else owns, as PyTorch takes it."""

    def __init__(self, pointer: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": kind, "data": (pointer, False), "version": 3}


@pytest.fixture
def make(weights):
    """Loaded runners whose work is a sequence of PyTorch's kernels between PyCUDA's buffers."""
    import torch

    from ceilings.runtimes.pycuda_runner import PyCudaRunner

    class Payload(PyCudaRunner):
        def load(self) -> None:
            self.open_device()
            self.output_types = ("float32", "float32")
            self.allocate()
            torch.cuda.set_stream(torch.cuda.ExternalStream(self.stream.handle))
            views = [View(pointer, SIZES, "<i8") for pointer, _ in self.input_buffers.values()]
            self.tokens, self.mask = (torch.as_tensor(view, device="cuda") for view in views)
            self.logits, self.last = (
                torch.as_tensor(View(buffer.pointer, sizes, "<f4"), device="cuda")
                for buffer, sizes in zip(self.output_buffers.values(), self.output_sizes(), strict=True)
            )
            assert (self.logits.data_ptr(), self.last.data_ptr()) == self.output_pointers(None)
            self.matrices = [torch.from_numpy(weight).cuda() for weight in weights]
            self.product = torch.empty(SIZES, dtype=torch.int64, device="cuda")
            self.values = torch.empty(SIZES, dtype=torch.float32, device="cuda")
            self.first = torch.empty((SIZES[0], WIDTH), device="cuda")
            torch.cuda.synchronize()
            self.prepare_launch()

        def enqueue(self) -> None:
            torch.mul(self.tokens, self.mask, out=self.product)
            self.values.copy_(self.product)
            self.values.mul_(0.001)
            torch.mm(self.values, self.matrices[0], out=self.first).tanh_()
            torch.mm(self.first, self.matrices[1], out=self.last).tanh_()
            torch.mm(self.last, self.matrices[2], out=self.logits)

    def load(cuda_graph: bool) -> Payload:
        torch.backends.cuda.matmul.allow_tf32 = False
        runner = Payload("payload", "fp32", WORKLOAD, SHAPE, 1, {"cuda_graph": cuda_graph})
        runner.load()
        return runner

    yield load
    torch.cuda.set_stream(torch.cuda.default_stream())


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["enqueued", "captured"])
def test_each_replay_reads_the_inputs_that_were_activated(make, weights, pool, cuda_graph):
    runner = make(cuda_graph)
    slots = [runner.place(element) for element in pool]
    for index in (0, 1, 2, 0):
        close(runner.outputs(runner.run(slots[index])), expected(weights, pool[index]))
    facts = runner.describe()
    print(facts)
    assert facts["cuda_graph"] == cuda_graph
    assert (facts["graph_nodes"] or 0) >= (8 if cuda_graph else 0)


def test_the_instrument_measures_a_pycuda_runner_whole(make, pool):
    """Every series, pinned copies included, by the instrument of all runtimes; a graph costs the host less."""
    from ceilings.measure import catalogue
    from ceilings.measure.cuda_bench import CudaBench
    from ceilings.measure.stopping import Protocol

    measurements = {
        name: importlib.import_module(f"ceilings.measure.measurements.{module}")
        for name, module in catalogue.task_entries("cuda")
    }
    protocol = Protocol(0.1, 1, 50, 0.3, 0.6, 0.05, 0.2, 1, 100)
    enqueue_us = {}
    for cuda_graph in (False, True):
        runner = make(cuda_graph)
        slots = [runner.place(element) for element in pool]
        runner.run(slots[0])
        found = CudaBench(runner).measure(slots, pool, protocol, measurements)
        series = found["series"]
        assert {"latency", "latency_end_to_end", "latency_cold", "throughput"} <= set(series)
        medians = {
            name: [round(float(np.median(one[key])) / 1e3, 1) for key in ("latency_ns", "gpu_ns", "enqueue_ns")]
            for name, one in series.items()
            if "latency_ns" in one
        }
        print("graph" if cuda_graph else "kernels", "us, host/gpu/enqueue:", medians, found["flags"])
        enqueue_us[cuda_graph] = medians["latency"][2]
        assert 0 < medians["latency"][1] <= medians["latency"][0] * 1.1
    assert enqueue_us[True] < enqueue_us[False] / 2, enqueue_us


def test_the_two_apis_share_one_context_stream_and_clock(make):
    import torch
    from cuda.bindings import driver
    from pycuda import driver as pycuda

    from ceilings.cuda import device as cuda
    from ceilings.cuda import pycuda_memory

    runner = make(False)
    assert int(driver.cuCtxGetCurrent()[1]) == int(driver.cuDevicePrimaryCtxRetain(0)[1])
    assert pycuda.Context.get_current() is not None
    assert runner.stream.handle == runner.stream.pycuda.handle == int(runner.stream.native)
    begin, end, watch = cuda.Event(), cuda.Event(), pycuda_memory.Stopwatch(runner.stream)
    torch.cuda._sleep(1000)
    runner.stream.synchronize()
    begin.record(runner.stream)
    watch.start()
    torch.cuda._sleep(50_000_000)  # about 25 ms
    end.record(runner.stream)
    theirs = watch.stop_ns()
    runner.stream.synchronize()
    assert theirs > 5_000_000 and abs(theirs / cuda.elapsed_ns(begin, end) - 1) < 0.01


def test_a_launch_only_enqueues_behind_work_on_pycuda_s_stream(make, pool):
    import torch

    for cuda_graph in (False, True):
        runner = make(cuda_graph)
        slot = runner.place(pool[0])
        runner.run(slot)
        torch.cuda._sleep(100_000_000)  # about 50 ms
        start = time.perf_counter_ns()
        runner.launch(slot)
        enqueued = time.perf_counter_ns() - start
        runner.stream.synchronize()
        waited = time.perf_counter_ns() - start
        assert enqueued < 20_000_000 < waited


def test_too_large_an_allocation_is_out_of_memory(make):
    from ceilings.cuda import pycuda_memory
    from ceilings.errors import CellFailure

    make(False)
    for kind in (pycuda_memory.DeviceBuffer, pycuda_memory.PinnedBuffer):
        with pytest.raises(CellFailure) as caught:
            kind(1 << 50)
        assert caught.value.kind == "out-of-memory"


def test_a_capture_that_fails_leaves_the_stream_usable(make, pool, weights):
    from ceilings.cuda import device as cuda
    from ceilings.cuda.cuda_graph import captured

    runner = make(False)
    with pytest.raises(ZeroDivisionError), captured(runner.stream):
        1 / 0  # noqa: B018
    with pytest.raises(cuda.CudaError), captured(runner.stream):
        cuda.cudart.cudaStreamSynchronize(runner.stream.native)  # not allowed in a capture
    slot = runner.place(pool[0])
    close(runner.outputs(runner.run(slot)), expected(weights, pool[0]))
