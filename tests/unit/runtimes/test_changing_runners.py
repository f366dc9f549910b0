"""Runners of changing shapes on real models: every shape's outputs, and what torch.compile makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch._dynamo.utils
from unit.runtimes import tiny
from unit.runtimes.workloads import ANSWERER, EMBEDDER

from ceilings.runtimes import onnxruntime_changing_cpu, torch_changing_cpu, torch_compile_changing_cpu
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

FETCH = Path(torch_changing_cpu.__file__).parents[2] / "fetch_weights.py"
TEXTS = ["b1-s16", "b2-s8", "b1-s16", "b3-s24", "b2-s8"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "weights"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {**sizes, "vocab_size": 100, "max_position_embeddings": 64}
    model = {"name": "tiny", "weights": "random", "seed": 2, "architecture": "bert", "config": config}
    model["task"] = "question-answering"
    subprocess.run([sys.executable, FETCH, "--model", json.dumps(model), "--output-dir", folder], check=True)
    return folder


def element(workload, shape):
    made = tiny.element(ANSWERER, shape.batch, shape["sequence"])
    zeros = {tensor.name: np.zeros(tensor.sizes(shape), np.int64) for tensor in workload.inputs}
    return zeros | made


def started(module, folder, precision="fp32", **options):
    runner = module.RUNNER(folder, precision, Workload.read(folder), Shape.parse(TEXTS[0]), 1, options)
    runner.load()
    return runner


def answers(runner, names):
    """The outputs of each request, slots of a shape made once."""
    slots = {}
    for name in names:
        runner.at(Shape.parse(name))
        if name not in slots:
            slots[name] = runner.place(element(runner.workload, Shape.parse(name)))
        yield name, slots[name], runner.outputs(runner.answer(slots[name]))


def test_eager_pytorch_answers_any_shape_as_a_process_of_that_shape_does(weights):
    runner = started(torch_changing_cpu, weights)
    for name, slot, outputs in answers(runner, TEXTS):
        alone = started(torch_changing_cpu, weights)
        expected = alone.outputs(alone.launch(slot))
        assert {key: value.shape for key, value in outputs.items()} == {
            output.name: output.sizes(Shape.parse(name)) for output in runner.workload.outputs
        }
        for key, value in outputs.items():
            np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-6)
    assert runner.graphs_compiled() is None and runner.compiled(slot) is None and runner.device_bytes() is None


@pytest.mark.parametrize(("workload", "sizes"), [(ANSWERER, (16, 8, 24)), (EMBEDDER, (16, 16, 16))])
def test_onnx_runtime_answers_any_shape_also_behind_a_convolution(tmp_path, workload, sizes):
    module = tiny.module(workload)
    tiny.export(workload, module, tmp_path / "fp32.onnx")
    size = "s16" if workload is ANSWERER else "i16"
    shape = Shape.parse(f"b1-{size}")
    runner = onnxruntime_changing_cpu.RUNNER(tmp_path / "fp32.onnx", "fp32", workload, shape, 1, {})
    runner.load()
    for batch, edge in zip((2, 1, 3), sizes, strict=True):
        runner.at(shape.with_sizes(batch=batch))
        inputs = tiny.element(workload, batch, edge)
        outputs = runner.outputs(runner.answer(runner.place(inputs)))
        for key, value in tiny.expected(workload, module, inputs).items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-4, atol=1e-5)


def test_every_runner_that_the_catalogue_names_is_there():
    folder = Path(torch_changing_cpu.__file__).parent
    assert {one.changing for one in RUNTIMES.values() if one.changing} == {
        path.stem for path in folder.glob("*_changing_c*.py")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "backend", "graphs", "eager"),
    [
        ("automatic", "aot_eager", 2, []),
        ("symbolic", "aot_eager", 1, []),
        ("constant", "inductor", 2, ["b3-s24", "b4-s40"]),
        ("marked", "aot_eager", 1, []),
    ],
)
def test_torch_compile_with_a_limit_of_two_graphs(weights, sizes, backend, graphs, eager):
    """Beyond the limit PyTorch runs new shapes eagerly and says so in its log only; the answers stay right.

    Graphs and guards are Dynamo's, whatever compiles the kernels: three ways take the backend that compiles none.
    """
    names = ["b2-s16", "b3-s8", "b3-s24", "b4-s40"]
    script = SCRIPT.format(folder=str(weights), options={"sizes": sizes}, names=names, backend=backend)
    tests = Path(__file__).parents[2]
    paths = f"{FETCH.parent}:{tests}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["graphs"] == graphs
    assert [name for name, compiled in result["compiled"].items() if not compiled] == eager
    assert result["worst"] < 1e-4


SCRIPT = """
import functools
import json
from pathlib import Path
import numpy as np
import torch
from unit.runtimes.test_changing_runners import answers, started
from ceilings.runtimes import torch_changing_cpu, torch_compile_changing_cpu

torch.compile = functools.partial(torch.compile, backend={backend!r})
torch._dynamo.config.recompile_limit = 2
runner = started(torch_compile_changing_cpu, Path({folder!r}), **{options!r})
eager = started(torch_changing_cpu, Path({folder!r}))
worst, compiled = 0.0, {{}}
for name, slot, outputs in list(answers(runner, {names!r})):
    expected = eager.outputs(eager.launch(slot))
    worst = max(worst, *(float(np.abs(outputs[key] - expected[key]).max()) for key in outputs))
    compiled[name] = runner.compiled(slot)
print(json.dumps({{"graphs": runner.graphs_compiled(), "compiled": compiled, "worst": worst}}))
"""


def test_a_compiled_runner_says_what_it_is(weights):
    torch._dynamo.utils.counters.clear()  # counts of a process, which is a cell's alone elsewhere
    runner = started(torch_compile_changing_cpu, weights, sizes="constant")
    facts = runner.describe()
    assert (facts["sizes"], facts["graphs"]) == ("constant", 0)
    assert facts["recompile_limit"] > 1
