"""The products of decoders whose rates are measured: those that the counter finds in their graphs."""

from __future__ import annotations

import pytest
from unit import decoder_graphs

from ceilings.graphs import operations
from ceilings.models import definition
from ceilings.study.products import BASE, ROWS, products
from ceilings.workload.generation import step_shape
from ceilings.workload.shape import Shape

SIZES = {
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2},
    "llama": {
        **{"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2},
        "intermediate_size": decoder_graphs.INNER,
    },
}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_they_are_those_of_a_prefill_s_layers(architecture):
    model = {"architecture": architecture, "weights": "random", "config": SIZES[architecture]}
    measured = products([(definition.read("m", model), "text-generation")])
    base = {(rows, n, k) for rows in ROWS for k, n in BASE}
    asked = {(m, n, k) for m, n, k in measured} - base
    graph = decoder_graphs.exported(getattr(decoder_graphs, architecture.upper()))
    work = operations.count(graph, step_shape(Shape.parse("b1-p128-g1")))
    counted = {(product.m, product.n, product.k) for product, kind, _ in operations.products(work) if kind == "gemm"}
    logits = (1, decoder_graphs.VOCABULARY, decoder_graphs.WIDTH)
    rotations = {one for one in counted if one[2] == 1}
    assert counted - {logits} - rotations == {one for one in asked if one[0] == 128}


@pytest.mark.parametrize(("task", "width"), [("image-embedding", 1024), ("sentence-embedding", 512)])
@pytest.mark.parametrize("names", [("vision_config", "text_config"), ("vision_cfg", "text_cfg")])
def test_of_a_model_of_two_towers_those_of_the_tower_in_use(names, task, width):
    key = "hidden_size" if names[0] == "vision_config" else "width"
    towers = dict(zip(names, ({key: 1024}, {key: 512}), strict=True))
    model = {"architecture": "clip" if key == "hidden_size" else "open_clip", "weights": "random", "config": towers}
    base = [[rows, n, k] for rows in ROWS for k, n in BASE]
    others = [one for one in products([(definition.read("m", model), task)]) if one not in base]
    assert {n for _, n, _ in others} | {k for _, _, k in others} == {width, 4 * width}
