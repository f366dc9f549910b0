"""Floating point variants of a graph. Inputs and outputs keep their types: the casts at the boundary are on purpose, so
that every runtime and precision is fed and compared alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ceilings.errors import CellFailure
from ceilings.graphs import graph, hollow

PRECISIONS = ("fp32", "fp16", "bf16")
BF16_OPSET = 17
"""First operator set whose LayerNormalization exists, and takes bfloat16 like the operators around it."""


WIDENED = "_cast_to_fp32_node"
"""How ONNX Runtime's converter names the casts before what stays in FP32."""

MASK_ELEMENTS = 1 << 20
"""Constants of more elements are weights and no masks."""


def convert(model: onnx.ModelProto, precision: str) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A graph that computes in another floating point type.

    Args:
        model: An FP32 graph.
        precision: One of ``PRECISIONS``.

    Returns:
        The graph and what was done: ``clamped`` counts mask constants that were brought into range, ``kept_in_fp32``
        the operators that do not have the type in this operator set and stay between casts.

    Raises:
        CellFailure: The operator set is too old for the type, or a part of the graph has no form in it.
    """
    if precision == "fp32":
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy, {"clamped": 0, "kept_in_fp32": 0}
    if precision == "bf16" and graph.opset(model) < BF16_OPSET:
        raise CellFailure(
            "unsupported",
            f"bf16 needs opset {BF16_OPSET} or later, the graph has {graph.opset(model)}; raise the opset",
        )
    clamped = hollow.with_shapes(model)
    changed = clamp_masks(clamped, precision)
    half = _to_fp16(clamped, _without(model, precision))
    if precision == "bf16":
        exact = hollow.with_shapes(model)  # the converter works in place
        clamp_masks(exact, precision)
        _to_bf16(half, dict(_float_tensors(exact)))
    _check_types(half, model, precision)
    widened = {node.output[0] for node in half.graph.node if node.name.endswith(WIDENED)}
    kept = sum(not widened.isdisjoint(node.input) for node in half.graph.node)
    return half, {"clamped": changed, "kept_in_fp32": kept}


def clamp_masks(model: onnx.ModelProto, precision: str) -> int:
    """Bring constants that stand for minus infinity into the range of a narrower type, in place.

    A mask constant at the very end of the range becomes an infinity as soon as a score is added to it, and a row of
    infinities gives NaN after softmax. Half the range is still zero after softmax, and adding to it cannot overflow.
    Of a matrix, only what the type cannot hold is such a constant: a causal mask, say.

    Args:
        model: An FP32 graph.
        precision: ``fp16`` or ``bf16``.

    Returns:
        How many constants were changed.
    """
    changed, largest = 0, _largest(precision)
    limit = largest / 2
    for _, tensor in _float_tensors(model):
        elements = int(np.prod(tensor.dims))
        if not 0 < elements <= MASK_ELEMENTS:
            continue
        value = numpy_helper.to_array(tensor)
        outside = ~(np.abs(value) <= (limit if elements == 1 else largest)) & ~np.isnan(value)
        if np.any(outside):
            held = np.where(outside, np.copysign(limit, value), value).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(held, tensor.name))
            changed += 1
    return changed


def _largest(precision: str) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(np.float16 if precision == "fp16" else ml_dtypes.bfloat16).max)


def _without(model: onnx.ModelProto, precision: str) -> list[str]:
    """Nodes that take FP32 and not this type in the graph's operator set, such as a Conv in BF16 before 22."""
    wanted = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}[precision]
    opset, found = graph.opset(model), []
    for node in (node for here in hollow.graphs(model) for node in here.node if not node.domain):
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, "")
        except onnx.defs.SchemaError:  # too new or too old for this installation: left to the runtimes
            continue
        allowed = {
            constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in schema.type_constraints
        }
        for formals, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
            # The last formal parameter stands for all that follow; what is left out has no name.
            used = [formals[min(index, len(formals) - 1)].type_str for index, name in enumerate(names) if name]
            if any("tensor(float)" in allowed.get(kind, ()) and wanted not in allowed[kind] for kind in used):
                found.append(node.name)
                break
    return found


def _to_fp16(model: onnx.ModelProto, without: list[str]) -> onnx.ModelProto:
    """ONNX Runtime's converter, with casts to keep the inputs and outputs; it needs the shapes that it is not to infer,
    because inference of its own could not serialise a large graph."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True, node_block_list=without)
    # A tensor that two nodes read in FP32 is cast for each of them, by the same name.
    nodes = {node.output[0]: node for node in half.graph.node}
    if len(nodes) < len(half.graph.node):
        kept = list(nodes.values())
        del half.graph.node[:]
        half.graph.node.extend(kept)
    # Its casts of inputs stand at the end.
    OnnxModel.graph_topological_sort(half.graph)
    return half


def _to_bf16(half: onnx.ModelProto, exact: dict[str, TensorProto]) -> None:
    """Turn an FP16 graph into a BF16 one, in place: the same structure, values rounded from FP32 and not from FP16."""
    import ml_dtypes

    for name, tensor in _float_tensors(half, TensorProto.FLOAT16):
        value = numpy_helper.to_array(exact.get(name, tensor)).astype(ml_dtypes.bfloat16).reshape(tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for here in hollow.graphs(half):
        for node in here.node:
            for attribute in node.attribute:
                # Cast writes its target as "to", the random and constant makers as "dtype".
                if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.BFLOAT16
        for value in (*here.input, *here.output, *here.value_info):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.BFLOAT16


def _check_types(converted: onnx.ModelProto, model: onnx.ModelProto, precision: str) -> None:
    """Refuse a graph whose types contradict each other, if those of the one that it was made from do not.

    Raises:
        CellFailure: A part of the graph has no form in this precision, such as a branch of an If.
    """
    try:
        hollow.infer_shapes(converted, strict=True)
    except Exception as error:  # checkers share no class of errors
        try:
            hollow.infer_shapes(model, strict=True)
        except Exception:  # what cannot be checked is left to the runtimes
            return
        raise CellFailure("unsupported", f"the graph has no {precision} form: {graph.first_line(error)}") from None


def _float_tensors(model: onnx.ModelProto, kind: int = TensorProto.FLOAT) -> Iterator[tuple[str, TensorProto]]:
    """Initialisers and node attributes of a type, each with a name that survives conversion."""
    for here in hollow.graphs(model):
        for tensor in here.initializer:
            if tensor.data_type == kind:
                yield tensor.name, tensor
        for node in here.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == kind:
                    yield f"{node.name or node.output[0]}.{attribute.name}", attribute.t
