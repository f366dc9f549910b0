"""The CPU's runner of requests, as the instrument uses it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from unit.models.generating_models import LLAMA
from unit.runtimes import tiny_decoders

from ceilings.errors import CellFailure
from ceilings.models.families import causal_lm
from ceilings.runtimes import torch_generating_cpu
from ceilings.workload import generation
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    def make(architecture, shape, precision="fp32"):
        monkeypatch.setattr(
            torch_generating_cpu,
            "load_module",
            lambda _, attention, dtype: tiny_decoders.module(architecture, dtype),
        )
        workload = tiny_decoders.workload(architecture)
        runner = torch_generating_cpu.RUNNER(tmp_path, precision, workload, Shape.parse(shape), 1, {})
        runner.load()
        return runner

    return make


@pytest.mark.parametrize("architecture", sorted(tiny_decoders.DECODERS))
def test_an_answer_holds_tokens_and_the_largest_logits_of_the_first(loaded, architecture):
    runner = loaded(architecture, "b10-p9-g6")
    for ids in tiny_decoders.prompts(runner.shape):
        outputs = runner.outputs(runner.run(runner.place({"input_ids": ids})))
        tokens, logits = tiny_decoders.generated(tiny_decoders.model(architecture), ids, 6)
        np.testing.assert_array_equal(outputs["tokens"], tokens)
        sizes = (generation.CHECKED_ROWS, generation.CHECKED_STEPS, generation.TOP)
        assert outputs["ids"].shape == outputs["logits"].shape == sizes
        checked = logits[: sizes[0], : sizes[1]]
        np.testing.assert_allclose(outputs["logits"], np.sort(checked)[..., ::-1][..., : sizes[2]], rtol=1e-5)
        np.testing.assert_array_equal(np.take_along_axis(checked, outputs["ids"], -1), outputs["logits"])


def test_a_weights_folder_of_a_study_generates(tmp_path):
    """Loaded as a cell loads it, by its family."""
    built = causal_lm.build("llama", "text-generation", None, LLAMA, seed=0, name="tiny")
    causal_lm.save(built, tmp_path)
    causal_lm.workload(built, "text-generation").write(tmp_path)
    shape = Shape.parse("b2-p9-g6")
    runner = torch_generating_cpu.RUNNER(tmp_path, "fp32", Workload.read(tmp_path), shape, 1, {})
    runner.load()
    for ids in tiny_decoders.prompts(shape):
        slot = runner.place({"input_ids": ids})
        runner.first(slot)
        tokens, _ = tiny_decoders.generated(built.eval(), ids, 6)
        np.testing.assert_array_equal(runner.run(slot).tokens, tokens)


def test_bfloat16_is_another_precision(loaded):
    runner = loaded("llama", "b2-p9-g4", "bf16")
    (ids, *_) = tiny_decoders.prompts(runner.shape)
    answer = runner.run(runner.place({"input_ids": ids}))
    _, logits = tiny_decoders.generated(tiny_decoders.model("llama"), ids, 4)
    exact = np.take_along_axis(logits[:, 0], answer.ids[:, 0], -1)
    difference = np.linalg.norm(answer.logits[:, 0] - exact) / np.linalg.norm(exact)
    assert 1e-5 < difference < 0.05
    assert runner.cache_bytes() == tiny_decoders.DECODERS["llama"].cache_bytes(2, 12, 2)


@pytest.mark.parametrize("shape", ["b2-p9-g5", "b2-p9-g1"])
def test_items_go_through_requests_token_by_token(loaded, shape):
    """In a timing loop's order, twice round."""
    runner = loaded("gpt2", shape)
    pool = tiny_decoders.prompts(runner.shape)
    items = runner.iterations([runner.place({"input_ids": ids}) for ids in pool])
    expected = [tiny_decoders.generated(tiny_decoders.model("gpt2"), ids, runner.shape["generated"])[0] for ids in pool]
    for index, item in enumerate([*items, *items]):
        runner.activate(item)
        runner.launch(item)
        request = index % len(items) // generation.steps(runner.shape)
        np.testing.assert_array_equal(runner.arrived(), expected[request][:, item.position])


def test_a_request_is_timed_token_by_token(loaded):
    runner = loaded("gpt2", "b2-p9-g5")
    times = runner.request(runner.place({"input_ids": tiny_decoders.prompts(runner.shape)[0]}))
    assert len(times) == 6 and times == sorted(times)


def test_a_missing_kernel_is_the_cell_s_failure(loaded, monkeypatch):
    runner = loaded("gpt2", "b1-p9-g2")

    def refuse(*_, **__):
        raise NotImplementedError('"sdpa" not implemented')

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
    with pytest.raises(CellFailure, match='PyTorch cannot run it: "sdpa" not implemented') as caught:
        runner.run(runner.place({"input_ids": tiny_decoders.prompts(runner.shape)[0]}))
    assert caught.value.kind == "unsupported"


def test_it_says_how_it_keeps_keys_and_values(loaded):
    assert loaded("gpt2", "b1-p9-g2").describe() == {
        "attention": "sdpa",
        "cache": "growing",
        "read": "attention reads the keys and values of the context, without a mask",
    }


def test_a_context_without_positions_is_refused(loaded):
    loaded("gpt2", "b1-p120-g8")
    with pytest.raises(CellFailure, match=r"b1-p120-g9 is a context of 129 tokens .* the 128 positions") as caught:
        loaded("gpt2", "b1-p120-g9")
    assert caught.value.kind == "unsupported"
