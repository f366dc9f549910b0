"""A user's ONNX file as a model of the study: checked, with its axes by name, and without what others cannot read."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper

from ceilings import files, records
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import examples, graph, hollow, precision
from ceilings.graphs.export import normalise
from ceilings.graphs.parity import compare
from ceilings.models import onnx_file, weights_folder
from ceilings.models.definition import Definition
from ceilings.models.onnx_file import OnnxFile
from ceilings.provenance import provenance
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import ITEM_BYTES, TensorSpec
from ceilings.workload.workload import Workload

REMEDY = "export it anew, or name another file"
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
"""Operators that draw random numbers."""

SMALL = 1 << 16
"""Bytes up to which a weight stays in the graph while its functions are inlined."""

TOLERANCE = 1e-3
"""Largest relative L2 difference between FP64 and FP32: what parity allows FP32 by default."""


def import_onnx(definition: Definition, output: Path, report: Path, weights_dir: Path) -> None:
    """Write the graph, its report, and the workload and provenance of the model.

    Args:
        definition: Whose ``onnx`` names the file; weights beside it are found by the file's own word.
        output: The graph.
        report: Of the graph.
        weights_dir: Gets ``workload.json`` and ``provenance.json``.

    Raises:
        UserError: The file is missing or no ONNX file, or the study says too little of a tensor.
    """
    assert definition.onnx is not None
    source = files.expanded(definition.onnx)
    file = onnx_file.read(definition)
    workload = file.workload
    workload.write(weights_dir)
    facts: dict[str, Any] = {"model": definition.name, "source": "onnx", "why": f"the study names {source.name}"}
    fixed: dict[str, int] = {}
    sources: dict[str, Path | str] = {"file": source}
    # A failure goes into both records; the one of the folder is written last, so that it stands for a whole folder.
    record = weights_dir / weights_folder.PROVENANCE
    with graph.made(report, output, **facts):
        given = _load(source, definition)
        sources |= {place: source.parent / place for place in graph.beside(source)}
        _refuse_other_kinds(given)
        _refuse_other_types(workload)
        _refuse_random(given)
        precision.refuse_quantized(given)
        _prepare(given, file)
        model = precision.widen(given)
        _refuse_what_does_not_load(model)
        if "double" in (others := precision.other_floats(given)):
            _refuse_what_needs_double(given, model, workload)
        workload = _with_measured_outputs(model, workload)
        for value, tensor in zip(model.graph.output, workload.outputs, strict=True):
            _name_dims(value, tensor, file.fixed)
        fixed = graph.fixed_axes(model)
        workload.write(weights_dir)
        graph.save(model, output)
        graph.report(report, output, sources, **facts, stored=_stored(given), widened=others)
    made = records.read(report, "graph")
    folder: dict[str, Any] = {
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
    records.write(record, "weights", folder)


def _load(source: Path, definition: Definition) -> onnx.ModelProto:
    """The file with its weights and without local functions.

    Raises:
        CellFailure: Something of it is damaged, or missing, or outside its folder.
    """
    try:
        model = graph.load(source, remedy=REMEDY)
    except UserError as error:
        raise CellFailure("damaged", definition.published(str(error))) from None
    if not model.functions:
        return model
    try:
        shell, aside = hollow.emptied(model, SMALL)
        return hollow.fill(onnx.inliner.inline_local_functions(shell), aside)
    except Exception as error:  # the inliner's errors share no class
        raise CellFailure("unsupported", f"the file's functions cannot be inlined: {graph.first_line(error)}") from None


def _prepare(model: onnx.ModelProto, file: OnnxFile) -> None:
    """Bring a graph into the form of this pipeline's exports, in place."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    _lift_constants(model)
    normalise(model)
    _name_nodes_once(model)
    for value, tensor in zip(model.graph.input, file.workload.inputs, strict=True):
        _name_dims(value, tensor, file.fixed)
    # These speak of the dimensions by their former names.
    for here in hollow.graphs(model):
        del here.value_info[:]


def _name_dims(value: onnx.ValueInfoProto, tensor: TensorSpec, fixed: Mapping[str, int]) -> None:
    """Say the dimensions of an input or output, in place; an axis of one size is that size, denoted by its name."""
    kind = value.type.tensor_type
    kind.ClearField("shape")
    kind.shape.SetInParent()
    for axis in tensor.dims:
        dim = kind.shape.dim.add()
        if isinstance(axis, int):
            dim.dim_value = axis
        elif axis in fixed:
            dim.dim_value, dim.denotation = fixed[axis], axis
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


def _refuse_other_kinds(model: onnx.ModelProto) -> None:
    """Refuse inputs and outputs that are no tensors: nothing here feeds or compares them.

    Raises:
        CellFailure: Names it.
    """
    for side in ("input", "output"):
        for value in getattr(model.graph, side):
            if (kind := value.type.WhichOneof("value") or "unknown type") != "tensor_type":
                raise CellFailure("unsupported", f"{side} {value.name} is no tensor ({kind.removesuffix('_type')})")


def _refuse_other_types(workload: Workload) -> None:
    """Refuse element types that no tensor here has.

    Raises:
        CellFailure: Names the tensor.
    """
    for tensor in (*workload.inputs, *workload.outputs):
        if tensor.dtype not in ITEM_BYTES:
            raise CellFailure(
                "unsupported", f"{tensor.name} has the element type {tensor.dtype}; known: {', '.join(ITEM_BYTES)}"
            )


