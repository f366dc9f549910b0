"""A user's ONNX file as a model of the study: checked, with its axes by name, and without what others cannot read."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from ceilings import files
from ceilings.errors import CellFailure
from ceilings.graphs import graph, hollow
from ceilings.graphs.export import normalise
from ceilings.models import onnx_file, weights_folder
from ceilings.models.definition import Definition
from ceilings.provenance import provenance
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

REMEDY = "export it anew, or name another file"


def import_onnx(definition: Definition, output: Path, report: Path, weights_dir: Path) -> None:
    """Write the graph, its report, and the workload and provenance of the model.

    Args:
        definition: Whose ``onnx`` names the file; weights beside it are found by the file's own word.
        output: The graph.
        report: Of the graph.
        weights_dir: Gets ``workload.json`` and ``provenance.json``.

    Raises:
        UserError: The file is missing or damaged, says too little of a tensor, or has weights outside its folder.
    """
    assert definition.onnx is not None
    source = Path(definition.onnx).expanduser()
    workload = onnx_file.workload(definition)
    workload.write(weights_dir)
    facts: dict[str, Any] = {"model": definition.name, "source": "onnx", "why": f"the study names {source.name}"}
    fixed: dict[str, int] = {}
    sources: dict[str, Path | str] = {"file": source}
    # A failure goes into both records; the one of the folder is written last, so that it stands for a whole folder.
    record = weights_dir / weights_folder.PROVENANCE
    with graph.made(report, output, **facts):
        sources |= {place: source.parent / place for place in graph.beside(source)}
        model = graph.load(source, remedy=REMEDY)
        _prepare(model, workload)
        fixed = graph.fixed_axes(model)
        _refuse_what_does_not_run(model)
        graph.save(model, output)
        graph.report(report, output, sources, **facts, stored=_stored(model))
    made = files.read_json(report)
    folder: dict[str, Any] = {
        "schema_version": 1,
        **facts,
        "status": made["status"],
        "architecture": workload.architecture,
        "hub": None,
        "revision": None,
        "seed": None,
        "tokenizer": False,
        "limits": {axis: [size, size] for axis, size in fixed.items()},
        "provenance": provenance(graph.PACKAGES, sources),
    }
    if made["status"] == "ok":
        folder |= {"parameters": sum(made["stored"].values()), "sha256": made["graph_sha256"]}
    else:
        folder |= {"failure": made["failure"]}
    files.write_json(record, folder)


def _prepare(model: onnx.ModelProto, workload: Workload) -> None:
    """Bring a graph into the form of this pipeline's exports, in place."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    _lift_constants(model)
    normalise(model)
    _name_nodes_once(model)
    specs = {tensor.name: tensor for tensor in (*workload.inputs, *workload.outputs)}
    for value in (*model.graph.input, *model.graph.output):
        _name_dims(value, specs[value.name])
    # These speak of the dimensions by their former names.
    del model.graph.value_info[:]


def _name_dims(value: onnx.ValueInfoProto, tensor: TensorSpec) -> None:
    """Give dynamic dimensions the names of their axes, in place, and fixed ones these names as denotation."""
    for dim, axis in zip(value.type.tensor_type.shape.dim, tensor.dims, strict=True):
        if isinstance(axis, int):
            continue
        if dim.HasField("dim_value"):
            dim.denotation = axis
        else:
            dim.dim_param = axis


def _lift_constants(model: onnx.ModelProto) -> None:
    """Turn Constant nodes that hold a tensor into initialisers, where every tool looks for weights, in place."""
    kept = []
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value" and a.type == onnx.AttributeProto.TENSOR), None)
        if node.op_type != "Constant" or value is None or node.output[0] in outputs:
            kept.append(node)
            continue
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
    if len(kept) < len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _name_nodes_once(model: onnx.ModelProto) -> None:
    """Make names of nodes unique, in place: quantisation and parity speak of nodes by name."""
    taken = {node.name for node in model.graph.node}
    seen: set[str] = set()
    for node in model.graph.node:
        name, number = node.name, 0
        while node.name in seen or (number and node.name in taken):
            number += 1
            node.name = f"{name}_{number}"
        seen.add(node.name)


def _refuse_what_does_not_run(model: onnx.ModelProto) -> None:
    """Refuse what ONNX Runtime's CPU provider cannot load, or what this pipeline cannot feed or compare.

    Raises:
        CellFailure: Says what of the file it is.
    """
    for side in ("input", "output"):
        for value in getattr(model.graph, side):
            if value.type.WhichOneof("value") != "tensor_type":
                kind = value.type.WhichOneof("value") or "unknown type"
                raise CellFailure("unsupported", f"{side} {value.name} is a {kind.removesuffix('_type')} and no tensor")
    try:
        graph.session(model)
    except Exception as error:  # ONNX Runtime's errors share no class
        raise CellFailure(
            "unsupported", f"ONNX Runtime cannot load the file on a CPU: {graph.first_line(error)}"
        ) from None


def _stored(model: onnx.ModelProto) -> dict[str, int]:
    """Elements of the floating point and quantised weights by their type."""
    counted: Counter[str] = Counter()
    for tensor in hollow.tensors(model):
        if tensor.data_type not in (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING):
            counted[TensorProto.DataType.Name(tensor.data_type).lower()] += math.prod(tensor.dims)
    return dict(counted)
