"""Which layers quantisation hurts, by signal to quantisation noise of each product with constant weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import numpy_helper

from ceilings.errors import UserError
from ceilings.graphs import graph
from ceilings.graphs.parity import sqnr_db


@dataclasses.dataclass(frozen=True)
class Layer:
    """Noise of one quantised product.

    Attributes:
        node: Its name, as ``keep`` of the study takes it.
        sqnr_db: Of this product alone, given exact inputs: keeping this node in FP32 removes this noise.
        accumulated_sqnr_db: Of its output with every product before it quantised too.
    """

    node: str
    sqnr_db: float
    accumulated_sqnr_db: float


def layers(
    quantized: onnx.ModelProto, base: onnx.ModelProto, feed: dict[str, np.ndarray], threads: int, optimize: bool = True
) -> list[Layer]:
    """Signal to noise of every quantised product, worst first.

    Args:
        quantized: A graph with Q/DQ pairs.
        base: The FP32 graph it was made from.
        feed: One input by name, (batch, sequence).
        threads: CPU threads.
        optimize: Whether ONNX Runtime may optimise the quantised graph.

    Raises:
        UserError: The graphs do not belong together.
    """
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    makers = {node.output[0]: node for node in quantized.graph.node}
    originals = {product.node: product for product in graph.weight_products(base)}
    found: list[tuple[graph.WeightProduct, onnx.NodeProto, onnx.NodeProto]] = []
    for node in quantized.graph.node:
        around = [makers.get(name) for name in node.input[:2]]
        if node.op_type not in ("MatMul", "Gemm") or any(
            dq is None or dq.op_type != "DequantizeLinear" for dq in around
        ):
            continue
        activation, weight = around
        assert activation is not None and weight is not None
        if node.name not in originals or activation.input[0] not in makers:
            raise UserError(
                f"{node.name} of the quantised graph is not in the base graph; give the graph it was made from"
            )
        found.append((originals[node.name], activation, weight))
    outputs = {product.output for product, *_ in found}
    exact = _run(base, outputs | {product.activation for product, *_ in found}, feed, threads)
    noisy = _run(quantized, outputs, feed, threads, optimize)
    measured = []
    for product, activation, weight in found:
        left, right = exact[product.activation], _dequantized(stored, weight, product.transposed)
        expected = exact[product.output]
        # The bias of a Gemm is exact in both, so the product alone is compared.
        original = _constant(base, product)
        rounded = _round_trip(stored, makers[activation.input[0]], left)
        measured.append(
            Layer(
                product.node,
                round(sqnr_db(left @ original, rounded @ right), 2),
                round(sqnr_db(expected, noisy[product.output]), 2),
            )
        )
    return sorted(measured, key=lambda layer: (layer.sqnr_db, layer.node))


def _run(
    model: onnx.ModelProto, names: set[str], feed: dict[str, np.ndarray], threads: int, optimize: bool = True
) -> dict[str, np.ndarray]:
    """Values of inner tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    for name in sorted(names - present):
        copy.graph.output.add(name=name)  # without a type: ONNX Runtime infers it
    ordered = sorted(names)
    return dict(zip(ordered, graph.session(copy, threads, optimize=optimize).run(ordered, feed), strict=True))


def _constant(model: onnx.ModelProto, product: graph.WeightProduct) -> np.ndarray:
    """A product's weights in FP32, as they multiply from the right."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == product.weight)
    value = numpy_helper.to_array(tensor)
    return value.T if product.transposed else value


def _dequantized(stored: dict[str, onnx.TensorProto], node: onnx.NodeProto, transposed: bool) -> np.ndarray:
    """Weights as a DequantizeLinear gives them, multiplying from the right; symmetric, so without a zero point."""
    value = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
    # One scale an output channel, or one in all: both broadcast over the last axis.
    return (value.T if transposed else value) * numpy_helper.to_array(stored[node.input[1]])


def _round_trip(stored: dict[str, onnx.TensorProto], node: onnx.NodeProto, value: np.ndarray) -> np.ndarray:
    """Activations through a QuantizeLinear and back."""
    scale, zero = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
    if zero.dtype in (np.int8, np.uint8):
        limits = np.iinfo(zero.dtype)
        offset = int(zero)
        return ((np.clip(np.rint(value / scale) + offset, limits.min, limits.max) - offset) * scale).astype(np.float32)
    largest = 448.0  # E4M3FN saturates in QuantizeLinear, while a plain cast would give NaN
    return np.clip(value / scale, -largest, largest).astype(zero.dtype).astype(np.float32) * scale
