"""PyTorch to ONNX, by the TorchScript exporter or by the newer one built on torch.export (dynamo)."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx

from ceilings import options
from ceilings.errors import UserError
from ceilings.graphs import graph
from ceilings.models.weights import load_model, positions, read_config

if TYPE_CHECKING:
    import torch

AXES = ("batch", "sequence")
EXAMPLE = {"batch": 2, "sequence": 16}
"""Size of a dynamic axis in the example input. Not 1: exporters take a size of 1 for a constant to broadcast."""


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
    """Check an export's slice of the study."""
    export = options.read(Export, value, "--export")
    for axis, size in export.fixed.items():
        if axis not in AXES or not isinstance(size, int) or size < 1:
            raise UserError(f"--export fixes {axis!r} to {size!r}; the axes are {', '.join(AXES)}, sizes at least 1")
    return export


def export_onnx(weights_dir: Path | str, export: Export, output: Path | str) -> None:
    """Write a graph with inputs ``input_ids`` and ``attention_mask`` (batch, sequence) and output ``logits``.

    Raises:
        UserError: Damaged weights, a fixed sequence that the model cannot take, or an exporter that refuses.
    """
    longest = positions(read_config(weights_dir))
    if export.fixed.get("sequence", 1) > longest:
        raise UserError(f"--export fixes sequence to {export.fixed['sequence']}; the model has {longest} positions")
    model = load_model(weights_dir, attention=export.attention)
    sizes = {axis: export.fixed.get(axis, min(EXAMPLE[axis], longest)) for axis in AXES}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "model.onnx")
        try:
            _export(model, export, sizes, path)
        except Exception as error:  # exporters raise anything, chained to pages of explanation
            raise UserError(
                f"the {export.exporter} exporter refuses opset {export.opset} with attention {export.attention}: "
                f"{type(error).__name__}: {graph.first_line(error)}; choose another exporter, opset or attention"
            ) from error
        exported = onnx.load(path)
    if graph.opset(exported) != export.opset:
        raise UserError(
            f"the {export.exporter} exporter gives opset {graph.opset(exported)} when asked for {export.opset}; "
            f"set opset to {graph.opset(exported)}"
        )
    graph.save(_normalise(exported, export), output)


def _export(model: torch.nn.Module, export: Export, sizes: Mapping[str, int], path: Path) -> None:
    """Run the exporter that is asked for."""
    import torch

    class Logits(torch.nn.Module):
        """Takes and gives tensors only, since a graph has no records."""

        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    ids = torch.ones(sizes["batch"], sizes["sequence"], dtype=torch.int64)
    dynamic = {index: axis for index, axis in enumerate(AXES) if axis not in export.fixed}
    common: dict[str, Any] = {
        "input_names": list(graph.INPUTS),
        "output_names": [graph.OUTPUT],
        "opset_version": export.opset,
    }
    if export.exporter == "torchscript":
        axes = dict.fromkeys(graph.INPUTS, dynamic)
        axes[graph.OUTPUT] = {index: axis for index, axis in dynamic.items() if axis == "batch"}
        common |= {"dynamo": False, "dynamic_axes": axes}
    else:
        dims = {index: torch.export.Dim(axis) for index, axis in dynamic.items()}
        common |= {
            "dynamo": True,
            "dynamic_shapes": dict.fromkeys(graph.INPUTS, dims),
            "external_data": False,
            "verbose": False,
        }
    torch.onnx.export(Logits(model).eval(), (ids, torch.ones_like(ids)), str(path), **common)


def _normalise(model: onnx.ModelProto, export: Export) -> onnx.ModelProto:
    """Fixed names for the axes, a name for every node, and no traces of the machine that exported."""
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, axis in zip(dims, AXES if value.name in graph.INPUTS else AXES[:1], strict=False):
            if axis in export.fixed:
                dim.dim_value = export.fixed[axis]
            else:
                dim.dim_param = axis
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        # These quote source lines with the paths of this machine.
        node.doc_string = ""
        del node.metadata_props[:]
    for values in (model.graph.input, model.graph.output, model.graph.value_info, model.graph.initializer):
        for item in values:
            del item.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    return model


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
