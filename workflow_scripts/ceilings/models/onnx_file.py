"""The workload of an ONNX file: what its graph, and the study beside it, say of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.models.definition import Definition
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import ITEM_BYTES, TensorSpec
from ceilings.workload.workload import Workload

AXES = {
    "batch": ("batch", "batch_size", "n", "b", "bs", "unk__0"),
    "sequence": ("sequence", "sequence_length", "seq_len", "seq", "seq_length", "s", "encoder_sequence_length"),
    "image": ("image", "height", "width", "h", "w"),
}
"""Axes and the symbolic dimensions that exporters give them."""

NAMES = {
    "input_ids": "tokens",
    "attention_mask": "mask",
    "token_type_ids": "zeros",
    "pixel_values": "pixels",
}
"""Inputs that exporters of Transformers name so, and what each holds."""

VOCABULARY = 1000
"""Ids that a ``tokens`` or ``integers`` input gets where nobody says how many there are: few enough for any table."""


def workload(definition: Definition) -> Workload:
    """The workload of the ONNX file that a study names; its weights are not read.

    Raises:
        UserError: The file is missing or damaged, or says too little of a tensor.
    """
    import onnx

    assert definition.onnx is not None
    path = Path(definition.onnx).expanduser()
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except FileNotFoundError:
        raise UserError(f"model {definition.name!r}: {path} does not exist; correct onnx") from None
    except Exception as error:  # protobuf's own error types
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"model {definition.name!r}: {path} is no ONNX file ({line}); export it anew") from None
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    symbols = {dim.dim_param for value in inputs for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    if unknown := sorted(set(definition.axes) - symbols):
        raise UserError(
            f"model {definition.name!r}: axes names {unknown[0]!r}, but the symbolic dimensions of {path} are "
            f"{', '.join(sorted(symbols)) or 'none'}; correct axes"
        )
    names = [value.name for value in inputs]
    if unknown := sorted(set(definition.inputs) - set(names)):
        raise UserError(
            f"model {definition.name!r}: inputs names {unknown[0]!r}, but {path} reads {', '.join(names)}; correct it"
        )
    rows = {tensor: _embedding_rows(graph, tensor) for tensor in names}
    return Workload(
        TASKS[definition.task or "tensors"],
        tuple(_input(definition, path, value, rows[value.name]) for value in inputs),
        tuple(
            TensorSpec(value.name, _dtype(path, value), _dims(definition, path, value, False)) for value in graph.output
        ),
        architecture="",
    )


def _input(definition: Definition, path: Path, value: Any, rows: int | None) -> TensorSpec:
    says: Mapping[str, Any] = definition.inputs.get(value.name, {})
    dtype = _dtype(path, value)
    whole = "int" in dtype or dtype == "bool"
    content = says.get("content") or NAMES.get(value.name) or ("integers" if whole else "reals")
    high = (1 if dtype == "bool" else (rows or VOCABULARY) - 1) if content in ("tokens", "integers") else 0
    return TensorSpec(
        value.name,
        dtype,
        _dims(definition, path, value, True),
        content,
        int(says.get("low", 0)),
        int(says.get("high", high)),
    )


def _dtype(path: Path, value: Any) -> str:
    import onnx

    number = value.type.tensor_type.elem_type
    name = str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else "unknown"
    if name not in ITEM_BYTES:
        raise UserError(f"{path}: {value.name!r} has element type {name}; known: {', '.join(ITEM_BYTES)}")
    return name


def _dims(definition: Definition, path: Path, value: Any, strict: bool) -> tuple[str | int, ...]:
    """Axes and sizes of a tensor. Of an output, a dimension that nobody named is kept by the graph's word for it."""
    dims: list[str | int] = []
    for index, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value"):
            dims.append(int(dim.dim_value))
            continue
        axis = definition.axes.get(dim.dim_param) or _axis(dim.dim_param)
        if axis is None and strict:
            raise UserError(
                f"model {definition.name!r}: dimension {index} of {value.name!r} in {path} is "
                f"{dim.dim_param or 'unnamed'!r}, which is no axis; say which it is, such as "
                f"axes: {{{dim.dim_param or 'NAME'}: sequence}}"
            )
        dims.append(axis or dim.dim_param or f"dim{index}")
    return tuple(dims)


def _axis(symbol: str) -> str | None:
    return next((axis for axis, names in AXES.items() if symbol.lower() in names), None)


def _embedding_rows(graph: Any, tensor: str) -> int | None:
    """Rows of the table that an input of ids looks up; None where it looks up none of the graph's own."""
    tables = {initializer.name: initializer.dims for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[1] == tensor and node.input[0] in tables:
            return int(tables[node.input[0]][0])
    return None
