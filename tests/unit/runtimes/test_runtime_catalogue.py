"""Each runtime's stack and levers, and runtimes from outside the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ceilings import plugins
from ceilings.errors import UserError
from ceilings.runtimes import catalogue
from ceilings.runtimes.catalogue import (
    AUTOTUNING,
    COMPILATION,
    FUSION,
    GRAPH,
    GRAPH_PER_SHAPE,
    IO_BINDING,
    LEVERS,
    MARKED_AXES,
    OPERATOR,
    OVERLAP,
    PERSISTENT,
    PROJECTED,
    RUNTIMES,
    STATIC,
    SYMBOLIC_SIZES,
)

BOUND = {IO_BINDING, STATIC}
EXPECTED = {
    "torch-eager": ("PyTorch", set()),
    "torch-int8-dynamic": ("PyTorch", set()),
    "torch-compile-cpu": ("PyTorch", {COMPILATION}),
    "torch-compile-cpu-static": ("PyTorch", {COMPILATION, GRAPH_PER_SHAPE}),
    "torch-compile-cpu-dynamic": ("PyTorch", {COMPILATION, SYMBOLIC_SIZES}),
    "torch-compile-cpu-marked": ("PyTorch", {COMPILATION, MARKED_AXES}),
    "onnxruntime-cpu": ("onnxruntime-cpu", set()),
    "onnxruntime-cpu-fused": ("onnxruntime-cpu", {FUSION}),
    "torch-cuda-eager": ("PyTorch", set()),
    "torch-compile": ("PyTorch", {COMPILATION}),
    "torch-compile-reduce-overhead": ("PyTorch", {COMPILATION, GRAPH}),
    "torch-compile-max-autotune": ("PyTorch", {COMPILATION, GRAPH, AUTOTUNING}),
    "torch-cudagraph": ("PyTorch", {GRAPH}),
    "torch-compile-operator": ("PyTorch", {COMPILATION, OPERATOR}),
    "torch-cudagraph-operator": ("PyTorch", {GRAPH, OPERATOR}),
    "torch-cuda-eager-dynamic": ("PyTorch, growing cache", set()),
    "onnxruntime-cuda": ("onnxruntime-cuda", BOUND),
    "onnxruntime-cuda-noio": ("onnxruntime-cuda", {STATIC}),
    "onnxruntime-cuda-dynamic": ("onnxruntime-cuda", {IO_BINDING}),
    "onnxruntime-cuda-graph": ("onnxruntime-cuda", BOUND | {GRAPH}),
    "onnxruntime-cuda-fused": ("onnxruntime-cuda", BOUND | {FUSION}),
    "onnxruntime-cuda-fused-graph": ("onnxruntime-cuda", BOUND | {FUSION, GRAPH}),
    "onnxruntime-cuda-operator": ("onnxruntime-cuda", BOUND | {FUSION, OPERATOR}),
    "onnxruntime-cuda-operator-graph": ("onnxruntime-cuda", BOUND | {FUSION, OPERATOR, GRAPH}),
    "ceilings-fused": ("ceilings-fused", {GRAPH, OVERLAP}),
    "ceilings-fused-serial": ("ceilings-fused", {GRAPH}),
    "ceilings-fused-projected": ("ceilings-fused", {GRAPH, OVERLAP, PROJECTED}),
    "ceilings-fused-persistent": ("ceilings-fused", {GRAPH, PERSISTENT}),
    "vllm": ("vLLM", {COMPILATION, GRAPH}),
    "vllm-compile": ("vLLM", {COMPILATION}),
    "vllm-eager": ("vLLM", set()),
    "tensorrt": ("tensorrt", set()),
    "tensorrt-graph": ("tensorrt", {GRAPH}),
    "tensorrt-profile": ("tensorrt-profile", set()),
    "tensorrt-trtexec": ("tensorrt-trtexec", set()),
    "tensorrt10": ("tensorrt10", set()),
    "tensorrt10-graph": ("tensorrt10", {GRAPH}),
    "onnxruntime-tensorrt": ("onnxruntime-tensorrt", BOUND),
    "onnxruntime-tensorrt-graph": ("onnxruntime-tensorrt", BOUND | {GRAPH}),
    "tensorrt-rtx": ("tensorrt-rtx", set()),
    "tensorrt-rtx-graph": ("tensorrt-rtx", {GRAPH}),
    "tensorrt-rtx-profile": ("tensorrt-rtx-profile", set()),
    "onnxruntime-tensorrt-rtx": ("onnxruntime-tensorrt-rtx", BOUND),
}


def test_what_is_compared_with_what_follows_from_stacks_and_levers():
    assert {name: (entry.stack, set(entry.levers)) for name, entry in RUNTIMES.items()} == EXPECTED
    assert set().union(*(levers for _, levers in EXPECTED.values())) == set(LEVERS)


PLUGIN = """
from ceilings.runtimes.catalogue import Runtime

RUNTIMES = [
    Runtime(
        "{name}", "doubler", frozenset(), "cpu", "doubler", "weights", "cpu", ("fp32",), ("numpy",), "doubles"
    )
]
"""
RUNNER = """
import numpy as np

from ceilings.runtimes.base import Runner


class Doubler(Runner):
    def load(self):
        pass

    def place(self, element):
        return element

    def launch(self, slot):
        return {output.name: 2 * slot[self.workload.inputs[0].name] for output in self.workload.outputs}

    def outputs(self, launched):
        return {name: value.astype(np.float32) for name, value in launched.items()}


RUNNER = Doubler
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    def make(name="numpy-doubler"):
        (tmp_path / "runtimes").mkdir(exist_ok=True)
        (tmp_path / "catalogue.py").write_text(PLUGIN.format(name=name))
        (tmp_path / "runtimes" / "doubler.py").write_text(RUNNER)
        monkeypatch.setenv(plugins.VARIABLE, "")
        plugins.activate([tmp_path])
        return tmp_path

    return make


USE = """
import importlib, json
from pathlib import Path
import numpy as np
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

entry = RUNTIMES["numpy-doubler"]
module = importlib.import_module(f"ceilings.runtimes.{entry.module}")
x, y = TensorSpec("x", "float32", ("batch", 3), "reals"), TensorSpec("y", "float32", ("batch", 3))
runner = module.RUNNER(Path(), "fp32", Workload(TASKS["tensors"], (x,), (y,)), Shape.parse("b2"), 1, entry.options)
runner.load()
outputs = runner.outputs(runner.run(runner.place({"x": np.ones((2, 3), np.float32)})))
print(json.dumps([len(RUNTIMES), outputs["y"].tolist()]))
"""


def test_a_folder_adds_a_runtime(plugin):
    plugin()
    scripts = Path(catalogue.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={**os.environ, "PYTHONPATH": str(scripts)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [len(EXPECTED) + 1, [[2.0] * 3] * 2]


def test_a_plug_in_replaces_no_runtime(plugin):
    plugin("tensorrt")
    with pytest.raises(UserError, match="there is a runtime 'tensorrt' already"):
        catalogue._by_name()
