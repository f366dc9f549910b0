"""PyTorch to ONNX, by the TorchScript exporter or by the newer one built on torch.export (dynamo)."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx

from ceilings import options
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import examples, graph, hollow
from ceilings.graphs.bounds import bounds
from ceilings.lifetime import temporary_folder
from ceilings.models.load import load_module
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

if TYPE_CHECKING:
    import torch

EXAMPLE = {"batch": 2, "sequence": 16, "samples": 2000, "tokens": 5, "past": 3}
"""Size of a dynamic axis in the example input. Not 1: exporters take a size of 1 for a constant to broadcast."""

OTHER = 8
"""Of a dynamic axis that is not in ``EXAMPLE``."""


@dataclasses.dataclass(frozen=True)
class Export:
    """How to export.

    Attributes:
        exporter: ``torchscript`` or ``dynamo``.
        opset: Version of the operator set.
        attention: ``eager`` writes attention out in operators, which fusions know; ``sdpa`` exports torch's function.
        axes: ``dynamic``, or sizes of those axes that are fixed.
    """

    exporter: Literal["torchscript", "dynamo"] = "torchscript"
    opset: int = 17
    attention: Literal["eager", "sdpa"] = "eager"
    axes: Literal["dynamic"] | dict[str, int] = "dynamic"

    @property
    def fixed(self) -> dict[str, int]:
        """The axes of fixed size."""
        return {} if isinstance(self.axes, str) else self.axes


def read(value: Mapping[str, Any]) -> Export:
    """Check an export's slice of the study. Which axes a model has is known once its workload is read."""
    export = options.read(Export, value, "--export")
    for axis, size in export.fixed.items():
        if not isinstance(size, int) or size < 1:
            raise UserError(f"--export fixes {axis!r} to {size!r}; a size is a whole number, at least 1")
    return export


def export_onnx(weights_dir: Path | str, export: Export, output: Path | str) -> None:
    """Write a graph with the inputs and outputs of the model's workload.

    Axes that a model has at one size only are fixed; of the others those that ``export`` fixes, where the model has
    them.

    Raises:
        UserError: Damaged weights, or a fixed size that the model cannot take.
        CellFailure: The exporter refuses this model.
    """
    given = Workload.read(weights_dir)
    workload = given.graph
    sizes = _sizes(weights_dir, workload, export)
    model = load_module(weights_dir, attention=export.attention)
    if given.decoder is not None:
        # By name: the forward pass of a decoder touches no other model's graph.
        step = importlib.import_module("ceilings.models.decoder_step")
        model = step.DecoderStep(model.model, given.decoder).eval().requires_grad_(False)
    with temporary_folder() as folder, _quiet(), _attention_written_out():
        path = Path(folder, "model.onnx")
        try:
            _export(model, workload, export, sizes, path)
        except Exception as error:  # exporters raise anything, chained to pages of explanation
            raise CellFailure(
                "unsupported",
                f"the {export.exporter} exporter refuses opset {export.opset} with attention {export.attention}: "
                f"{_reason(error)}; choose another exporter, opset or attention",
            ) from error
        exported = graph.load(path)
    if graph.opset(exported) != export.opset:
        raise CellFailure(
            "unsupported",
            f"the {export.exporter} exporter gives opset {graph.opset(exported)} when asked for {export.opset}; "
            f"set opset to {graph.opset(exported)}",
        )
    _rename(exported, {_interim(tensor): tensor.name for tensor in (*workload.inputs, *workload.outputs)})
    _restore_interface(exported, workload, sizes.fixed)
    if given.decoder is not None:
        exported = importlib.import_module("ceilings.graphs.tied_head").share(exported)
    graph.save(normalise(exported), output)


