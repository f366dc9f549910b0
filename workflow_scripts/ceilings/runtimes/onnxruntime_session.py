"""Sessions of ONNX Runtime: how one is opened, and whether its graph has the workload's inputs and outputs."""

from __future__ import annotations

from typing import Any

import onnxruntime

from ceilings import records
from ceilings.errors import CellFailure, UserError
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

ELEMENT_TYPES = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
"""ONNX Runtime's names of element types, and NumPy's."""

ONNX_NUMBERS = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
}
"""onnx.TensorProto's numbers of element types; as numbers, because numpy has no bfloat16."""


def session_options(threads: int, shape: Shape | None = None) -> onnxruntime.SessionOptions:
    """Options to use ``threads`` threads within an operator, and to fix the axes to ``shape`` if one is given.

    Axes are found by name: the symbolic dimensions of a graph's inputs are called as the workload's axes.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for axis, size in shape.sizes if shape else ():
        options.add_free_dimension_override_by_name(axis, size)
    return options


def open_session(
    graph: Any,
    options: onnxruntime.SessionOptions,
    providers: list[Any],
    without: list[str] | None = None,
    retry: bool = True,
) -> onnxruntime.InferenceSession:
    """Open a session; what a runtime cannot run becomes a CellFailure, what is damaged a UserError.

    Args:
        without: Names of ORT's optimizers to leave out.
        retry: Whether ORT may open it with its own choice of providers if these fail, which it says on stdout only.
    """
    try:
        return onnxruntime.InferenceSession(
            str(graph), options, providers=providers, disabled_optimizers=without, enable_fallback=int(retry)
        )
    except Exception as error:  # ORT's exceptions share no base class but Exception
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = type(error).__name__
        if kind in ("NotImplemented", "InvalidGraph") or "NOT_IMPLEMENTED" in message:
            raise CellFailure("unsupported", message) from error
        if kind in ("InvalidProtobuf", "NoSuchFile"):
            raise UserError(f"{graph} is damaged ({message}); {records.anew(graph)}") from error
        if "memory" in message.lower() and "alloc" in message.lower():
            raise CellFailure("out-of-memory", message) from error
        raise


def inputs_of(session: Any, workload: Workload) -> tuple[TensorSpec, ...]:
    """Those of the workload's inputs that the graph reads, in the workload's order.

    Raises:
        CellFailure: It reads another tensor, or one as another type.
    """
    read = {value.name: ELEMENT_TYPES.get(value.type, value.type) for value in session.get_inputs()}
    known = {tensor.name: tensor for tensor in workload.inputs}
    if unknown := [name for name in read if name not in known]:
        raise CellFailure("unsupported", f"the graph reads {', '.join(unknown)}; the inputs are {', '.join(known)}")
    for name, kind in read.items():
        if kind != known[name].dtype:
            raise CellFailure("unsupported", f"the graph reads {name} as {kind}; the inputs are {known[name].dtype}")
    return tuple(tensor for tensor in workload.inputs if tensor.name in read)


def output_types(session: Any, workload: Workload) -> tuple[str, ...]:
    """Element types of the workload's outputs as the graph writes them: NumPy's names, or ``bfloat16``.

    Raises:
        CellFailure: It does not write one, or as a type that cannot be read.
    """
    written = {value.name: value.type for value in session.get_outputs()}
    kinds = []
    for output in workload.outputs:
        if output.name not in written:
            raise CellFailure("unsupported", f"the graph writes {', '.join(written)}, and not {output.name}")
        if (kind := written[output.name]) not in ELEMENT_TYPES:
            raise CellFailure("unsupported", f"the graph's {output.name} is {kind}; known: {', '.join(ELEMENT_TYPES)}")
        kinds.append(ELEMENT_TYPES[kind])
    return tuple(kinds)
