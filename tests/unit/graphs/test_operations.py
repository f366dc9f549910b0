"""Counts against closed forms and against PyTorch's own counter."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ceilings.errors import UserError
from ceilings.graphs import examples, export, graph, operations, precision, quantize
from ceilings.models import definition, weights
from ceilings.models.load import load_module
from ceilings.workload.shape import Shape

LAYERS, WIDTH, INNER, LABELS = 2, 32, 64, 2
BATCH, TOKENS = 3, 16
SHAPE = Shape.of({"batch": BATCH, "sequence": TOKENS})
SMALL_CONSTANTS = 1024
"""Bytes of scalars, axes and the like, which the closed forms leave out."""


def rows(*widths: int) -> int:
    """Elements of activations that the tokens of all rows have, for tensors of these widths."""
    return BATCH * TOKENS * sum(widths)


GEMM = LAYERS * 2 * rows(4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + 2 * BATCH * WIDTH * (WIDTH + LABELS)
ATTENTION = LAYERS * 2 * 2 * rows(TOKENS * WIDTH)
PARAMETERS = (
    LAYERS * (4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH * INNER + INNER + WIDTH + 4 * WIDTH)
    + 2 * WIDTH  # the embeddings' normalisation
    + WIDTH * WIDTH
    + WIDTH
    + WIDTH * LABELS
    + LABELS
)
ROWS = rows(WIDTH) + TOKENS * WIDTH
"""Gathered elements of the word and of the position table."""


@pytest.fixture(scope="module")
def work(tiny):
    return operations.count(tiny.model, SHAPE)


def flops(nodes):
    return sum(operations.flops_by_precision(nodes).values())


def test_products_and_bytes_are_those_of_the_closed_form(tiny, work):
    classes = work.by_class()
    assert work.flops_by_precision() == {"fp32": GEMM + ATTENTION}
    assert (flops(classes["gemm"]), flops(classes["attention"])) == (GEMM, ATTENTION)
    gathered = ROWS + (2 * WIDTH if tiny.architecture == "bert" else 0)  # the whole table of two token types
    assert 0 <= work.weight_bytes - 4 * (PARAMETERS + gathered) < SMALL_CONSTANTS
    assert work.boundary_bytes == 2 * 8 * BATCH * TOKENS + 4 * BATCH * LABELS
    # Each product reads one tensor of activations and writes one.
    moved = LAYERS * rows(4 * 2 * WIDTH, 2 * (WIDTH + INNER)) + BATCH * (2 * WIDTH + WIDTH + LABELS)
    assert sum(node.activation_bytes for node in classes["gemm"]) == 4 * moved
    # The two products of attention move queries, keys, values, context and twice the scores; softmax the scores again.
    heads = 2
    scores = 4 * BATCH * heads * TOKENS * TOKENS
    assert sum(node.activation_bytes for node in classes["attention"]) == LAYERS * (4 * scores + 4 * rows(4 * WIDTH))
    assert not work.unknown


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        *((name, 0) for name in ("distilbert", "bert", "answers", "clip", "clip-text")),
        # Of weights alone, which no inference needs to compute again: relative positions by keys' and queries' weights,
        ("deberta", LAYERS * 2 * 2 * (2 * 64) * WIDTH * WIDTH),
        # and frequencies by positions, in two kinds of layers.
        ("modernbert", 2 * 2 * 32 * WIDTH // 2 // 2),
    ],
)
def test_the_same_operations_as_torch_counts(make_tiny, name, constant):
    tiny = make_tiny(name)
    module = load_module(tiny.weights, "eager")
    feed = examples.make(tiny.workload.inputs, tiny.shape, 0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*map(torch.from_numpy, feed.values()))
    work = operations.count(tiny.model, tiny.shape)
    assert work.flops + constant == counter.get_total_flops() > 0
    assert not work.unknown


def test_vit_b_32_has_the_operations_of_the_closed_form(tmp_path):
    """The image tower of OpenCLIP's ViT-B-32 at 224 pixels: 8.8 GFLOP of products; two of its twelve equal layers."""
    config = {"num_hidden_layers": 2, "image_size": 224, "patch_size": 32, "projection_dim": 512}
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    model = {"architecture": "clip_vision_model", "task": "image-embedding", "weights": "random"}
    weights.fetch(definition.read("tower", {**model, "config": config | sizes}), tmp_path / "weights")
    export.export_onnx(tmp_path / "weights", export.Export(), tmp_path / "e.onnx")
    width, patches = 768, 49
    patching, projection = 2 * patches * width * 3 * 32 * 32, 2 * width * 512
    layer = 2 * (patches + 1) * 12 * width * width + 2 * 2 * (patches + 1) ** 2 * width
    assert (patching + 12 * layer + projection) / 1e9 == pytest.approx(8.82, abs=0.01)
    for batch in (1, 3):
        work = operations.count(graph.load(tmp_path / "e.onnx"), Shape.parse(f"b{batch}-i224"))
        assert work.flops == batch * (patching + 2 * layer + projection)
        (convolution,) = (node for node in work.nodes if node.op_type == "Conv")
        assert (convolution.kind, convolution.product) == (
            "gemm",
            operations.Product(batch * patches, width, 3 * 32 * 32, 1, "fp32"),
        )
        parameters = 4 * (3 * 32 * 32 * width + 2 * 12 * width * width + width * 512)
        rest = 4 * (width * (1 + 50) + 2 * width * (4 + 4 + 1 + 4) + 4 * width)
        assert 0 <= work.weight_bytes - parameters - rest < SMALL_CONSTANTS
        assert not work.unknown


