"""PyTorch's runner of changing shapes on a GPU, held to the same answers where there is none.

Eager and compiled requests are real, on a CPU: the runner takes the device as an attribute. CUDA's graphs are a double
of the calls that the runner makes: a capture keeps what was called, and a replay does it again on the same addresses.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

import torch
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER, EMBEDDER

from ceilings.cuda import device as cuda
from ceilings.runtimes import torch_changing_cuda, torch_cuda
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.workload.shape import Shape

ORDER = ["b1-{}", "b2-{}", "b1-{}", "b3-{}", "b2-{}", "b2-{}", "b1-{}"]


class CudaGraph:
    """As ``torch.cuda.CUDAGraph``: what ran in the block of ``torch.cuda.graph`` runs again on ``replay``."""

    def __init__(self):
        self.calls, self.replays = [], 0

    def replay(self):
        self.replays += 1
        for call, inputs, outputs in self.calls:
            for target, value in zip(outputs, call(*inputs), strict=True):
                target.copy_(value)


class Cuda:
    """The calls of ``torch.cuda`` and of our own layer, on a CPU; ``graphs`` are those captured."""

    def __init__(self, module):
        self.module, self.graphs, self.capturing, self.used = module, [], None, 0

    def model(self, *inputs):
        outputs = self.module(*inputs)
        if self.capturing is not None:
            self.capturing.calls.append((self.module, inputs, outputs))
        return outputs

    @contextlib.contextmanager
    def graph(self, graph, stream):
        self.graphs.append(graph)
        self.capturing = graph
        yield
        self.capturing = None
        self.used += 1000 * len(self.graphs)

    def place(self, monkeypatch):
        stream = types.SimpleNamespace(handle=0, synchronize=lambda: None)
        side = types.SimpleNamespace(wait_stream=lambda other: None)
        monkeypatch.setattr(torch_cuda.TorchCuda, "open_device", lambda runner: setattr(runner, "stream", stream))
        monkeypatch.setattr(torch_cuda.TorchCuda, "target", "cpu")
        monkeypatch.setattr(torch_cuda, "load_module", lambda *_: self.model)
        monkeypatch.setattr(cuda, "memory_used", lambda: self.used)
        for name in ("synchronize", "set_stream", "ExternalStream"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: None)
        for name in ("Stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda: side)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", CudaGraph)
        monkeypatch.setattr(torch.cuda, "graph", self.graph)


@pytest.fixture
def started(monkeypatch, tmp_path):
    """A loaded runner of a mode, with its double and the module that says what is right."""
    modes = contextlib.ExitStack()
    monkeypatch.setattr(torch_cuda, "_FOR_GOOD", modes)

    def make(workload, **options):
        double = Cuda(tiny.module(workload))
        double.place(monkeypatch)
        size = "s16" if workload is ANSWERER else "i16"
        runner = torch_changing_cuda.RUNNER(tmp_path, "fp32", workload, Shape.parse(f"b1-{size}"), 1, options)
        runner.load()
        return runner, double, size

    with modes:
        yield make


def hold(runner, module, size):
    """Each request's outputs are those of its inputs, whatever came before; two elements of a pool a shape, in turn."""
    slots = {}
    for turn, name in enumerate(ORDER * 2):
        shape = Shape.parse(name.format(size))
        runner.at(shape)
        if shape not in slots:
            made = [tiny.element(runner.workload, shape.batch, 16, seed) for seed in (0, 1)]
            slots[shape] = [(one, runner.place(one)) for one in made]
        inputs, slot = slots[shape][turn % 2]
        outputs = runner.outputs(runner.answer(slot))
        for key, value in tiny.expected(runner.workload, module, inputs).items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("workload", [ANSWERER, EMBEDDER], ids=["text", "convolution"])
def test_eager_requests_of_any_shape(started, workload):
    runner, double, size = started(workload, mode="eager")
    hold(runner, double.module, size)
    assert (runner.graphs_compiled(), double.graphs) == (None, [])
    assert runner.device_bytes() == 0


