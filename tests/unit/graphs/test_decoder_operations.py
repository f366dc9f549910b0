"""Counts of a decoder's forward pass against closed forms and against PyTorch's counter."""

from __future__ import annotations

import pytest
import torch
import transformers
from onnx import TensorProto
from torch.utils.flop_counter import FlopCounterMode
from unit import decoder_graphs
from unit.decoder_graphs import GPT2, INNER, LAYERS, LLAMA, VOCABULARY, WIDTH

from ceilings.graphs import operations
from ceilings.workload.generation import Decoder, step_shape
from ceilings.workload.shape import Shape

DECODERS = {"gpt2": GPT2, "llama": LLAMA}
SMALL_CONSTANTS = 300
"""Bytes of scalars and axes, which the closed forms leave out; fewer than any shape's rows of a table here."""


@pytest.fixture(scope="module")
def graphs():
    return {name: decoder_graphs.exported(decoder) for name, decoder in DECODERS.items()}


def layer_products(name: str) -> int:
    """Weights of one layer's products."""
    if name == "gpt2":
        return WIDTH * (3 * WIDTH + WIDTH + 2 * 4 * WIDTH)
    keys = LLAMA.kv_heads * LLAMA.head_size
    return WIDTH * (2 * WIDTH + 2 * keys + 3 * INNER)


def layer_parameters(name: str) -> int:
    """Weights, biases and norms of one layer."""
    return layer_products(name) + ((3 + 1 + 4 + 1) * WIDTH + 4 * WIDTH if name == "gpt2" else 2 * WIDTH)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("shape", ["b1-p16-g1", "b3-p16-g9", "b2-p1-g2"])
def test_a_step_has_the_operations_and_bytes_of_the_closed_form(graphs, name, shape):
    decoder, step = DECODERS[name], step_shape(Shape.parse(shape))
    batch, tokens, past = step["batch"], step["tokens"], step["past"]
    work = operations.count(graphs[name], step)
    gemm = 2 * batch * (tokens * LAYERS * layer_products(name) + WIDTH * VOCABULARY)  # logits of the last token alone
    seen = sum(past + number + 1 for number in range(tokens))
    attention = LAYERS * 2 * 2 * batch * seen * WIDTH
    assert work.flops == gemm + attention
    assert work.boundary_bytes == 8 * batch * tokens + 4 * batch * VOCABULARY + 8 * batch  # ids, logits, tokens
    # Each token's keys and values once: those before it read, its new ones written.
    assert work.cache_bytes == decoder.cache_bytes(batch, past + tokens, 4)
    table = VOCABULARY * WIDTH  # GPT-2 multiplies by the table that it looks tokens up in
    rows = tokens * WIDTH if name == "gpt2" else batch * tokens * WIDTH
    final = 2 * WIDTH if name == "gpt2" else WIDTH
    parameters = LAYERS * layer_parameters(name) + final + table + rows
    assert 0 <= work.weight_bytes - 4 * parameters <= SMALL_CONSTANTS
    assert work.bytes == work.weight_bytes + work.boundary_bytes + work.cache_bytes
    assert not work.unknown


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(("tokens", "past"), [(16, 0), (1, 20)])
def test_without_the_mask_the_operations_are_those_that_torch_counts(graphs, name, tokens, past):
    decoder, batch = DECODERS[name], 2
    model = decoder_graphs.module(decoder)
    cache = transformers.DynamicCache()
    for layer in range(LAYERS if past else 0):
        cache.update(*(torch.randn(2, batch, decoder.kv_heads, past, decoder.head_size)), layer)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(batch, tokens, dtype=torch.int64), past_key_values=cache, logits_to_keep=1)
    sizes = {"batch": batch, "tokens": tokens, "past": past, "present": past + tokens}
    work = operations.count(graphs[name], Shape.of(sizes))
    masked = sum(node.product.masked for node in work.nodes if node.product)
    assert masked == LAYERS * 2 * batch * WIDTH * tokens * (tokens - 1) // 2
    rotary = counter.get_total_flops() - work.flops - 2 * masked
    # Angles by frequencies, which the graph has as a product of sums of one term, or not at all.
    assert rotary in (0, *(2 * rows * tokens * decoder.head_size // 2 for rows in (1, batch)))


def test_gpt2_written_by_hand_counts_as_the_exported_one(graphs):
    graph = decoder_graphs.written(GPT2, TensorProto.FLOAT)
    for shape in map(step_shape, map(Shape.parse, ("b1-p16-g1", "b3-p16-g9"))):
        by_hand, exported = (operations.count(model, shape) for model in (graph, graphs["gpt2"]))
        assert operations.flops_by_precision(by_hand.nodes) == operations.flops_by_precision(exported.nodes)
        assert (by_hand.boundary_bytes, by_hand.cache_bytes) == (exported.boundary_bytes, exported.cache_bytes)
        assert abs(exported.weight_bytes - by_hand.weight_bytes) <= SMALL_CONSTANTS


def test_rows_of_a_table_that_is_multiplied_by_come_with_it():
    medium = Decoder(2, 16, 16, 64, 50257, 1024)
    few, many = (
        operations.count(decoder_graphs.written(medium), step_shape(Shape.parse(shape))).weight_bytes
        for shape in ("b1-p128-g2", "b64-p128-g2")
    )
    assert few == many


def test_a_mask_that_sizes_make_is_no_weight(graphs):
    few, many = (
        operations.count(graphs["gpt2"], step_shape(Shape.parse(shape))).weight_bytes
        for shape in ("b1-p100-g1", "b1-p1000-g1")
    )
    table = 4 * 128 * WIDTH  # of positions, of which more are looked up
    assert few <= many < few + table + 4 * VOCABULARY * WIDTH