def _refuse_random(model: onnx.ModelProto) -> None:
    """Refuse operators that draw random numbers: no two runs of the graph agree, and parity would call it wrong.

    Raises:
        CellFailure: Names the operator and its node.
    """
    for here in hollow.graphs(model):
        for node in here.node:
            if node.op_type in RANDOM and node.domain in graph.STANDARD_DOMAINS:
                raise CellFailure(
                    "unsupported",
                    f"the graph draws random numbers ({node.op_type}, node {node.name or 'without a name'}), so no two "
                    "runs of it agree; export it without",
                )


def _refuse_what_does_not_load(model: onnx.ModelProto) -> None:
    """Refuse what ONNX Runtime's CPU provider cannot load.

    Raises:
        CellFailure: Says what of the file it is.
    """
    try:
        graph.session(model)
    except Exception as error:  # ONNX Runtime's errors share no class
        raise CellFailure(
            "unsupported", f"ONNX Runtime cannot load the file on a CPU: {graph.first_line(error)}"
        ) from None


def _refuse_what_needs_double(given: onnx.ModelProto, model: onnx.ModelProto, workload: Workload) -> None:
    """Refuse a graph that answers otherwise in FP32 than in FP64, such as one that counts in it.

    One that ONNX Runtime does not run in FP64 is not compared.

    Raises:
        CellFailure: Says how far apart the answers are.
    """
    kinds = {
        value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in given.graph.input
    }
    for _, feed, found in _runs(model, workload):
        try:
            exact = graph.session(given).run(None, {name: array.astype(kinds[name]) for name, array in feed.items()})
        except Exception:  # no kernel in FP64
            return
        names = [tensor.name for tensor in workload.outputs]
        try:
            parity = compare(dict(zip(names, found, strict=True)), dict(zip(names, exact, strict=True)), "values")
        except ValueError as error:
            raise CellFailure("unsupported", f"the graph needs FP64: in FP32 {error}") from None
        distance = math.inf if parity.relative_l2 is None else parity.relative_l2
        if all(np.isfinite(array).all() for array in exact) and distance > TOLERANCE:
            raise CellFailure(
                "unsupported",
                f"the graph needs FP64: its answers in FP32 are {distance:.2g} away (relative L2), and {TOLERANCE} is "
                "allowed",
            )
        return


def _with_measured_outputs(model: onnx.ModelProto, workload: Workload) -> Workload:
    """The workload with those dimensions of outputs that the graph leaves open as they come out when it runs.

    What differs between runs and is the size of no axis keeps its place for a name.

    Raises:
        CellFailure: The graph does not even say how many dimensions an output has, and does not run at small sizes.
    """
    known = {*workload.axes}
    ranks = {value.name: value.type.tensor_type.HasField("shape") for value in model.graph.output}
    if all(ranks.values()) and all(isinstance(d, int) or d in known for t in workload.outputs for d in t.dims):
        return workload
    runs = list(itertools.islice(_runs(model, workload), 2))
    if not runs and not all(ranks.values()):
        name = next(name for name, said in ranks.items() if not said)
        raise CellFailure("unsupported", f"the file does not say how many dimensions {name} has; export it with shapes")
    outputs = []
    for index, tensor in enumerate(workload.outputs):
        sizes = [(shape, found[index].shape) for shape, _, found in runs]
        dims = tensor.dims if ranks[tensor.name] else tuple(f"{tensor.name}.{i}" for i in range(len(sizes[0][1])))
        if all(len(size) == len(dims) for _, size in sizes):
            dims = tuple(
                dim if isinstance(dim, int) or dim in known else _follows([(s, size[i]) for s, size in sizes]) or dim
                for i, dim in enumerate(dims)
            )
        outputs.append(dataclasses.replace(tensor, dims=dims))
    return dataclasses.replace(workload, outputs=tuple(outputs))


def _follows(sizes: list[tuple[Shape, int]]) -> str | int | None:
    """The axis whose size a dimension has at every shape, or its one size; None if neither."""
    if len(sizes) < 2:
        return None
    axes = (axis for axis in sizes[0][0].axes if all(shape.get(axis) == size for shape, size in sizes))
    return next(axes, sizes[0][1] if len({size for _, size in sizes}) == 1 else None)


def _runs(
    model: onnx.ModelProto, workload: Workload
) -> Iterator[tuple[Shape, dict[str, np.ndarray], list[np.ndarray]]]:
    """Shape, inputs and outputs of runs at small sizes, of those that the graph takes."""
    session = graph.session(model)
    for seed, shape in enumerate(examples.shapes(model, workload)):
        feed = examples.feed(model, examples.make(workload.inputs, shape, seed))
        try:
            found = session.run(None, feed)
        except Exception:  # ONNX Runtime's errors share no class; a size that this model does not take
            continue
        yield shape, feed, found


def _stored(model: onnx.ModelProto) -> dict[str, int]:
    """Elements of the floating point and quantised weights by their type."""
    counted: Counter[str] = Counter()
    for tensor in hollow.tensors(model):
        if tensor.data_type not in (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING):
            counted[TensorProto.DataType.Name(tensor.data_type).lower()] += math.prod(tensor.dims)
    return dict(counted)