@pytest.mark.parametrize("workload", [ANSWERER, EMBEDDER], ids=["text", "convolution"])
def test_a_graph_is_captured_for_each_shape_at_its_first_request_alone(started, workload):
    runner, double, size = started(workload, mode="cudagraph")
    assert runner.graphs_compiled() == 0
    hold(runner, double.module, size)
    assert (runner.graphs_compiled(), len(double.graphs)) == (3, 3)
    wanted = [ORDER.count(name) * 2 for name in dict.fromkeys(ORDER)]
    assert [graph.replays for graph in double.graphs] == wanted
    assert all(len(graph.calls) == 1 for graph in double.graphs)  # the runs before it are in no graph


def test_what_each_graph_took_is_in_the_record(started, monkeypatch):
    runner, double, size = started(EMBEDDER, mode="cudagraph")
    hold(runner, double.module, size)
    monkeypatch.setattr(torch_cuda.TorchCuda, "describe", lambda _: {"mode": "cudagraph"})  # asks CUDA's allocator
    captures = runner.describe()["captures"]
    assert [(name, one["bytes"]) for name, one in captures.items()] == [
        (f"b1-{size}", 1000),
        (f"b2-{size}", 2000),
        (f"b3-{size}", 3000),
    ]
    assert all(one["capture_ns"] > 0 for one in captures.values())


SCRIPT = """
import functools, json, sys
from pathlib import Path
import pytest, torch
from unit.runtimes import tiny
from unit.runtimes.test_torch_changing_cuda import Cuda, hold
from unit.runtimes.workloads import ANSWERER
from ceilings.runtimes import torch_changing_cuda, torch_cuda
from ceilings.workload.shape import Shape

torch.compile = functools.partial(torch.compile, backend="eager")  # graphs and guards are Dynamo's anyway
found = {}
for sizes, options in json.loads(sys.argv[1]).items():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with pytest.MonkeyPatch.context() as patch:
        double = Cuda(tiny.module(ANSWERER))
        double.place(patch)
        patch.setattr(torch_cuda, "load_module", lambda *_: double.module)
        runner = torch_changing_cuda.RUNNER(Path(), "fp32", ANSWERER, Shape.parse("b1-s16"), 1, options)
        runner.load()
        graphs = [runner.graphs_compiled()]
        hold(runner, double.module, "s16")
        runner.at(Shape.parse("b2-s16"))
        slot = runner.place(tiny.element(ANSWERER, 2, 16))
        found[sizes] = [*graphs, runner.graphs_compiled(), runner.compiled(slot)]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_compiled_requests_make_as_many_graphs_as_their_sizes_say():
    """Batches 1, 2 and 3. A size of 1 stays a constant: each way but one has a graph for it, and one for more."""
    names = ("torch-compile", *(f"torch-compile+sizes={value}" for value in ("constant", "symbolic", "marked")))
    options = {name: {"mode": "compile", "sizes": RUNTIMES[name].options.get("sizes", "automatic")} for name in names}
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(options)],
        check=False,
        env={"PYTHONPATH": f"{Path(torch_cuda.__file__).parents[2]}:{tests}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "torch-compile": [0, 2, True],
        "torch-compile+sizes=constant": [0, 3, True],
        "torch-compile+sizes=symbolic": [0, 2, True],
        "torch-compile+sizes=marked": [0, 2, True],
    }


def test_sizes_are_levers_that_both_devices_share_and_of_encoders_alone():
    for value in ("constant", "symbolic", "marked"):
        one = RUNTIMES[f"torch-compile+sizes={value}"]
        beside = RUNTIMES[
            {"constant": "torch-compile-cpu-static", "symbolic": "torch-compile-cpu-dynamic"}.get(
                value, "torch-compile-cpu-marked"
            )
        ]
        assert one.levers == beside.levers
        assert RUNTIMES["torch-compile"].generator and not one.generator
