"""A decoder's forward pass as a graph: exported, simplified, in other precisions, fused; each against PyTorch."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from unit.graphs import decoder_folders as folders

from ceilings.errors import CellFailure
from ceilings.graphs import decoding, export, fuse, gqa_decoder, graph, operations, precision, simplify
from ceilings.models.decoder_step import DecoderStep
from ceilings.workload import generation
from ceilings.workload.shape import Shape

ARCHITECTURES = ("gpt2", "llama")
"""Qwen2, a Llama with biases, is among the variants."""
LAYERS, HEAD_SIZE = 2, 16


class Made:
    """One model and all of its graphs."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.model = folders.model(architecture)
        self.decoder = folders.decoder(self.model)
        self.workload = folders.workload(self.model)
        self.folder = folder
        self.weights = folders.write(self.model, folder / "weights")
        export.export_onnx(self.weights, export.Export(), folder / "exported.onnx")
        exported = graph.load(folder / "exported.onnx")
        self.outcome = simplify.simplify(exported, self.workload)
        graph.save(self.outcome.model, folder / "simplified.onnx")
        for kind in ("fp32", "fp16", "bf16"):
            graph.save(precision.convert(self.outcome.model, kind)[0], folder / f"{kind}.onnx")
        self.fused = {kind: fuse.fuse(folder / f"{kind}.onnx", self.weights) for kind in ("fp32", "fp16")}
        for kind, made in self.fused.items():
            graph.save(made.model, folder / f"{kind}.fused.onnx")

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.onnx"

    @functools.cache  # noqa: B019 - as long as the fixture
    def expected(self, batch: int, prompt: int, generated: int) -> tuple[np.ndarray, np.ndarray]:
        """What PyTorch gives to ``elements``."""
        parts = [folders.request(self.model, element, generated) for element in elements(batch, prompt)]
        return np.stack([tokens for tokens, _ in parts]), np.stack([logits for _, logits in parts])

    def answers(self, name: str, prompts: np.ndarray, generated: int) -> dict[str, np.ndarray]:
        return decoding.answers(graph.session(self.path(name), 1), self.decoder, prompts, generated)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def made(request, tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp(request.param), request.param)


def elements(batch: int, length: int) -> np.ndarray:
    return np.stack([folders.prompts(batch, length, seed) for seed in (1, 2)])


def test_the_interface_is_the_decoder_s(made):
    for name, dtype in (("simplified", "float"), ("fp32", "float"), ("fp16", "float16"), ("bf16", "bfloat16")):
        model = graph.load(made.path(name))
        cache = made.decoder.step_inputs()[1:]
        inputs = [graph.describe(value) for value in model.graph.input]
        assert inputs[0] == {"name": "input_ids", "type": "int64", "shape": ["batch", "tokens"]}
        assert inputs[1:] == [{"name": t.name, "type": dtype, "shape": list(t.dims)} for t in cache]
        outputs = [graph.describe(value) for value in model.graph.output]
        assert outputs[0] == {"name": "logits", "type": "float", "shape": ["batch", folders.VOCABULARY]}
        assert outputs[1] == {"name": "token", "type": "int64", "shape": ["batch", 1]}
        assert [value["name"] for value in outputs[2:]] == [t.name.replace("past", "present") for t in cache]
        assert {value["type"] for value in outputs[2:]} == {dtype}


def test_simplification_keeps_it(made):
    assert made.outcome.simplified, made.outcome.reason


@pytest.mark.parametrize("name", ["exported", "simplified", "fp32", "fp16", "bf16", "fp16.fused"])
def test_a_tied_table_is_stored_once(made, name):
    model = graph.load(made.path(name))
    tables = [tensor.name for tensor in model.graph.initializer if folders.VOCABULARY in tensor.dims]
    assert len(tables) == (1 if made.model.config.tie_word_embeddings else 2)
    assert "Transpose" not in {node.op_type for node in model.graph.node if set(tables) & set(node.input)}


