"""Puts ``ai.ceilings::Attention`` in the place of a fused graph's attention.

ONNX Runtime's optimiser has then done the matching: one node of ``com.microsoft::Attention`` is a product for queries,
keys and values, its bias, and attention. The first two become nodes of ONNX, the last the operator. What such a node
may say beside that is refused by its name.

The operator's mask is the request's: (batch, sequence), INT64, zero where a token is padding. A fused graph hands its
attention a copy of it in INT32, or, from the fused embedding, how many tokens are real, which holds of padding on the
right alone; the operator gets the original.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import onnx
from onnx import TensorProto, helper

from ceilings.errors import CellFailure

DOMAIN, NAME = "ai.ceilings", "Attention"
"""The operator, as a graph calls it."""

MICROSOFT = "com.microsoft"
FUSED = ("Attention", "MultiHeadAttention", "GroupQueryAttention")
"""Attentions of ONNX Runtime; the first can be replaced."""

INPUTS = ("input", "weights", "bias", "mask_index")
"""Inputs of its ``Attention`` that are understood, in its order; it has more."""

EMBEDDING, EMBEDDING_MASK = "EmbedLayerNormalization", 7
"""The fused embedding, and which of its inputs is the mask that its second output counts."""

IGNORED = {"num_heads", "mask_filter_value"}
"""Attributes that change nothing: the operator's mask is exact, whatever number stands for minus infinity."""

KINDS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
"""Types that the operator computes in."""


class Heads(NamedTuple):
    """Of the heads of an attention: numbers of each, whether a mask is read, and the type."""

    width: int
    masked: bool
    kind: str


def place(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Heads]]:
    """A copy of a fused graph with the operator in the place of every attention, and the heads of each.

    Raises:
        CellFailure: There is no attention, or a node that says what the operator cannot do.
    """
    placed = onnx.ModelProto()
    placed.CopyFrom(model)
    found: list[Heads] = []
    rewritten: list[onnx.NodeProto] = []
    within = _Graph(placed)
    for node in model.graph.node:
        if node.domain == MICROSOFT and node.op_type in FUSED:
            replacement, heads = within.replaced(node)
            rewritten += replacement
            found.append(heads)
        else:
            rewritten.append(node)
    if not found:
        raise CellFailure("unsupported", "the graph has no fused attention, in whose place the operator would stand")
    del placed.graph.node[:]
    placed.graph.node.extend(rewritten)
    placed.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return placed, found


class _Graph:
    """What a node's inputs are, in a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name: value.type.tensor_type for value in model.graph.input}
        self.makers = {output: node for node in model.graph.node for output in node.output if output}

    def replaced(self, node: onnx.NodeProto) -> tuple[list[onnx.NodeProto], Heads]:
        """The nodes that stand for a fused attention, and its heads."""
        if node.op_type != "Attention":
            _refuse(node, "only Attention, of one packed product, is understood")
        given = dict(zip(INPUTS, node.input, strict=False))
        if more := [name for name in node.input[len(INPUTS) :] if name]:
            _refuse(node, f"it reads {', '.join(more)} beside its {', '.join(INPUTS)}")
        if more := [name for name in node.output[1:] if name]:
            _refuse(node, f"it writes {', '.join(more)} beside its result")
        hidden, kind = self._packed(node, given)
        heads = int(attributes(node).get("num_heads", 0))
        if heads < 1 or hidden % heads:
            _refuse(node, f"{heads} heads do not share {hidden} numbers alike")
        _check_attributes(node, hidden // heads)
        mask = self._mask(node, given["mask_index"]) if given.get("mask_index") else ""
        where, result = node.name or node.output[0], node.output[0]
        product = rows = f"{result}/product"
        nodes = [helper.make_node("MatMul", [given["input"], given["weights"]], [product], f"{where}/product")]
        if given.get("bias"):
            rows = f"{result}/rows"
            nodes.append(helper.make_node("Add", [product, given["bias"]], [rows], f"{where}/bias"))
        read = [rows, "", "", mask] if mask else [rows]
        nodes.append(helper.make_node(NAME, read, [result], f"{where}/operator", domain=DOMAIN, num_heads=heads))
        return nodes, Heads(hidden // heads, bool(mask), kind)

    def _packed(self, node: onnx.NodeProto, given: Mapping[str, str]) -> tuple[int, str]:
        """The hidden size of a node's heads together, and the type of its weights."""
        weight, bias = self.weights.get(given["weights"]), given.get("bias")
        if weight is None or len(weight.dims) != 2 or weight.dims[1] % 3:
            _refuse(node, "its weights are no constant matrix for queries, keys and values together")
        if bias and (bias not in self.weights or list(self.weights[bias].dims) != [weight.dims[1]]):
            _refuse(node, "its bias is no constant of the width of its weights")
        if weight.data_type not in KINDS:
            _refuse(node, f"it computes in {TensorProto.DataType.Name(weight.data_type).lower()}")
        return weight.dims[1] // 3, KINDS[weight.data_type]

    def _mask(self, node: onnx.NodeProto, name: str) -> str:
        """The request's mask, of which a node reads what was made."""
        while maker := self.makers.get(name):
            if maker.op_type == "Cast":
                name = maker.input[0]
            elif maker.op_type == EMBEDDING and name == maker.output[1] and len(maker.input) > EMBEDDING_MASK:
                name = maker.input[EMBEDDING_MASK]
            else:
                _refuse(node, f"its mask comes from {maker.op_type} {maker.name!r}")
        kind = self.inputs.get(name)
        if kind is None or kind.elem_type != TensorProto.INT64 or len(kind.shape.dim) != 2:
            _refuse(node, f"its mask is {name}, which is no input of (batch, sequence) in int64")
        return name


def _check_attributes(node: onnx.NodeProto, width: int) -> None:
    for name, value in attributes(node).items():
        known = name in IGNORED or not value
        known |= name == "scale" and math.isclose(value, width**-0.5, rel_tol=1e-6)
        known |= name == "qkv_hidden_sizes" and len(set(value)) == 1
        if not known:
            _refuse(node, f"its {name} is {value}")


def _refuse(node: onnx.NodeProto, why: str) -> NoReturn:
    raise CellFailure("unsupported", f"{DOMAIN}::{NAME} cannot stand for {node.op_type} {node.name!r}: {why}")


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
