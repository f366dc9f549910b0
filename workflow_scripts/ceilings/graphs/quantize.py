"""Explicit quantisation: Q/DQ around the products with constant weights, from ranges that were calibrated before.

What is not quantised computes in FP32, or in FP16: TensorRT takes each type as it is written, and fuses attention in
FP16 but not in FP32. Scales then are FP16 too, since a DequantizeLinear gives the type of its scale.

Two forms of the same int8 numbers are written, because two kinds of runtime want different ones:

* signed: activations int8 with zero point 0. What TensorRT takes.
* unsigned: activations uint8 with zero point 128, so each value is the signed one plus 128. What ONNX Runtime's CPU
  kernels take: x86 multiplies unsigned by signed bytes. From the signed form it fuses only some products, computes the
  rest in FP32 and becomes slower than FP32.

An x86 CPU without VNNI adds two such products in 16 bits, which saturates. There the weights become uint8 around 128
too: ONNX Runtime's kernels for two unsigned operands widen first, so the numbers stay the same, only the speed differs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fnmatch
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ceilings import options
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import graph, hollow
from ceilings.graphs.calibration import Range
from ceilings.graphs.precision import convert
from ceilings.lifetime import temporary_folder

PRECISIONS = ("int8", "fp8")
FP8_OPSET = 19
"""First operator set whose QuantizeLinear knows E4M3FN, and scales in FP16."""
INT8_OPSET = 13
"""First operator set whose QuantizeLinear has a scale for each column."""
FP8_LARGEST = 448.0
OPERATORS = ("MatMul", "Gemm")
SHAPES_KNOWN = ("onnx.infer", "onnxruntime.quant")
"""Metadata by which ONNX Runtime's quantiser knows that shapes were inferred."""
INTEGER_KERNELS = ("QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How to quantise.

    Attributes:
        keep: Glob patterns of node names that stay in floating point.
        keep_most_sensitive: How many more stay: those that quantisation alone hurts most.
        per_channel: One weight scale a column rather than a tensor.
    """

    keep: list[str] = dataclasses.field(default_factory=list)
    keep_most_sensitive: int = 0
    per_channel: bool = True


@dataclasses.dataclass(frozen=True)
class Quantized:
    """A graph with Q/DQ, the products that got it and those that were kept, and the operator set it was given in."""

    model: onnx.ModelProto
    quantized: list[str]
    kept: list[str]
    opset_before: int


def read(value: Mapping[str, Any]) -> Quantization:
    """Check a quantisation's slice of the study."""
    return options.read(Quantization, value, "--quantization")


def quantize(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    precision: str,
    quantization: Quantization,
    floats: str = "fp32",
) -> Quantized:
    """Insert Q/DQ pairs before every product with constant weights that is not kept.

    Outputs and biases get none: a product that feeds an Add or a normalisation gives its sums at full precision, as
    TensorRT recommends. (The classifier's Gemm then has no integer kernel in ONNX Runtime: it is one row an input.)

    Args:
        model: The FP32 graph that was calibrated.
        ranges: By tensor name.
        precision: ``int8`` or ``fp8`` (E4M3FN).
        quantization: What to keep by name, and how fine the weight scales are.
        floats: What the rest computes in: ``fp32`` or ``fp16``.

    Raises:
        UserError: A pattern without a node, or a range that is missing.
        CellFailure: Nothing to quantise, or an operator set that is too old and cannot be raised.
    """
    products = graph.weight_products(model)
    if not products:
        raise CellFailure(
            "unsupported", "the graph has no MatMul or Gemm with constant weights, so nothing to quantise"
        )
    kept = matching([product.node for product in products], quantization.keep)
    chosen = [product for product in products if product.node not in kept]
    if not chosen:
        raise UserError(f"keep = {quantization.keep} keeps every node, so nothing is left to quantise; keep fewer")
    for product in chosen:
        if product.activation not in ranges:
            raise UserError(
                f"the calibration has no range of {product.activation}, which {product.node} needs; "
                f"delete the calibration and run again"
            )
    before = graph.opset(model)
    raised = _raise_opset(model, precision, FP8_OPSET if precision == "fp8" or floats == "fp16" else INT8_OPSET)
    copy = convert(raised, "fp16")[0] if floats == "fp16" else raised
    # By node: the conversion gives tensors beside a cast other names.
    calibrated = {product.node: ranges[product.activation] for product in chosen}
    used = {p.activation: calibrated[p.node] for p in graph.weight_products(copy) if p.node in calibrated}
    quantized = _insert(copy, [product.node for product in chosen], used, precision, quantization.per_channel)
    if floats == "fp16":
        _half_scales(quantized)
    return Quantized(quantized, [product.node for product in chosen], sorted(kept), before)


def matching(names: list[str], patterns: list[str]) -> set[str]:
    """The names that glob patterns match.

    Raises:
        UserError: A pattern that matches none; the message lists near names.
    """
    found: set[str] = set()
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
            raise UserError(f"keep has {pattern!r}, which matches no quantisable node; near: {', '.join(near)}")
        found.update(matches)
    return found


def unsigned(model: onnx.ModelProto, weights: bool = False) -> onnx.ModelProto:
    """The same int8 graph with activations as uint8 around 128: the same grid of values, bit for bit.

    Args:
        model: Activations and weights in int8.
        weights: Whether weights become uint8 around 128 too.
    """
    copy = _copy(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in copy.graph.node:
        # Only activations pass through QuantizeLinear; weights are stored quantised.
        stored = node.op_type == "DequantizeLinear" and node.input[0] in constants
        if node.op_type == "QuantizeLinear" or (stored and weights):
            zero = constants[node.input[2]]
            if zero.data_type == TensorProto.INT8:
                value = np.full(tuple(zero.dims), 128, np.uint8)
                zero.CopyFrom(numpy_helper.from_array(value, zero.name))
        if stored and weights and (tensor := constants[node.input[0]]).data_type == TensorProto.INT8:
            value = (numpy_helper.to_array(tensor).astype(np.int16) + 128).astype(np.uint8)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    # The types in between follow from the zero points.
    del copy.graph.value_info[:]
    return copy


def integer_kernels(model: onnx.ModelProto) -> dict[str, int]:
    """How many products ONNX Runtime's CPU provider computes in integers, and how many in floating point.

    Returns:
        ``integer``: nodes with integer kernels after optimisation; ``float``: products with constant weights that
        still have none.
    """
    with temporary_folder() as folder:
        path = Path(folder, "optimized.onnx")
        graph.session(model, optimized=path)
        optimized = graph.load(path, values=False)
    integer = sum(node.op_type in INTEGER_KERNELS for node in optimized.graph.node)
    dequantized = {node.output[0] for node in optimized.graph.node if node.op_type == "DequantizeLinear"}
    constants = {tensor.name for tensor in optimized.graph.initializer}
    floating = sum(
        node.op_type in ("MatMul", "Gemm", "FusedMatMul", "FusedGemm") and node.input[1] in dequantized | constants
        for node in optimized.graph.node
    )
    return {"integer": integer, "float": floating}


def _insert(
    model: onnx.ModelProto, nodes: list[str], ranges: Mapping[str, Range], precision: str, per_channel: bool
) -> onnx.ModelProto:
    """Let ONNX Runtime's quantiser place the Q/DQ pairs."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    data: dict[str, Any] = {
        # Symmetric by itself already: the quantiser has nothing to widen.
        name: TensorData(
            lowest=np.float32(-span.largest),
            highest=np.float32(span.largest),
            # Not used where a scale is given, but for FP8 the quantiser asks for them first.
            avg=np.float32(0),
            std=np.float32(1),
        )
        for name, span in ranges.items()
    }
    # Its own inference of shapes would write the whole graph to a file.
    model = hollow.with_shapes(model)
    model.metadata_props.add(key=SHAPES_KNOWN[0], value=SHAPES_KNOWN[1])
    kind = QuantType.QInt8
    settings: dict[str, Any] = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "MatMulConstBOnly": True,
        "OpTypesToExcludeOutputQuantization": list(OPERATORS),
    }
    if precision == "fp8":
        kind = QuantType.QFLOAT8E4M3FN
        settings["TensorQuantOverrides"] = _fp8_scales(model, nodes, ranges, per_channel)
    with _quiet():
        quantizer = QDQQuantizer(
            model,
            per_channel,
            False,
            kind,
            kind,
            TensorsData(CalibrationMethod.MinMax, data),
            nodes,
            [],
            list(OPERATORS),
            settings,
        )
        quantized = quantizer.quantize_model()
        _only_products(quantized, set(nodes))
        quantizer.model.topological_sort()
    kept = [entry for entry in quantized.metadata_props if entry.key != SHAPES_KNOWN[0]]
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(kept)
    return quantized


def _only_products(model: onnx.ModelProto, nodes: set[str]) -> None:
    """Give every node but the quantised products the unrounded activation back, in place.

    The quantiser rewires all readers of a tensor: residual additions and kept products would get its noise too.
    """
    rounded = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    exact = {
        node.output[0]: source
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for source, stored in rounded.items()
        if stored == node.input[0]
    }
    for node in model.graph.node:
        if node.name not in nodes:
            for index, name in enumerate(node.input):
                node.input[index] = exact.get(name, name)


def _fp8_scales(
    model: onnx.ModelProto, nodes: list[str], ranges: Mapping[str, Range], per_channel: bool
) -> dict[str, list[dict[str, Any]]]:
    """Scales that map the largest magnitude to the largest E4M3FN number.

    The quantiser itself would derive them from standard deviations, which clips; TensorRT's own tools scale like this.
    """
    import ml_dtypes
    from onnxruntime.quantization import QuantType

    kind = {"quant_type": QuantType.QFLOAT8E4M3FN, "zero_point": np.array(0, ml_dtypes.float8_e4m3fn)}

    def scale(largest: float) -> np.ndarray:
        return np.array((largest or 1.0) / FP8_LARGEST, np.float32)

    scales: dict[str, list[dict[str, Any]]] = {
        name: [{**kind, "scale": scale(span.largest)}] for name, span in ranges.items()
    }
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for product in graph.weight_products(model):
        if product.node in nodes:
            value = np.abs(numpy_helper.to_array(weights[product.weight]))
            channels = 0 if product.transposed else 1
            scales[product.weight] = (
                [{**kind, "scale": scale(float(each)), "axis": channels} for each in value.max(axis=1 - channels)]
                if per_channel
                else [{**kind, "scale": scale(float(value.max()))}]
            )
    return scales


def _half_scales(model: onnx.ModelProto) -> None:
    """Turn the FP32 scales into FP16, in place: their rounding is a tenth of what rounding to 8 bits costs, or less.

    Raises:
        UserError: A scale is zero or infinite in FP16.
    """
    scales = {node.input[1] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            if not np.all(half > 0) or not np.all(np.isfinite(half)):
                raise UserError(f"{tensor.name} has a scale that FP16 does not hold; its range is no use for FP16")
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))


def _raise_opset(model: onnx.ModelProto, precision: str, wanted: int) -> onnx.ModelProto:
    """A copy of the graph in an operator set that has the quantised types, converted if need be.

    Raises:
        CellFailure: The converter does not know a part of the graph.
    """
    if graph.opset(model) >= wanted:
        return _copy(model)
    shell, aside = hollow.emptied(model, 1 << 16)
    try:
        raised = onnx.version_converter.convert_version(shell, wanted)
        hollow.fill(raised, aside)
    except Exception as error:  # the converter raises RuntimeError and its own types
        raise CellFailure(
            "unsupported",
            f"{precision} needs opset {wanted} here, the graph has {graph.opset(model)} and cannot be converted "
            f"({graph.first_line(error)}); export with opset {wanted} or later",
        ) from None
    graph.copy_interface(raised, model)
    return raised


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the quantiser's advice to preprocess; simplification did that."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
