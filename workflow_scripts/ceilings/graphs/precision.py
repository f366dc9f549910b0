"""Floating point variants of a graph. Inputs stay int64 and logits float32: the casts at the boundary are on purpose,
so that every runtime and precision is fed and compared alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ceilings.errors import UserError
from ceilings.graphs import graph

PRECISIONS = ("fp32", "fp16", "bf16")
BF16_OPSET = 17
"""First operator set whose LayerNormalization exists, and takes bfloat16 like the operators around it."""


def convert(model: onnx.ModelProto, precision: str) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A graph that computes in another floating point type.

    Args:
        model: An FP32 graph.
        precision: One of ``PRECISIONS``.

    Returns:
        The graph and what was done: ``clamped`` counts mask constants that were brought into range.

    Raises:
        UserError: The operator set is too old for the type.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if precision == "fp32":
        return copy, {"clamped": 0}
    if precision == "bf16" and graph.opset(model) < BF16_OPSET:
        raise UserError(f"bf16 needs opset {BF16_OPSET} or later, the graph has {graph.opset(model)}; raise the opset")
    clamped = clamp_masks(copy, _limit(precision))
    exact = {name: numpy_helper.to_array(tensor) for name, tensor in _float_tensors(copy)}
    half = _to_fp16(copy)
    if precision == "bf16":
        _to_bf16(half, exact)
    return half, {"clamped": clamped}


def clamp_masks(model: onnx.ModelProto, limit: float) -> int:
    """Bring constants that stand for minus infinity into the range of a narrower type, in place.

    A mask constant at the very end of the range becomes an infinity as soon as a score is added to it, and a row of
    infinities gives NaN after softmax. Half the range is still zero after softmax, and adding to it cannot overflow.

    Args:
        model: An FP32 graph.
        limit: Half the largest value of the type.

    Returns:
        How many constants were changed.
    """
    changed = 0
    for _, tensor in _float_tensors(model):
        # Scalars only: real weights of this size do not exist, and reading every table would take seconds.
        if np.prod(tensor.dims) > 1:
            continue
        value = numpy_helper.to_array(tensor)
        if np.any(np.abs(value) > limit):
            tensor.CopyFrom(numpy_helper.from_array(np.clip(value, -limit, limit).astype(np.float32), tensor.name))
            changed += 1
    return changed


def _limit(precision: str) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(np.float16 if precision == "fp16" else ml_dtypes.bfloat16).max) / 2


def _to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime's converter, with casts to keep the inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def _to_bf16(half: onnx.ModelProto, exact: dict[str, np.ndarray]) -> None:
    """Turn an FP16 graph into a BF16 one, in place: the same structure, values rounded from FP32 and not from FP16."""
    import ml_dtypes

    for name, tensor in _float_tensors(half, TensorProto.FLOAT16):
        value = exact[name].astype(ml_dtypes.bfloat16).reshape(tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for node in half.graph.node:
        for attribute in node.attribute:
            # Cast writes its target as "to", the random and constant makers as "dtype".
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
    for value in (*half.graph.input, *half.graph.output, *half.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16


def _float_tensors(model: onnx.ModelProto, kind: int = TensorProto.FLOAT) -> Iterator[tuple[str, TensorProto]]:
    """Initialisers and node attributes of a type, each with a name that survives conversion."""
    for tensor in model.graph.initializer:
        if tensor.data_type == kind:
            yield tensor.name, tensor
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == kind:
                yield f"{node.output[0]}.{attribute.name}", attribute.t
