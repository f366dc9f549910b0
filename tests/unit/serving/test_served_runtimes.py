"""Every runtime of a CPU in an executor: the same outputs as the bare cell's, whatever requests were joined with."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from unit.engines.variants import Variants
from unit.serving.served_model import ask

from ceilings import environment
from ceilings.graphs import fuse, graph, quantize
from ceilings.measure.setup import make_runner
from ceilings.runtimes.base import example
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.serving import server_python
from ceilings.serving.batching import Batching
from ceilings.serving.executor import Executor
from ceilings.serving.servers.embedded import Embedded
from ceilings.serving.servers.repository import Served

pytestmark = pytest.mark.slow

NAMES = [runtime.name for runtime in RUNTIMES.values() if runtime.device == "cpu" and runtime.module]

TINY = {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128, "vocab_size": 500}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny classifier in all forms, by runtime and precision."""
    folder = tmp_path_factory.mktemp("served")
    weights = folder / "weights"
    described = {"name": "tiny", "weights": "random", "seed": 1, "architecture": "distilbert"}
    described |= {"task": "sequence-classification", "config": TINY}
    program = environment.SCRIPTS / "fetch_weights.py"
    model = json.dumps(described)
    subprocess.run([sys.executable, program, "--model", model, "--output-dir", weights], check=True, timeout=120)
    variants = Variants(tmp_path_factory.mktemp("distilbert"))
    plain, fused, int8 = (folder / f"{name}.onnx" for name in ("fp32", "fused", "int8"))
    graph.save(variants.model, plain)
    graph.save(fuse.fuse(plain, variants.weights).model, fused)
    quantised = quantize.quantize(variants.model, variants.ranges, "int8", quantize.Quantization())
    graph.save(quantize.unsigned(quantised.model), int8)
    variants.workload.write(folder)
    return {"weights": (weights, weights), "plain": (plain, folder), "fused": (fused, folder), "int8": (int8, folder)}


@pytest.mark.parametrize("name", [*NAMES, "onnxruntime-cpu int8"])
def test_joined_or_padded_a_request_has_the_bare_cells_outputs(files, name):
    runtime, _, precision = name.partition(" ")
    entry = RUNTIMES[runtime]
    artifact, workload = files[precision or entry.artifact]
    task = {
        "cell": {
            "device": "cpu",
            "runtime": runtime,
            "model": "tiny",
            "precision": precision or "fp32",
            "shape": "b1-s16",
        },
        "spec": {"module": entry.module, "threads": 1, "options": dict(entry.options)},
        "artifact": str(artifact),
        "workload": str(workload / "workload.json"),
    }
    runner = make_runner(task)
    runner.load()
    elements = []
    for token in (3, 7, 11):
        element = example(runner.workload, runner.shape)
        elements.append(element | {"input_ids": np.full_like(element["input_ids"], token)})
    bare = [runner.outputs(runner.run(runner.place(element))) for element in elements]
    assert not np.allclose(bare[0]["logits"], bare[1]["logits"], rtol=1e-3)
    # Of INT8 with scales made in each run, rows of a batch share a scale.
    near = {"rtol": 0.05, "atol": 0.05} if "int8" in name else {"rtol": 1e-4, "atol": 1e-5}
    for batching in (Batching(3), Batching(4, pad=True)):
        executor = Executor(task, batching)
        executor.load()
        for alone, joined in zip(bare, executor.execute(elements), strict=True):
            np.testing.assert_allclose(joined["logits"], alone["logits"], **near)
        assert executor.facts()["runners"] == 1


def test_two_models_of_pytorch_in_one_server(files, tmp_path):
    """The server loads all its models at once; Transformers' late imports fail when two threads are within them."""
    if problem := server_python.problem("mlserver"):
        pytest.skip(problem)
    entry, (weights, _) = RUNTIMES["torch-eager"], files["weights"]
    task = {
        "spec": {"module": entry.module, "threads": 1, "options": dict(entry.options)},
        "artifact": str(weights),
        "workload": str(weights / "workload.json"),
    }
    cell = {"device": "cpu", "runtime": "torch-eager", "model": "tiny", "shape": "b1-s16"}
    tasks = {precision: {**task, "cell": {**cell, "precision": precision}} for precision in ("fp32", "bf16")}
    with Embedded([Served(name, one) for name, one in tasks.items()], tmp_path) as server:
        server.start()
        for name, one in tasks.items():
            runner = make_runner(one)
            runner.load()
            element = example(runner.workload, runner.shape)
            bare = runner.outputs(runner.run(runner.place(element)))["logits"]
            answer = ask("http", server.addresses["http"], name, element)["logits"]
            assert answer.dtype == np.float32
            np.testing.assert_allclose(answer, bare, rtol=1e-3)
