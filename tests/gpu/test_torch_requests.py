"""PyTorch's runners of requests on a real card, against Transformers' own ``generate`` there, token by token."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from unit.runtimes import tiny_decoders

from ceilings.graphs import token_parity
from ceilings.measure.gate import stacked
from ceilings.models import definition, token_reference, weights
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.workload import generation
from ceilings.workload.shape import Shape

NAMES = [name for name, entry in RUNTIMES.items() if entry.generator == "torch_generating_cuda"]
SHAPES = ("b1-p9-g12", "b4-p9-g12", "b4-p9-g1", "b2-p1-g4")
CASES = [(name, shape) for name in NAMES for shape in (SHAPES[:2] if "compile" in name else SHAPES)]
"""Compiling takes a minute and more."""


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """A runner in this process; what it compiled is forgotten before the next."""

    def make(name, architecture, shape, precision="fp32"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        entry = RUNTIMES[name]
        module = importlib.import_module(f"ceilings.runtimes.{entry.generator}")
        monkeypatch.setattr(
            module, "load_module", lambda _, attention, *where: tiny_decoders.module(architecture, *where)
        )
        workload = tiny_decoders.workload(architecture)
        runner = module.RUNNER(tmp_path, precision, workload, Shape.parse(shape), 1, entry.options)
        runner.load()
        return runner

    yield make
    torch.cuda.synchronize()


def placed(runner):
    """Prompts, and their slots."""
    pool = tiny_decoders.prompts(runner.shape)
    return pool, [runner.place({"input_ids": ids}) for ids in pool]


def expected(architecture, shape, pool, precision="float32"):
    """Tokens and logits of ``generate`` for each prompt."""
    made = tiny_decoders.model(architecture, getattr(torch, precision), "cuda")
    return [tiny_decoders.generated(made, ids, shape["generated"]) for ids in pool]


@pytest.mark.parametrize("architecture", sorted(tiny_decoders.DECODERS))
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_prompts_one_after_another_give_what_generate_gives(loaded, name, architecture, shape):
    runner = loaded(name, architecture, shape)
    pool, slots = placed(runner)
    compiled = runner.compilations()
    wanted = expected(architecture, runner.shape, pool)
    assert runner.shape["generated"] == 1 or not np.array_equal(wanted[0][0], wanted[1][0])
    for slot, (tokens, logits) in zip([*slots, *slots], [*wanted, *wanted], strict=True):
        answer = runner.run(slot)
        np.testing.assert_array_equal(answer.tokens, tokens)
        checked = logits[:, : generation.CHECKED_STEPS]
        largest = np.sort(checked)[..., ::-1][..., : generation.TOP]
        np.testing.assert_allclose(answer.logits, largest, rtol=1e-3, atol=1e-3)
    assert runner.compilations() == compiled
    facts = runner.describe()
    if runner.mode == "compile":
        assert compiled == (2 if runner.shape["generated"] > 1 else 1)
        assert (facts["graph_breaks"], facts["cudagraph_skips"]) == (0, 0)
    decoder, growing = tiny_decoders.DECODERS[architecture], facts["cache"] == "growing"
    length = generation.context(runner.shape) - (1 if growing else 0)
    assert runner.cache_bytes() == decoder.cache_bytes(runner.shape.batch, length, 4)


@pytest.mark.parametrize("name", [name for name in NAMES if "-reduce" not in name and "-max" not in name])
def test_half_precision_stays_close(loaded, name):
    """Of the first token, before any difference feeds on itself."""
    runner = loaded(name, "llama", "b4-p9-g4", "fp16")
    pool, slots = placed(runner)
    (_, logits), *_ = expected("llama", runner.shape, pool)
    answer = runner.run(slots[0])
    exact = np.take_along_axis(logits[:, 0], answer.ids[:, 0], -1)
    assert np.linalg.norm(answer.logits[:, 0] - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_fp32_reference_reads_what_the_card_wrote(loaded, precision):
    """Every token of a right runner is explained; of one whose rows are swapped after the first token, one is not."""
    runner = loaded("torch-cudagraph", "gpt2", "b8-p9-g64", precision)
    pool, slots = placed(runner)
    outputs = stacked([runner.outputs(runner.run(slot)) for slot in slots])
    model = tiny_decoders.model("gpt2")
    own = [tiny_decoders.generated(model, ids, 64) for ids in pool]
    reference = {"tokens": np.stack([tokens for tokens, _ in own])}
    reference["logits"] = np.stack([logits[:, : generation.CHECKED_STEPS] for _, logits in own])
    swapped = outputs["tokens"].copy()
    swapped[:, :, 1:] = np.roll(swapped[:, :, 1:], 1, 1)
    for tokens, right in ((outputs["tokens"], True), (swapped, False)):
        logged = outputs["tokens"][:, :, : generation.CHECKED_STEPS]
        parity = token_parity.compare(outputs | {"tokens": tokens, "logged": logged}, reference, precision)
        texts, places = token_parity.other_texts([tokens], reference["tokens"])
        assert right or len(texts) == 24
        gaps = np.zeros(texts.shape)
        if len(texts):
            prompts = np.stack(pool)[tuple(places.T)]
            gaps = token_reference.score(model, tiny_decoders.DECODERS["gpt2"], prompts, texts)
        reason = token_parity.too_far(token_parity.scored(parity, token_parity.reading(gaps)), 0.1)
        assert (reason is None) is right, reason


def test_the_reference_reads_on_the_card_as_on_the_processor(tmp_path):
    """FP32 without TF32, whose errors would be ten times larger."""
    config = {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 300, "n_positions": 128}
    made = {"architecture": "gpt2", "weights": "random", "seed": 0, "config": config}
    weights.fetch(definition.read("tiny", made), tmp_path)
    drawn = np.random.default_rng(0)
    prompts, tokens = drawn.integers(0, 300, (24, 9)), drawn.integers(0, 300, (24, 64))
    here, there = (token_reference.gaps(tmp_path, prompts, tokens, 4, device) for device in ("cpu", "cuda"))
    assert here.shape == there.shape == (24, 64) and here.max() > 0.1
    assert np.abs(here - there).max() < 1e-4 * np.abs(here).max()


@pytest.mark.parametrize(
    ("name", "shape"),
    [*((name, "b2-p9-g5") for name in NAMES), *((name, SHAPES[2]) for name in NAMES if "compile" not in name)],
)
def test_a_launch_waits_for_nothing(loaded, name, shape):
    """PyTorch raises where one of its calls waits for the device."""
    runner = loaded(name, "gpt2", shape)
    pool, slots = placed(runner)
    wanted = expected("gpt2", runner.shape, pool)
    items = runner.iterations(slots)
    runner.run(slots[0])
    for index, item in enumerate([*items, *items]):
        runner.activate(item)
        runner.stream.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            runner.launch(item)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        request = index % len(items) // generation.steps(runner.shape)
        np.testing.assert_array_equal(runner.arrived(), wanted[request][0][:, item.position])


def test_a_captured_step_is_one_launch_of_many_kernels(loaded):
    runner = loaded("torch-cudagraph", "llama", "b1-p9-g4")
    _, slots = placed(runner)
    runner.begin(slots[0])
    runner.prefill()
    runner.arrived()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        runner.step()
        runner.arrived()
    on_device = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    calls = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CPU]
    assert sum(name.startswith("cudaGraphLaunch") for name in calls) == 1
    assert not [name for name in calls if name.startswith(("cudaLaunchKernel", "cuLaunchKernel", "cudaMemcpy"))]
    assert len([name for name in on_device if not name.startswith("Mem")]) > 10
    assert len([name for name in on_device if name.startswith("Memcpy DtoH")]) == 1