def test_the_floor_of_a_step_reads_each_parameter_once(made):
    """By the checkpoint: all of it but the tables that rows are gathered from, and these rows."""
    tied = made.model.config.tie_word_embeddings
    for batch in (1, 3):
        step = generation.step_shape(Shape.parse(f"b{batch}-p16-g2"))
        work = operations.count(graph.load(made.path("fp32")), step)
        parameters = {name: parameter.numel() for name, parameter in made.model.named_parameters()}
        looked_up = [
            n for n in parameters if n.endswith("wpe.weight") or (n.endswith("embed_tokens.weight") and not tied)
        ]
        rows = 64 if tied else 64 * batch + 2 * HEAD_SIZE  # of positions; of tokens, and of cosines and sines
        wanted = sum(parameters.values()) - sum(parameters[name] for name in looked_up) + rows
        assert 0 <= work.weight_bytes - 4 * wanted < 4 * 64, (batch, work.weight_bytes, 4 * wanted)


def test_no_cast_stands_round_a_cache(made):
    model = graph.load(made.path("fp16"))
    cast = {name for node in model.graph.node if node.op_type == "Cast" for name in (*node.input, *node.output)}
    assert not {name for name in cast if name.startswith(("past.", "present."))}


def test_positions_and_masks_are_no_work_of_the_host(made):
    """Only what computes sizes may be integers from Shape: a Range or a comparison of it would run on the CPU."""
    operators = graph.op_types(graph.load(made.path("fp16")))
    assert not set(operators) & {"Range", "CumSum", "Trilu", "NonZero", "If", "Loop", "Cos", "Sin"}


@pytest.mark.parametrize("name", ["exported", "simplified", "fp32", "fp32.fused"])
@pytest.mark.parametrize(("batch", "prompt", "generated"), [(1, 12, 32), (3, 7, 8), (2, 1, 4), (2, 9, 1)])
def test_requests_are_those_of_pytorch(made, name, batch, prompt, generated):
    prompts = elements(batch, prompt)
    found = made.answers(name, prompts, generated)
    tokens, logits = made.expected(batch, prompt, generated)
    assert np.array_equal(found["tokens"], tokens)
    assert generated < 8 or len(np.unique(tokens)) > 4  # a model that says the same for ever would hide a fault
    checked = min(4, generated)
    assert found["logits"].shape == (2, batch, checked, 20)
    there = np.take_along_axis(logits[:, :, :checked], found["ids"], -1)
    np.testing.assert_allclose(found["logits"], there, atol=2e-4)
    assert np.array_equal(found["ids"][..., 0], tokens[:, :, :checked])
    assert (np.diff(found["logits"], axis=-1) <= 0).all()


@pytest.mark.parametrize("name", ["fp16", "fp16.fused"])
def test_half_precision_is_near(made, name):
    prompts = elements(2, 12)
    found = made.answers(name, prompts, 2)
    _, logits = made.expected(2, 12, 1)
    there = np.take_along_axis(logits[:, :, :1], found["ids"][:, :, :1], -1)
    error = np.abs(found["logits"][:, :, :1] - there).max()
    assert error < 0.02 * np.abs(logits).max()


