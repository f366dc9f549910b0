"""Graphs without the values of their large weights: what shape inference and simplifiers can serialise at any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto, helper, numpy_helper

from ceilings.errors import UserError


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a graph: initialisers and attributes, those of subgraphs too."""
    yield from _tensors(model.graph)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)


def tensor_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all tensors of a graph."""
    return sum(nbytes(tensor) for tensor in tensors(model))


def nbytes(tensor: TensorProto) -> int:
    """Bytes of one tensor as it is stored raw; strings count as nothing."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def raw(tensor: TensorProto) -> bytes:
    """Its content as raw bytes, however it is stored."""
    return tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def emptied(model: onnx.ModelProto, smallest: int) -> tuple[onnx.ModelProto, dict[str, TensorProto]]:
    """A copy without the values of large initialisers, and these by name as they stand in the graph given.

    What has no values is marked as lying elsewhere, under its own name, so that each still equals only itself.

    Args:
        model: A graph; stays as it is.
        smallest: Bytes from which on an initialiser is large.
    """
    copy = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _set(copy, field, value)
    aside = {}
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _set(copy.graph, field, value)
    for tensor in model.graph.initializer:
        if nbytes(tensor) < smallest:
            copy.graph.initializer.append(tensor)
            continue
        aside[tensor.name] = tensor
        empty = copy.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        empty.data_location = TensorProto.EXTERNAL
        empty.external_data.add(key="location", value=tensor.name)
    return copy, aside


def fill(model: onnx.ModelProto, aside: Mapping[str, TensorProto]) -> onnx.ModelProto:
    """Undo ``emptied``, in place, whatever the weights are called now."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = raw(aside[tensor.external_data[0].value])
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return model


def infer_shapes(model: onnx.ModelProto, strict: bool = False) -> onnx.GraphProto:
    """The graph without large weights and with the shapes that can be inferred, for its inputs as they are.

    Raises:
        UserError: They contradict each other.
    """
    shell, _ = emptied(model, 1 << 16)
    try:
        return onnx.shape_inference.infer_shapes(shell, strict_mode=strict, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise UserError(f"shapes cannot be inferred: {str(error).strip().splitlines()[0][:300]}") from None


def _set(message: object, field: object, value: object) -> None:
    """Copy one field of a protobuf message."""
    name = field.name  # type: ignore[attr-defined]
    target = getattr(message, name)
    if hasattr(target, "extend"):
        target.extend(value)
    elif hasattr(target, "CopyFrom"):
        target.CopyFrom(value)
    else:
        setattr(message, name, value)
