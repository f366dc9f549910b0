"""The workload of an ONNX file: what its graph, and the study beside it, say of its tensors."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings import files
from ceilings.errors import UserError
from ceilings.models import onnx_indices
from ceilings.models.definition import Definition
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

AXES = {
    "batch": ("batch", "batch_size", "n", "b", "bs", "unk__0"),
    "sequence": ("sequence", "sequence_length", "seq_len", "seq", "seq_length", "s", "encoder_sequence_length"),
    "image": ("image", "height", "width", "h", "w"),
}
"""Axes and the symbolic dimensions of inputs that exporters give them."""

NAMES = {
    "input_ids": "tokens",
    "attention_mask": "mask",
    "input_mask": "mask",
    "token_type_ids": "zeros",
    "segment_ids": "zeros",
    "pixel_values": "pixels",
}
"""Inputs that exporters of Transformers name so, and what each holds."""

FLOATS = ("float16", "bfloat16", "float64")
"""Element types that become float32: see ``ceilings.graphs.precision.widen``."""


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """What a file is to this pipeline.

    Attributes:
        workload: Its inputs and outputs. An element type that no tensor here has is called by ONNX's word for it, and
            a dimension of an output that follows from no input ``NAME.INDEX``.
        fixed: The axes of one size.
    """

    workload: Workload
    fixed: Mapping[str, int]


def read(definition: Definition) -> OnnxFile:
    """What the ONNX file that a study names is; its weights are not read.

    Raises:
        UserError: The file is missing or damaged, or says too little of a tensor.
    """
    path = files.expanded(str(definition.onnx))
    where = f"model {definition.name!r}"
    model = _load(path, where)
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    _refuse_unknown_names(definition, path, inputs, list(model.graph.output))
    axes = _Axes(definition, path, inputs)
    indices = _indices(definition, model, inputs)
    workload = Workload(
        TASKS[definition.task or "tensors"],
        tuple(_input(definition, path, value, axes.of[value.name], indices.get(value.name)) for value in inputs),
        tuple(TensorSpec(value.name, _dtype(value), axes.of_output(value)) for value in model.graph.output),
        architecture="",
    )
    if not workload.axes:
        raise UserError(f"{where}: {_without_axes(path, inputs)}")
    return OnnxFile(workload, axes.fixed)


def beside(definition: Definition) -> list[Path]:
    """The files that hold weights of a model's graph, as the graph names them: below its folder, there or not.

    Raises:
        UserError: The graph is missing or damaged.
    """
    path = files.expanded(str(definition.onnx))
    graph = _load(path, f"model {definition.name!r}").graph
    names = {entry.value for tensor in _tensors(graph) for entry in tensor.external_data if entry.key == "location"}
    places = (Path(os.path.normpath(path.parent / name)) for name in sorted(names))
    return [place for place in places if place.is_relative_to(os.path.normpath(path.parent))]


def _tensors(graph: Any) -> Iterator[Any]:
    """Every stored tensor of a graph: weights, constants, and those of the graphs within it."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _load(path: Path, where: str) -> Any:
    import onnx

    try:
        pointer, size = files.is_pointer(path), path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{where}: {path} does not exist; correct onnx") from None
    except OSError as error:
        raise UserError(
            f"{where}: {path} cannot be read ({error.strerror}); correct onnx, or its permissions"
        ) from None
    if not size:
        raise UserError(f"{where}: {path} is empty; copy or export it anew")
    if pointer:
        raise UserError(
            f"{where}: {path} is a pointer of git-lfs and no ONNX file; run git lfs pull where it comes from"
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own error types
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{where}: {path} is no ONNX file ({line}); export it anew") from None
    if not model.graph.node or not model.graph.output:
        raise UserError(f"{where}: {path} is no ONNX file (it has no nodes or no outputs); export it anew")
    return model


def _refuse_unknown_names(definition: Definition, path: Path, inputs: list[Any], outputs: list[Any]) -> None:
    symbols = {dim.dim_param for value in inputs for dim in _shape(value) if dim.dim_param}
    places = [_place(value, index) for value in (*inputs, *outputs) for index in range(len(_shape(value)))]
    if unknown := sorted(set(definition.axes) - symbols - set(places)):
        raise UserError(
            f"model {definition.name!r}: axes names {unknown[0]!r}, but the symbolic dimensions of {path} are "
            f"{', '.join(sorted(symbols)) or 'none'}, and by place they are {', '.join(places) or 'none'}; correct axes"
        )
    names = [value.name for value in inputs]
    if unknown := sorted(set(definition.inputs) - set(names)):
        raise UserError(
            f"model {definition.name!r}: inputs names {unknown[0]!r}, but {path} reads "
            f"{', '.join(names) or 'nothing'}; correct it"
        )


class _Axes:
    """The axis that each dimension is: by its place as the study says, by its symbol as the study says, by its symbol.

    Attributes:
        of: Axes and sizes of each input by its name.
        fixed: The axes that some input has in one size.
    """

    def __init__(self, definition: Definition, path: Path, inputs: list[Any]) -> None:
        self.says = definition.axes
        self.of: dict[str, tuple[str | int, ...]] = {}
        self.fixed: dict[str, int] = {}
        symbols: dict[str, set[str]] = {}
        unknown: list[tuple[Any, int]] = []
        for value in inputs:
            if value.type.WhichOneof("value") == "tensor_type" and not value.type.tensor_type.HasField("shape"):
                raise UserError(
                    f"model {definition.name!r}: {path} does not say how many dimensions {value.name!r} has; "
                    "export it with shapes"
                )
            dims: list[str | int] = []
            for index, dim in enumerate(_shape(value)):
                axis = self._axis(value, index)
                if dim.HasField("dim_value"):
                    if axis and self.fixed.setdefault(axis, dim.dim_value) != dim.dim_value:
                        raise UserError(
                            f"model {definition.name!r}: axes calls dimensions of {self.fixed[axis]} and of "
                            f"{dim.dim_value} in {path} both {axis!r}; give them names of their own"
                        )
                    dims.append(axis or int(dim.dim_value))
                elif axis:
                    symbols.setdefault(dim.dim_param, set()).add(axis)
                    dims.append(axis)
                else:
                    unknown.append((value, index))
            self.of[value.name] = tuple(dims)
        if unknown:
            raise UserError(_say_which(definition, path, unknown))
        self.symbols = {symbol: axes.pop() for symbol, axes in symbols.items() if symbol and len(axes) == 1}

    def of_output(self, value: Any) -> tuple[str | int, ...]:
        """Axes and sizes of an output. A symbol that no input has is no axis, whatever it is called."""
        dims: list[str | int] = []
        for index, dim in enumerate(_shape(value)):
            place = _place(value, index)
            size = int(dim.dim_value) if dim.HasField("dim_value") else None
            dims.append(self.says.get(place) or size or self.symbols.get(dim.dim_param) or place)
        return tuple(dims)

    def _axis(self, value: Any, index: int) -> str | None:
        symbol = _shape(value)[index].dim_param
        given = self.says.get(_place(value, index)) or self.says.get(symbol)
        return given or next((axis for axis, symbols in AXES.items() if symbol.lower() in symbols), None)


def _say_which(definition: Definition, path: Path, unknown: list[tuple[Any, int]]) -> str:
    value, index = unknown[0]
    keys = {_shape(v)[i].dim_param or _place(v, i): ("sequence" if i else "batch") for v, i in unknown}
    return (
        f"model {definition.name!r}: dimension {index} of {value.name!r} in {path} is "
        f"{_shape(value)[index].dim_param or 'unnamed'!r}, which is no axis; say which it is, such as "
        f"axes: {{{', '.join(f'{key}: {axis}' for key, axis in keys.items())}}}"
    )


def _without_axes(path: Path, inputs: list[Any]) -> str:
    if not inputs:
        return f"{path} reads no input, so there is nothing to measure it with; leave it out"
    first = inputs[0]
    if (kind := first.type.WhichOneof("value")) != "tensor_type":
        return f"{path} reads {first.name}, a {(kind or 'unknown').removesuffix('_type')} and no tensor; leave it out"
    if not _shape(first):
        return f"{path} reads single numbers only, so no shape can be asked for; leave it out"
    sizes = [dim.dim_value for dim in _shape(first)]
    return (
        f"every dimension of the inputs of {path} is a number ({first.name!r}: {sizes}), so no shape can be asked for; "
        f"say which axes they are, such as axes: {{{_place(first, 0)}: batch}}, and it runs at exactly that size, or "
        "export it with a symbolic first dimension"
    )


def _indices(definition: Definition, model: Any, inputs: list[Any]) -> Mapping[str, int | None]:
    """The tables that inputs index; the graph is looked at only where one may."""
    whole = [value.name for value in inputs if _whole(_dtype(value))]
    if not whole:
        return {}
    return onnx_indices.tables(model, whole)


def _input(definition: Definition, path: Path, value: Any, dims: tuple[str | int, ...], rows: int | None) -> TensorSpec:
    says: Mapping[str, Any] = definition.inputs.get(value.name, {})
    dtype = _dtype(value)
    content = says.get("content") or NAMES.get(value.name) or ("integers" if _whole(dtype) else "reals")
    if content not in ("tokens", "integers"):
        return TensorSpec(value.name, dtype, dims, content, int(says.get("low", 0)), int(says.get("high", 0)))
    where = f"model {definition.name!r}: input {value.name!r} of {path}"
    rows = 2 if dtype == "bool" else rows
    if rows is None and "high" not in says:
        raise UserError(
            f"{where} holds whole numbers, and the graph does not say which it takes: it is no index of a table whose "
            f"size is known; say it, such as inputs: {{{value.name}: {{content: {content}, low: 0, high: 1}}}}, or "
            "content: mask (1) or zeros (0)"
        )
    low, high = int(says.get("low", 0)), int(says.get("high", (rows or 0) - 1))
    if low > high or (content == "tokens" and low == high):
        raise UserError(
            f"{where} has low {low} and high {high}, which leaves too few ids to choose from; correct inputs"
        )
    _refuse_overflow(where, dtype, high)
    if rows is not None and (high >= rows or low < -rows):
        beyond = f"high: {high}; give {rows - 1} at most" if high >= rows else f"low: {low}; give {-rows} at least"
        raise UserError(f"{where} indexes a table of {rows} rows, and the study says {beyond}")
    return TensorSpec(value.name, dtype, dims, content, low, high)


def _refuse_overflow(where: str, dtype: str, high: int) -> None:
    import numpy as np

    if dtype != "bool" and _whole(dtype) and high > np.iinfo(dtype).max:
        raise UserError(f"{where} is {dtype}, which does not hold {high}; correct high")


def _dtype(value: Any) -> str:
    """Element type as NumPy names it, of any floating point ``float32``; else as ONNX names it, or its kind."""
    import onnx

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return (kind or "unknown").removesuffix("_type")
    number = value.type.tensor_type.elem_type
    if number in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return onnx.TensorProto.DataType.Name(number).lower()
    try:
        name = str(onnx.helper.tensor_dtype_to_np_dtype(number))
    except KeyError:  # a number that this version does not know
        return f"type {number}"
    return "float32" if name in FLOATS else name


def _whole(dtype: str) -> bool:
    return dtype in ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def _shape(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _place(value: Any, index: int) -> str:
    return f"{value.name}.{index}"
