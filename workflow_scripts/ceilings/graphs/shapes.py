"""The shape and type of every tensor of a graph at one shape of its inputs, with everything constant folded away."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ceilings.errors import UserError
from ceilings.graphs import graph, hollow
from ceilings.workload.shape import Shape

SMALL = 1 << 16
"""Constants of more elements are weights: their shape counts, and their values are never looked at."""

EVALUATED = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
"""Types of the constants that shapes are computed from."""

KEPT = {"Gather", "DequantizeLinear", "Transpose", "Reshape", "Expand"}
"""What is not dropped where it depends on no input: look-ups, and how a quantised or repeated weight comes to its
reader, who reads what is stored."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Type (as NumPy or ONNX names it) and static shape of a tensor."""

    kind: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @functools.cached_property
    def itemsize(self) -> int:
        """Bytes an element."""
        number = TensorProto.DataType.Value(self.kind.upper())
        return helper.tensor_dtype_to_np_dtype(number).itemsize

    @property
    def bytes(self) -> int:
        return self.elements * self.itemsize


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A graph at one shape.

    Attributes:
        nodes: Those that depend on the inputs' values, in graph order, and those of ``KEPT``.
        tensors: Of every tensor that these read or write.
        constants: Names of those that do not depend on the inputs.
    """

    nodes: list[onnx.NodeProto]
    tensors: dict[str, Tensor]
    constants: set[str]


def resolve(model: onnx.ModelProto, shape: Shape) -> Resolved:
    """Shapes of all tensors for inputs of a shape.

    Raises:
        UserError: A shape stays unknown, or the graph has an axis that the shape has not.
    """
    static = _skeleton(model)
    for value in static.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                if (size := shape.get(dim.dim_param)) is None:
                    raise UserError(f"input {value.name} has the axis {dim.dim_param}, which {shape} gives no size")
                dim.dim_value = size
    while True:
        tensors, unknown = _infer(static)
        if not _fold(static, tensors):
            break
    constants = {tensor.name for tensor in static.graph.initializer}
    nodes = []
    for node in static.graph.node:
        constant = all(name in constants for name in node.input if name)
        # What is looked up in a table is not stored anywhere before, even where the places are constant.
        if constant and node.op_type != "Gather":
            constants.update(node.output)
        if not constant or node.op_type in KEPT:
            nodes.append(node)
    needed = {name for node in nodes for name in (*node.input, *node.output) if name}
    if missing := sorted(needed & unknown):
        raise UserError(
            f"the shape of {missing[0]} (and of {len(missing) - 1} more tensors) at {shape.full} cannot be "
            "inferred, so nothing can be counted; simplify the graph, or export it with other operators"
        )
    return Resolved(nodes, tensors, constants)


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the weights' values and without shapes that were inferred for other inputs."""
    copy, _ = hollow.emptied(model, SMALL * 8 + 1)
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        # Its dynamic dimensions have names; the inferred ones are numbers.
        value.type.tensor_type.ClearField("shape")
    return copy


def _infer(model: onnx.ModelProto) -> tuple[dict[str, Tensor], set[str]]:
    """Tensors whose shapes are known, and the names of the others."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise UserError(f"shapes cannot be inferred: {graph.first_line(error)}") from None
    tensors = {
        tensor.name: Tensor(TensorProto.DataType.Name(tensor.data_type).lower(), tuple(tensor.dims))
        for tensor in inferred.initializer
    }
    unknown = {name for node in inferred.node for name in node.output if name}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shape = tuple(dim.dim_value for dim in kind.shape.dim)
            tensors[value.name] = Tensor(TensorProto.DataType.Name(kind.elem_type).lower(), shape)
            unknown.discard(value.name)
    return tensors, unknown - set(tensors)


def _fold(model: onnx.ModelProto, tensors: dict[str, Tensor]) -> bool:
    """Evaluate, in place, what depends on shapes and small constants alone; whether there was anything."""
    values = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if math.prod(tensor.dims) <= SMALL and tensor.data_type in EVALUATED
    }
    known, constant, rest = set(values), [], []
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] in tensors:
            # Since opset 15 a part of the shape can be asked for.
            part = {attribute.name: attribute.i for attribute in node.attribute}
            shape = tensors[node.input[0]].shape
            found = np.array(shape[part.get("start", 0) : part.get("end", len(shape))], np.int64)
            values[node.output[0]] = numpy_helper.from_array(found, node.output[0])
            model.graph.initializer.append(values[node.output[0]])
            known.add(node.output[0])
        elif all(name in known for name in node.input if name):
            constant.append(node)
            known.update(node.output)
        else:
            rest.append(node)
    if constant:
        model.graph.initializer.extend(_evaluated(constant, values, model))
    folded = len(rest) < len(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(rest)
    return folded


def _evaluated(
    nodes: list[onnx.NodeProto], values: dict[str, TensorProto], model: onnx.ModelProto
) -> list[TensorProto]:
    """The outputs of nodes of which only ``values`` are needed."""
    names = [name for node in nodes for name in node.output if name]
    read = {name for node in nodes for name in node.input}
    part = helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in names],
        [values[name] for name in sorted(read & values.keys())],
    )
    runnable = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        found = graph.session(runnable, 1, optimize=False).run(names, {})
    except Exception as error:  # ONNX Runtime's errors share no class
        raise UserError(f"what its shapes depend on cannot be evaluated: {graph.first_line(error)}") from None
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, found, strict=True)]
