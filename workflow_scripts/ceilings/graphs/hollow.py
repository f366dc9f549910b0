"""Graphs without the values of their large weights: what shape inference and simplifiers can serialise at any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto, helper, numpy_helper

from ceilings.errors import CellFailure


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph of a model and every graph inside its nodes, such as the branches of an If."""
    waiting = [model.graph]
    while waiting:
        here = waiting.pop(0)
        yield here
        for node in here.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    waiting.append(attribute.g)
                elif attribute.type == onnx.AttributeProto.GRAPHS:
                    waiting.extend(attribute.graphs)


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initialisers and attributes, those of inner graphs too."""
    for here in graphs(model):
        yield from here.initializer
        for node in here.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    yield attribute.t


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


def emptied(
    model: onnx.ModelProto, smallest: int, matrices: bool = False
) -> tuple[onnx.ModelProto, dict[str, TensorProto]]:
    """A copy without the values of large initialisers, and these by name as they stand in the graph given.

    What has no values is marked as lying elsewhere, under its own name, so that each still equals only itself.

    Args:
        model: A graph; stays as it is.
        smallest: Bytes from which on an initialiser is large.
        matrices: Leave vectors where they are, however long.
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
        if nbytes(tensor) < smallest or (matrices and len(tensor.dims) < 2):
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


def infer_shapes(model: onnx.ModelProto, strict: bool = False) -> onnx.ModelProto:
    """The model without the values of large weights, and with the shapes and types that can be inferred.

    Args:
        model: A graph; stays as it is.
        strict: Contradictions are errors.

    Raises:
        onnx.shape_inference.InferenceError: Types or shapes contradict each other.
    """
    shell, _ = emptied(model, 1 << 16)
    return onnx.shape_inference.infer_shapes(shell, strict_mode=strict, data_prop=True)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that says the shape and type of every inner tensor for which they can be inferred.

    Raises:
        CellFailure: They contradict what the graph says of them.
    """
    try:
        found = infer_shapes(model).graph.value_info
    except onnx.shape_inference.InferenceError as error:
        line = str(error).strip().splitlines()[0][:300]
        raise CellFailure("unsupported", f"the graph's shapes contradict each other: {line}") from None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(found)
    return copy


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