def test_bert_base_has_the_operations_of_the_closed_form(tmp_path):
    """BERT-base with a classifier of two classes, 22.4 GFLOP at 128 tokens; two of its twelve equal layers."""
    model = {"architecture": "bert", "weights": "random", "config": {"num_hidden_layers": 2, "vocab_size": 1000}}
    weights.fetch(definition.read("base", model), tmp_path / "weights")
    export.export_onnx(tmp_path / "weights", export.Export(), tmp_path / "e.onnx")
    width, tokens = 768, 128
    layer = 2 * tokens * 12 * width * width + 2 * 2 * tokens * tokens * width
    head = 2 * width * width + 2 * width * 2
    assert (12 * layer + head) / 1e9 == pytest.approx(22.35, abs=0.01)
    for batch in (1, 8):
        work = operations.count(graph.load(tmp_path / "e.onnx"), Shape.parse(f"b{batch}-s128"))
        assert work.flops == batch * (2 * layer + head)


def test_convolutions_of_groups_and_products_of_vectors():
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["y"], group=4, strides=[2, 2]),
        helper.make_node("Flatten", ["y"], ["flat"]),
        helper.make_node("MatMul", ["flat", "vector"], ["z"]),
    ]
    tensors = [
        helper.make_tensor(name, kinds.FLOAT, dims, np.ones(dims).ravel())
        for name, dims in (("kernel", [16, 2, 3, 3]), ("bias", [16]), ("vector", [16 * 3 * 3]))
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kinds.FLOAT, ["batch", 8, 7, 7])],
            [helper.make_tensor_value_info("z", kinds.FLOAT, ["batch"])],
            tensors,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    convolution, product = operations.count(model, Shape.parse("b5")).nodes
    assert convolution.product == operations.Product(5 * 9, 4, 2 * 9, 4, "fp32")
    assert convolution.operations == 5 * 16 * 9 and convolution.weight_bytes == 4 * (16 * 2 * 9 + 16)
    assert product.product == operations.Product(5, 1, 16 * 9, 1, "fp32")


def test_other_exports_have_the_same_products(distilbert, tmp_path):
    for number, settings in enumerate([{"attention": "sdpa"}, {"exporter": "dynamo", "opset": 18}]):
        path = tmp_path / f"{number}.onnx"
        export.export_onnx(distilbert.weights, export.Export(**settings), path)
        assert operations.count(graph.load(path), SHAPE).flops == GEMM + ATTENTION