def test_several_tokens_after_others_see_only_what_is_before_them(made):
    """A pass over 4 tokens with 5 before them gives each its place: checked by the cache and by the last logits."""
    ids = folders.prompts(2, 9, 3)
    session = graph.session(made.path("fp32"), 1)
    past = {
        t.name: np.zeros((2, made.decoder.kv_heads, 0, HEAD_SIZE), np.float32) for t in made.decoder.step_inputs()[1:]
    }
    first = session.run(None, {"input_ids": ids[:, :5], **past})
    second = session.run(None, {"input_ids": ids[:, 5:], **dict(zip(past, first[2:], strict=True))})
    whole = session.run(None, {"input_ids": ids, **past})
    for one, other in zip(second, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    np.testing.assert_allclose(second[0], made.model(torch.from_numpy(ids)).logits[:, -1].numpy(), atol=2e-4)


def test_the_exported_module_is_the_model(made):
    step = DecoderStep(folders.model(made.workload.architecture), made.decoder).eval()
    ids = torch.from_numpy(folders.prompts(2, 6, 5))
    past = [torch.zeros(2, made.decoder.kv_heads, 0, HEAD_SIZE) for _ in range(2 * LAYERS)]
    logits, token, *_ = step(ids, *past)
    torch.testing.assert_close(logits, made.model(ids).logits[:, -1], atol=1e-5, rtol=0)
    assert torch.equal(token[:, 0], logits.argmax(-1))


# ---- fusion ---------------------------------------------------------------------------------------------------------


def test_every_attention_is_fused(made):
    for fused in made.fused.values():
        assert fused.attentions == {"fused": LAYERS, "expected": LAYERS}
        assert fused.fusions["GroupQueryAttention"] == LAYERS


def test_past_and_present_are_one_buffer(made):
    shape = Shape.parse("b2-p6-g8")
    requests = decoding.Decoding(graph.session(made.path("fp32.fused"), 1), made.decoder, shape)
    requests.ids.array(np.int64, (2, 6))[:] = folders.prompts(2, 6, 1)
    requests.begin()
    assert len(set(requests.addresses())) == 2 * LAYERS
    before = requests.addresses()
    views = [buffer.array(np.float32, (2, made.decoder.kv_heads, 14, HEAD_SIZE)) for buffer in requests._cache]
    seen = []
    for filled in range(6, 13):
        requests.advance()
        assert requests.addresses() == before
        for view in views:
            assert np.abs(view[:, :, :filled]).min(axis=(0, 1, 3)).all() and not view[:, :, filled:].any()
        seen.append(views[0][:, :, :6].copy())
    assert all(np.array_equal(seen[0], later) for later in seen)  # what is in the cache stays as it is
    outputs = [value.data_ptr() for value in requests._bindings[1].get_outputs()[2:]]
    assert outputs == before


def test_a_plain_cache_is_handed_over_where_it_lies(made):
    requests = decoding.Decoding(graph.session(made.path("fp32"), 1), made.decoder, Shape.parse("b2-p6-g8"))
    requests.begin()
    for length in (6, 7, 8):
        requests.advance()
        assert [value.shape()[2] for value in requests._made] == [length] * 2 * LAYERS
        assert len(set(requests.addresses())) == 2 * LAYERS


def test_cache_bytes_are_what_is_allocated(made):
    fused = decoding.Decoding(graph.session(made.path("fp32.fused"), 1), made.decoder, Shape.parse("b3-p6-g8"))
    assert fused.cache_bytes() == sum(buffer.bytes.nbytes for buffer in fused._cache)
    plain = decoding.Decoding(graph.session(made.path("fp16"), 1), made.decoder, Shape.parse("b3-p6-g8"))
    plain.begin()
    held = []
    for _ in range(8):
        before = plain._made if plain.position else []
        plain.advance()
        held.append(sum(value.tensor_size_in_bytes() for value in (*before, *plain._made)))
    assert plain.cache_bytes() == max(held) == held[-1]


def test_a_graph_of_another_decoder_is_refused(made):
    other = dataclasses.replace(made.decoder, layers=3)
    with pytest.raises(CellFailure, match=r"no forward pass of this decoder: past.2.key"):
        decoding.Decoding(graph.session(made.path("fp32"), 1), other, Shape.parse("b1-p2-g2"))


def rope(kind, **more):
    return {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 16, **more}


BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = {"linear": {}, "llama3": BANDS, "yarn": {}, "dynamic": {}}


@pytest.mark.parametrize(
    ("architecture", "changes", "why"),
    [
        ("gpt2", {"activation_function": "relu"}, "the activation relu"),
        ("llama", {"hidden_act": "gelu"}, "the activation gelu"),
        ("llama", {"rope_parameters": rope("proportional", partial_rotary_factor=0.5)}, "kind proportional"),
        ("llama", {"rope_parameters": rope("llama3", partial_rotary_factor=0.5, **BANDS)}, "8 of a head's 16"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16}, "sliding window of 16"),
    ],
)
def test_what_is_not_written_is_refused(tmp_path, architecture, changes, why):
    weights = folders.write(folders.model(architecture, **changes), tmp_path / "model" / "weights")
    with pytest.raises(CellFailure, match=why):
        gqa_decoder.build(weights, onnx.TensorProto.FLOAT)


def test_bfloat16_is_not_written(made):
    with pytest.raises(CellFailure, match="cache of bfloat16"):
        fuse.fuse(made.path("bf16"), made.weights)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rms_norm_eps": 1e-3}),
        *(("llama", {"rope_parameters": rope(kind, **more)}) for kind, more in SCALED.items()),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("qwen2", {}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": 1}),
    ],
)
def test_variants_are_written_as_configured(tmp_path, architecture, changes):
    model = folders.model(architecture, **changes)
    weights = folders.write(model, tmp_path / "model" / "weights")
    session = graph.session(gqa_decoder.build(weights, onnx.TensorProto.FLOAT), 1)
    prompts = elements(2, 6)
    found = decoding.answers(session, folders.decoder(model), prompts, 6)
    assert np.array_equal(found["tokens"], np.stack([folders.request(model, one, 6)[0] for one in prompts]))
