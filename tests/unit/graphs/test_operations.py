"""Counts against closed forms and against PyTorch's own counter."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ceilings.errors import UserError
from ceilings.graphs import export, graph, operations, precision, quantize
from ceilings.models import weights

LAYERS, WIDTH, INNER, LABELS = 2, 32, 64, 2
BATCH, TOKENS = 3, 16
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
    return operations.count(tiny.model, BATCH, TOKENS)


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


def test_the_same_operations_as_torch_counts(tiny):
    model = weights.load_model(tiny.weights, "eager")
    ids = torch.ones(BATCH, TOKENS, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, attention_mask=ids)
    assert operations.count(tiny.model, BATCH, TOKENS).flops == counter.get_total_flops() > 0


def test_other_exports_have_the_same_products(distilbert, tmp_path):
    for number, settings in enumerate([{"attention": "sdpa"}, {"exporter": "dynamo", "opset": 18}]):
        path = tmp_path / f"{number}.onnx"
        export.export_onnx(distilbert.weights, export.Export(**settings), path)
        assert operations.count(graph.load(path), BATCH, TOKENS).flops == GEMM + ATTENTION


def test_half_precision_halves_the_bytes(distilbert):
    half = operations.count(precision.convert(distilbert.model, "fp16")[0], BATCH, TOKENS)
    assert half.flops_by_precision() == {"fp16": GEMM + ATTENTION}
    assert 0 <= half.weight_bytes - 2 * (PARAMETERS + ROWS) < SMALL_CONSTANTS


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_quantised_products_count_in_their_stored_type(distilbert, ranges, name):
    work = operations.count(
        quantize.quantize(distilbert.model, ranges, name, quantize.Quantization()).model, BATCH, TOKENS
    )
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
            node.op_type = "Sign"
    work = operations.count(model, BATCH, TOKENS)
    assert work.unknown == {"Sign": LAYERS}
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
    cast, product = operations.count(model, 3, 4).nodes
    assert product.product == operations.Product(3, 2, 4, 1, "int8")
    assert (product.weight_bytes, product.activation_bytes) == (8, 3 * 4 + 4 * 3 * 2)
    assert (cast.kind, cast.activation_bytes) == ("copy", (8 + 4) * 3 * 4)


def test_a_graph_of_another_shape_is_refused(distilbert, tmp_path):
    path = tmp_path / "fixed.onnx"
    export.export_onnx(distilbert.weights, export.Export(axes={"batch": 2, "sequence": 32}), path)
    assert operations.count(graph.load(path), 2, 32).flops > 0
    with pytest.raises(UserError, match=r"fixed to .*nothing to count at b1-s32"):
        operations.count(graph.load(path), 1, 32)
