"""ONNX Runtime's runner of requests on a real card: tokens, logits, where nodes ran, what a captured step keeps."""

from __future__ import annotations

import numpy as np
import pytest
from unit.graphs import decoder_folders as folders

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure
from ceilings.graphs import export, fuse, graph, precision, simplify
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.runtimes.onnxruntime_generating_cuda import RUNNER
from ceilings.workload.shape import Shape

ARCHITECTURES = ("gpt2", "llama", "qwen2")
SHAPES = ("b1-p12-g32", "b3-p7-g9", "b2-p1-g4", "b2-p9-g1")
NEAR = {"fp32": 1e-4, "tf32": 2e-2, "fp16": 2e-2, "bf16": 1e-1}
"""Largest error of a logit of the first token over the largest logit."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of each architecture the model and the folder of its graphs."""
    found = {}
    for architecture in ARCHITECTURES:
        folder = tmp_path_factory.mktemp(architecture)
        model = folders.model(architecture)
        weights = folders.write(model, folder / "weights")
        export.export_onnx(weights, export.Export(), folder / "exported.onnx")
        simple = simplify.simplify(graph.load(folder / "exported.onnx"), folders.workload(model)).model
        for kind in ("fp32", "fp16", "bf16"):
            graph.save(precision.convert(simple, kind)[0], folder / f"{kind}.onnx")
            if kind != "bf16":
                graph.save(fuse.fuse(folder / f"{kind}.onnx", weights).model, folder / f"{kind}.fused.onnx")
        found[architecture] = model, folder
    return found


@pytest.fixture
def load(made):
    def make(name, architecture, kind, shape):
        entry, (model, folder) = RUNTIMES[name], made[architecture]
        stored = "fp32" if kind == "tf32" else kind
        path = folder / (f"{stored}.fused.onnx" if entry.artifact == "fused" else f"{stored}.onnx")
        runner = RUNNER(path, kind, folders.workload(model), Shape.parse(shape), 1, entry.options)
        runner.load()
        return runner

    return make


def prompts(runner):
    shape = runner.shape
    return [folders.prompts(shape.batch, shape["prompt"], seed) for seed in (1, 2)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_fp32_gives_pytorch_s_tokens(load, made, architecture, shape):
    runner = load("onnxruntime-cuda", architecture, "fp32", shape)
    for ids in prompts(runner) * 2:
        outputs = runner.outputs(runner.run(runner.place({"input_ids": ids})))
        tokens, logits = folders.request(made[architecture][0], ids, runner.shape["generated"])
        np.testing.assert_array_equal(outputs["tokens"], tokens)
        there = np.take_along_axis(logits[:, : outputs["ids"].shape[1]], outputs["ids"], -1)
        np.testing.assert_allclose(outputs["logits"], there, atol=NEAR["fp32"] * np.abs(logits).max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("onnxruntime-cuda", kind) for kind in ("tf32", "fp16", "bf16")),
        *((name, "fp16") for name in ("onnxruntime-cuda-fused", "onnxruntime-cuda-fused-graph")),
    ],
)
def test_other_precisions_are_near(load, made, name, kind, architecture):
    """Of the first two tokens, the second behind a cache, while the row is the reference's."""
    runner = load(name, architecture, kind, "b3-p7-g9")
    for ids in prompts(runner):
        outputs = runner.outputs(runner.run(runner.place({"input_ids": ids})))
        tokens, logits = folders.request(made[architecture][0], ids, 2)
        same = outputs["tokens"][:, 0] == tokens[:, 0]
        assert same.any()
        there = np.take_along_axis(logits, outputs["ids"][:, :2], -1)
        errors = np.abs(outputs["logits"][:, :2] - there)
        largest = NEAR[kind] * np.abs(logits).max()
        assert errors[:, 0].max() < largest and errors[same, 1].max() < largest


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_captured_step_gives_what_the_same_kernels_give(load, architecture, shape):
    """All tokens, over the whole request: a length that the captured graph kept would show in later steps."""
    plain, captured = (
        load(name, architecture, "fp16", shape) for name in ("onnxruntime-cuda-fused", "onnxruntime-cuda-fused-graph")
    )
    for ids in prompts(plain) * 2:
        found = [one.outputs(one.run(one.place({"input_ids": ids}))) for one in (plain, captured)]
        same = found[0]["tokens"] == found[1]["tokens"]
        assert same.mean() > 0.9, same.mean(1)  # lengths may choose another split of the sums
        np.testing.assert_allclose(found[0]["logits"][:, 0], found[1]["logits"][:, 0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-cuda-fused", "onnxruntime-cuda-fused-graph"])
@pytest.mark.parametrize("shape", ["b2-p6-g7", "b2-p6-g1"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_nothing_runs_on_the_host_or_crosses_to_it(load, name, shape, architecture):
    runner = load(name, architecture, "fp16", shape)
    facts = runner.describe()
    placement = facts["placement"]
    assert placement is not None, facts
    assert not any(placement["copies"].values()), placement
    assert placement["operators"]["ArgMax"] == 1
    fused = 2 if RUNTIMES[name].artifact == "fused" else 0
    assert placement["operators"].get("GroupQueryAttention", 0) == fused
    assert facts["cuda_graph"] == (name.endswith("graph") and runner.shape["generated"] > 1)


def test_a_loop_of_items_gives_the_tokens_of_requests(load):
    for name in ("onnxruntime-cuda", "onnxruntime-cuda-fused", "onnxruntime-cuda-fused-graph"):
        runner = load(name, "llama", "fp16", "b2-p6-g5")
        slots = [runner.place({"input_ids": ids}) for ids in prompts(runner)]
        wanted = [runner.run(slot).tokens for slot in slots]
        items = runner.iterations(slots)
        for item in [*items, *items]:
            runner.activate(item)
            runner.launch(item)
            tokens = wanted[next(k for k, slot in enumerate(slots) if slot is item.slot)]
            np.testing.assert_array_equal(runner.arrived(), tokens[:, item.position])


def test_a_cache_of_fp32_has_no_fused_attention_here(load):
    with pytest.raises(CellFailure, match="GroupQueryAttention"):
        load("onnxruntime-cuda-fused", "llama", "fp32", "b2-p6-g5")


def test_past_and_present_share_their_memory(load):
    """What the device holds does not grow with a request's steps."""
    runner = load("onnxruntime-cuda-fused", "llama", "fp16", "b2-p6-g64")
    slot = runner.place({"input_ids": prompts(runner)[0]})
    runner.run(slot)
    before = cuda.memory_used()
    runner.run(slot)
    assert cuda.memory_used() == before
    assert runner.cache_bytes() == runner.workload.decoder.cache_bytes(2, 70, 2)