def _reason(error: BaseException) -> str:
    """What an exporter stumbled over first, under all that it says of where to read on."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {graph.first_line(error)}"


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """The axes of fixed size, and sizes of all for the example input."""

    fixed: Mapping[str, int]
    example: Shape


def _sizes(weights_dir: Path | str, workload: Workload, export: Export) -> _Sizes:
    able = bounds(weights_dir)
    fixed = dict(able.fixed)
    for axis, size in export.fixed.items():
        if axis not in workload.axes:
            continue
        if able.size(axis, size) != size:
            allowed = f"only {able.fixed[axis]}" if axis in able.fixed else f"at most {able.limits[axis]}"
            raise UserError(f"--export fixes {axis} to {size}; the model of {weights_dir} takes {allowed}")
        fixed[axis] = size
    example = {axis: fixed.get(axis) or able.size(axis, EXAMPLE.get(axis, OTHER)) for axis in workload.axes}
    return _Sizes(fixed, Shape.of(example))


def _export(model: torch.nn.Module, workload: Workload, export: Export, sizes: _Sizes, path: Path) -> None:
    """Run the exporter that is asked for."""
    import torch

    def dynamic(tensor: TensorSpec) -> dict[int, str]:
        return {i: dim for i, dim in enumerate(tensor.dims) if isinstance(dim, str) and dim not in sizes.fixed}

    arrays = examples.make(workload.inputs, sizes.example, 0)
    inputs = tuple(torch.from_numpy(arrays[tensor.name]) for tensor in workload.inputs)
    common: dict[str, Any] = {
        "input_names": list(map(_interim, workload.inputs)),
        "output_names": list(map(_interim, workload.outputs)),
        "opset_version": export.opset,
    }
    if export.exporter == "torchscript":
        axes = {_interim(tensor): dynamic(tensor) for tensor in (*workload.inputs, *workload.outputs)}
        common |= {"dynamo": False, "dynamic_axes": axes}
    else:
        dims = {axis: torch.export.Dim(axis) for axis in workload.axes if axis not in sizes.fixed}
        shapes: tuple[Any, ...] = tuple(
            {i: dims[axis] for i, axis in dynamic(tensor).items()} for tensor in workload.inputs
        )
        parameters = list(inspect.signature(model.forward).parameters.values())
        starred = [index for index, one in enumerate(parameters) if one.kind is one.VAR_POSITIONAL]
        if starred:  # what it takes as one tuple has its shapes in one
            shapes = (*shapes[: starred[0]], shapes[starred[0] :])
        common |= {
            "dynamo": True,
            "dynamic_shapes": shapes,
            "external_data": True,
            "verbose": False,
        }
    torch.onnx.export(model.eval(), inputs, str(path), **common)


def _interim(tensor: TensorSpec) -> str:
    """What a tensor is called while exporters name the others, of which one may be called like it."""
    return f"interface.{tensor.name}"


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give tensors their final names, in place; inner ones that have such a name already get another."""
    final = {**{new: f"inner.{new}" for new in names.values()}, **names}
    for here in hollow.graphs(model):
        for node in here.node:
            for ends in (node.input, node.output):
                for index, name in enumerate(ends):
                    if name in final:
                        ends[index] = final[name]
        for values in (here.input, here.output, here.value_info, here.initializer):
            for value in values:
                value.name = final.get(value.name, value.name)


def _restore_interface(model: onnx.ModelProto, workload: Workload, fixed: Mapping[str, int]) -> None:
    """Give a graph exactly the workload's inputs and outputs, in place: in its order, with its axes by name."""
    for side, tensors in (("input", workload.inputs), ("output", workload.outputs)):
        there = {value.name: value for value in getattr(model.graph, side)}
        values = []
        for tensor in tensors:
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
            value = onnx.helper.make_tensor_value_info(tensor.name, kind, [1] * len(tensor.dims))
            if side == "output":
                value.type.tensor_type.elem_type = there[tensor.name].type.tensor_type.elem_type
            value.ClearField("doc_string")
            name_dims(value, tensor.dims, fixed)
            values.append(value)
        del getattr(model.graph, side)[:]
        getattr(model.graph, side).extend(values)


def name_dims(value: onnx.ValueInfoProto, dims: tuple[str | int, ...], fixed: Mapping[str, int]) -> None:
    """Write a tensor's dimensions, in place: names of dynamic axes; sizes of fixed ones, denoted by their names."""
    for dim, axis in zip(value.type.tensor_type.shape.dim, dims, strict=True):
        if isinstance(axis, int):
            dim.dim_value = axis
        elif axis in fixed:
            dim.dim_value, dim.denotation = fixed[axis], axis
        else:
            dim.dim_param = axis


def normalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """A name for every node, and no traces of the machine that exported, in place; returns the same graph."""
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        # These quote source lines with the paths of this machine.
        node.doc_string = ""
        del node.metadata_props[:]
    for values in (model.graph.input, model.graph.output, model.graph.value_info, model.graph.initializer):
        for item in values:
            item.ClearField("doc_string")
            del item.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    return model


@contextlib.contextmanager
def _attention_written_out() -> Iterator[None]:
    """Keep ``torch.nn.MultiheadAttention`` off its fast path, a single operator that no exporter knows."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what exporters say on the way; what they raise still comes out."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
