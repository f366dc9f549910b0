"""PyTorch with changing shapes on a real card: outputs in any order of shapes, graphs, memory, compiled code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.runtimes import tiny

from ceilings.runtimes import torch_changing_cuda
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

FETCH = Path(torch_changing_cuda.__file__).parents[2] / "fetch_weights.py"
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
TEXT = {"architecture": "bert", "task": "question-answering", "config": SIZES | {"vocab_size": 100}}
IMAGE = {"architecture": "vit", "task": "image-embedding", "config": SIZES | {"image_size": 32, "patch_size": 16}}
ORDER = (1, 2, 1, 4, 2, 2, 1)
"""Batches, so that each of three shapes comes back after another one."""


@pytest.fixture(scope="module", params=["text", "image"])
def weights(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "weights"
    model = {"name": "tiny", "weights": "random", "seed": 2, **(TEXT if request.param == "text" else IMAGE)}
    subprocess.run([sys.executable, FETCH, "--model", json.dumps(model), "--output-dir", folder], check=True)
    return folder


def element(workload, batch, seed):
    """Inputs of a batch; what a tiny model's pool does not have, such as token types, is zeros."""
    shape = shape_of(workload, batch)
    zeros = {tensor.name: np.zeros(tensor.sizes(shape), tensor.dtype) for tensor in workload.inputs}
    return zeros | tiny.element(tiny.EMBEDDER if "image" in shape.axes else tiny.ANSWERER, batch, 32, seed)


def shape_of(workload, batch):
    image = any("image" in tensor.dims for tensor in workload.inputs)
    return Shape.parse(f"b{batch}-{'i32' if image else 's32'}")


def started(folder, name, workload):
    runner = torch_changing_cuda.RUNNER(folder, "fp32", workload, shape_of(workload, 1), 1, RUNTIMES[name].options)
    runner.load()
    return runner


NAMES = [
    "torch-cuda-eager",
    "torch-cudagraph",
    "torch-compile",
    *(f"torch-compile+sizes={value}" for value in ("constant", "symbolic", "marked")),
    "torch-compile-reduce-overhead",
    "torch-compile-reduce-overhead+sizes=constant",
]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_each_shape_whatever_came_before(weights, name):
    torch._dynamo.reset()  # what one test compiled counts against the limit of the next
    workload = Workload.read(weights)
    reference = started(weights, "torch-cuda-eager", workload)
    runner = started(weights, name, workload)
    compiled = runner.graphs_compiled() or 0
    slots = {}
    for batch in sorted(set(ORDER)):
        runner.at(shape_of(workload, batch))
        reference.at(shape_of(workload, batch))
        slots[batch] = [
            (runner.place(one), reference.place(one)) for one in (element(workload, batch, seed) for seed in (0, 1))
        ]
    for turn, batch in enumerate(ORDER * 4):  # graphs of torch.compile are recorded at a shape's second request
        slot, plain = slots[batch][turn % 2]
        for one in (runner, reference):
            one.at(shape_of(workload, batch))
        outputs, expected = runner.outputs(runner.answer(slot)), reference.outputs(reference.answer(plain))
        for key, value in expected.items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-3, atol=1e-4)
    assert runner.device_bytes() > 0  # of the whole card, so others change it too
    facts = runner.describe()
    if name == "torch-cudagraph":
        assert (runner.graphs_compiled(), list(facts["captures"])) == (
            3,
            [str(shape_of(workload, b)) for b in (1, 2, 4)],
        )
        assert all(one["capture_ns"] > 0 for one in facts["captures"].values())
        print(name, facts["captures"])
    if runner.mode == "compile":
        assert runner.graphs_compiled() > compiled
        assert all(runner.compiled(each[0][0]) for each in slots.values())
        print(name, runner.graphs_compiled() - compiled, facts["cudagraph_skips"])