def test_half_precision_halves_the_bytes(distilbert):
    half = operations.count(precision.convert(distilbert.model, "fp16")[0], SHAPE)
    assert half.flops_by_precision() == {"fp16": GEMM + ATTENTION}
    assert 0 <= half.weight_bytes - 2 * (PARAMETERS + ROWS) < SMALL_CONSTANTS


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_quantised_products_count_in_their_stored_type(distilbert, ranges, name):
    work = operations.count(quantize.quantize(distilbert.model, ranges, name, quantize.Quantization()).model, SHAPE)
    assert work.flops_by_precision() == {name: GEMM, "fp32": ATTENTION}
    matrices = LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + WIDTH * WIDTH + WIDTH * LABELS
    assert 0 <= work.weight_bytes - (matrices + 4 * (PARAMETERS - matrices + ROWS)) < SMALL_CONSTANTS
    gemm = work.by_class()["gemm"]
    left_sides = LAYERS * rows(4 * WIDTH, WIDTH + INNER) + BATCH * 2 * WIDTH
    sums = LAYERS * rows(4 * WIDTH, INNER + WIDTH) + BATCH * (WIDTH + LABELS)
    assert sum(node.activation_bytes for node in gemm) == left_sides + 4 * sums
    assert not {node.op_type for node in work.nodes} & {"QuantizeLinear", "DequantizeLinear"}


def test_equal_products_stand_together(work):
    table = operations.products(work)
    assert sum(product.flops * nodes for product, _, nodes in table) == work.flops
    largest = {(product.m, product.n, product.k, nodes) for product, kind, nodes in table if kind == "gemm"}
    assert (BATCH * TOKENS, INNER, WIDTH, LAYERS) in largest and (BATCH * TOKENS, WIDTH, WIDTH, 4 * LAYERS) in largest


def test_an_operator_that_nobody_knows_counts_as_none_and_is_named(distilbert):
    model = distilbert.model
    for node in model.graph.node:
        if node.op_type == "Erf":
            node.op_type = "Atan"
    work = operations.count(model, SHAPE)
    assert work.unknown == {"Atan": LAYERS}
    assert work.flops == GEMM + ATTENTION


def test_a_quantised_weight_is_followed_through_a_transpose(distilbert):
    """logits (batch, 2) = mask (batch, 4) times the turned (2, 4) matrix: stored and multiplied in int8."""
    helper, kinds = onnx.helper, onnx.TensorProto
    one = helper.make_tensor("one", kinds.FLOAT, [], [1.0])
    zero = helper.make_tensor("zero", kinds.INT8, [], [0])
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["numbers"], to=kinds.FLOAT),
        helper.make_node("QuantizeLinear", ["numbers", "one", "zero"], ["small"]),
        helper.make_node("DequantizeLinear", ["small", "one", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["stored", "one", "zero"], ["matrix"]),
        helper.make_node("Transpose", ["matrix"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["rounded", "turned"], ["logits"]),
    ]
    ends = distilbert.model.graph
    stored = helper.make_tensor("stored", kinds.INT8, [2, 4], [1] * 8)
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends.input, ends.output, [one, zero, stored]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    cast, product = operations.count(model, Shape.parse("b3-s4")).nodes
    assert product.product == operations.Product(3, 2, 4, 1, "int8")
    assert (product.weight_bytes, product.activation_bytes) == (8, 3 * 4 + 4 * 3 * 2)
    assert (cast.kind, cast.activation_bytes) == ("copy", (8 + 4) * 3 * 4)


def test_a_graph_of_another_shape_is_refused(distilbert, tmp_path):
    path = tmp_path / "fixed.onnx"
    export.export_onnx(distilbert.weights, export.Export(axes={"batch": 2, "sequence": 32}), path)
    assert operations.count(graph.load(path), Shape.parse("b2-s32")).flops > 0
    with pytest.raises(UserError, match=r"fixed to .*nothing to count at b1-s32"):
        operations.count(graph.load(path), Shape.parse("b1-s32"))
