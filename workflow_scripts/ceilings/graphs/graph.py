"""ONNX graphs: on disk, with their weights beside them where one file cannot hold them, described, and run on the CPU.

The axes of a graph are the names of its dynamic dimensions. A dimension of fixed size keeps the name of its axis as its
denotation, so that a graph says which axes it fixes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ceilings import artifacts, files, records
from ceilings.errors import CellFailure, UserError
from ceilings.graphs import hollow, operator_library
from ceilings.lifetime import temporary_folder
from ceilings.provenance import provenance
from ceilings.workload.shape import Shape

if TYPE_CHECKING:
    import onnxruntime

PACKAGES = ("onnx", "onnxruntime", "numpy")
STANDARD_DOMAINS = {"", "ai.onnx"}
LARGEST = 2**31 - 2**26
"""Bytes of tensors that one ONNX file may hold: what protobuf allows, less 64 MiB for everything else."""

DATA_SHA256 = "data_sha256"
"""Metadata of a graph whose weights lie beside it: their digest, so that the file's own digest covers them."""

CRASHING_OPTIMIZERS = ["NchwcTransformer"]
"""Left out where a graph is only checked: ONNX Runtime 1.31.1 crashes in it on FP16 graphs of open_clip's classes."""

ALIGNMENT = 4096
"""Offsets of tensors in a file of weights are multiples of a page, so that they can be mapped into memory."""

EXACT_PRODUCTS = "session.x64quantprecision"
"""Option of a session that turns int8 weights into uint8: products of uint8 and int8 saturate on x86 without VNNI, and
what a graph gives must not depend on the machine that checks it."""

SMALLEST_OUTSIDE = 1024
"""Bytes; smaller tensors stay in the graph even where the others lie beside it."""


def load(path: Path | str, values: bool = True, remedy: str | None = None) -> onnx.ModelProto:
    """Read a graph.

    Args:
        path: Its file; weights that lie beside it are found by its own word.
        values: False leaves such weights where they are: for programs that look at the structure only.
        remedy: What mends a file that this pipeline did not make; None: it did, and its report vouches for it.

    Raises:
        UserError: Missing or damaged, other than its report says, or with weights in a file outside its folder.
        CellFailure: It could not be made.
    """
    if remedy is None and artifacts.report_of(Path(path)).is_file():
        artifacts.refuse_failed(path)
    return _load(Path(path), values, remedy or records.anew(path))


def _load(path: Path, values: bool, remedy: str) -> onnx.ModelProto:
    if (problem := files.not_a_file(path)) and path.exists():
        raise UserError(f"{path} {problem}; {remedy}")
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the rule that makes it") from None
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} is a damaged ONNX file ({first_line(error)}); {remedy}") from None
    if not model.graph.node or not model.graph.output:
        raise UserError(f"{path} is a damaged ONNX file (it has no nodes or no outputs); {remedy}")
    for place in _outside(model):
        data = path.parent / place
        if Path(place).is_absolute() or not data.resolve().is_relative_to(path.parent.resolve()):
            raise UserError(f"{path} has weights at {place!r}, outside its folder; put them beside it and name them so")
        if not data.is_file():
            raise UserError(f"{path} has its weights in {place}, which is not there; put that file beside it")
        if files.is_pointer(data):
            raise UserError(f"{path} has its weights in {place}, which is a pointer of git-lfs; run git lfs pull there")
    if values:
        if _digest_of_data(model) and data_path(path).is_file():
            _check_data(model, path, remedy)
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except (ValueError, OSError, onnx.checker.ValidationError) as error:
            raise UserError(f"{path} has damaged weights beside it ({first_line(error)}); {remedy}") from None
        forget_data(model)
        for tensor in model.graph.initializer:
            tensor.ClearField("data_location")  # as if it had never been elsewhere
    return model


def save(model: onnx.ModelProto, path: Path | str, limit: int | None = None) -> None:
    """Write a graph atomically; its weights into ``NAME.onnx.data`` beside it where one file cannot hold them.

    Args:
        model: A graph; stays as it is.
        path: Of the graph.
        limit: Bytes of tensors in one file; None: ``LARGEST``.
    """
    path = Path(path)
    beside = data_path(path)
    if fits(model, limit):
        with files.atomic(path) as temporary:
            onnx.save(model, temporary)
        beside.unlink(missing_ok=True)
        return
    shell, aside = hollow.emptied(model, SMALLEST_OUTSIDE)
    with files.atomic(beside) as temporary:
        written = _write_data(shell, aside, temporary, beside.name)
        # No graph stands beside weights that are not its own, whenever this process ends.
        path.unlink(missing_ok=True)
    shell.metadata_props.add(key=DATA_SHA256, value=written)
    with files.atomic(path) as temporary:
        onnx.save(shell, temporary)


@contextlib.contextmanager
def made(report_path: Path | str, path: Path | str, **facts: Any) -> Iterator[None]:
    """``artifacts.made`` for one graph, whose weights of an earlier run must not outlive it."""
    with artifacts.made(report_path, [path], "graph", **facts):
        try:
            yield
        except CellFailure:
            data_path(path).unlink(missing_ok=True)
            raise


def fits(model: onnx.ModelProto, limit: int | None = None) -> bool:
    """Whether one file holds a graph, so whether it can be serialised."""
    return hollow.tensor_bytes(model) <= (LARGEST if limit is None else limit)


def data_path(path: Path | str) -> Path:
    """Where the weights of a graph lie that one file cannot hold."""
    return Path(f"{path}.data")


def verify_data(path: Path, remedy: str) -> None:
    """Hold the weights beside a graph of this pipeline against the digest in the graph, whose tensors are not read.

    Raises:
        UserError: The graph names other files, has no digest of this one, or it is another or a damaged one.
    """
    model, data = _load(path, False, remedy), data_path(path)
    if _outside(model) != [data.name]:
        raise UserError(f"{data} is beside {path}, which has its weights elsewhere; {remedy}")
    if not _digest_of_data(model):
        raise UserError(f"{path} has no digest of {data.name}, so nothing vouches for that; {remedy}")
    _check_data(model, path, remedy)


def sha256(path: Path | str) -> str:
    """Hex digest of a graph and of the weights beside it, whose digest stands in the graph's file."""
    return files.sha256(path)


def beside(path: Path | str) -> list[str]:
    """The files that hold weights of a graph, as it names them, relative to its folder."""
    return _outside(_load(Path(path), False, records.anew(path)))


def nbytes(path: Path | str) -> int:
    """Bytes on disk, weights beside it included."""
    return sum(part.stat().st_size for part in (Path(path), data_path(path)) if part.exists())


def report(path: Path | str, graph: Path | str, sources: Mapping[str, Path | str], **content: Any) -> None:
    """Write the JSON that stands beside a graph.

    Args:
        path: Of the report.
        graph: The graph it describes, written before.
        sources: What the graph was made from.
        content: What was done.
    """
    model = _load(Path(graph), False, records.anew(graph))  # the report that would vouch for it is this one
    record = {
        "status": "ok",
        **content,
        "opset": opset(model),
        "nodes": len(model.graph.node),
        "op_types": op_types(model),
        "inputs": [describe(value) for value in model.graph.input],
        "outputs": [describe(value) for value in model.graph.output],
        "bytes": nbytes(graph),
        "graph_sha256": sha256(graph),
        "provenance": provenance([*PACKAGES, "onnxslim", "torch"], sources),
    }
    records.write(path, "graph", record)


# --- what a graph says of itself ------------------------------------------------------------------------------------


def op_types(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes by operator, most frequent first; ``domain::Operator`` outside the standard domain."""
    found = Counter(map(operator, model.graph.node))
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def operator(node: onnx.NodeProto) -> str:
    """What a node does: ``Operator``, or ``domain::Operator`` outside the standard domain."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operator set; 0 where a graph uses none of it."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)


def describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """Name, type and shape (numbers, or names of dynamic dimensions) of a graph input or output."""
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "type": TensorProto.DataType.Name(kind.elem_type).lower(),
        "shape": [dim.dim_param or dim.dim_value for dim in kind.shape.dim],
    }


def axes(model: onnx.ModelProto) -> dict[str, int | None]:
    """Axes of the inputs: their size where it is fixed, None where it is dynamic."""
    found: dict[str, int | None] = {}
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                found.setdefault(dim.dim_param, None)
            elif dim.denotation:
                found[dim.denotation] = dim.dim_value
    return found


def fixed_axes(model: onnx.ModelProto) -> dict[str, int]:
    """The axes of the inputs that are not dynamic: ``{"batch": 1, "sequence": 128}`` or a part of it."""
    return {axis: size for axis, size in axes(model).items() if size is not None}


def dynamic_axes(model: onnx.ModelProto) -> tuple[str, ...]:
    """The axes of the inputs that take any size."""
    return tuple(axis for axis, size in axes(model).items() if size is None)


def takes(model: onnx.ModelProto, shape: Shape) -> bool:
    """Whether no fixed axis has another size in a shape."""
    return all(shape.get(axis) in (None, size) for axis, size in fixed_axes(model).items())


def is_step(model: onnx.ModelProto) -> bool:
    """Whether a graph is one forward pass of a decoder: it reads a cache and gives one."""
    return {"past.0.key", "input_ids"} <= {value.name for value in model.graph.input}


def copy_interface(model: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Give a graph the inputs and outputs of the one that it was made from, in place: order, axes, unused inputs."""
    for side in ("input", "output"):
        values = getattr(model.graph, side)
        del values[:]
        values.extend(getattr(source.graph, side))


# --- products with weights ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WeightProduct:
    """A MatMul or Gemm with a constant right side.

    Attributes:
        node: Name of the node.
        op_type: ``MatMul`` or ``Gemm``.
        activation: Tensor on the left.
        weight: Initialiser on the right.
        output: Tensor it makes.
        transposed: Whether the weight is stored (columns, rows).
    """

    node: str
    op_type: str
    activation: str
    weight: str
    output: str
    transposed: bool


def weight_products(model: onnx.ModelProto) -> list[WeightProduct]:
    """The MatMul and Gemm nodes with constant matrices in a type that quantisation replaces, in graph order."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    matrices = {t.name for t in model.graph.initializer if len(t.dims) == len("kn") and t.data_type in kinds}
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        WeightProduct(
            node.name,
            node.op_type,
            node.input[0],
            node.input[1],
            node.output[0],
            any(attribute.name == "transB" and attribute.i for attribute in node.attribute),
        )
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm")
        and node.domain in STANDARD_DOMAINS
        and node.input[1] in matrices
        and node.input[0] not in constants
        and not any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    ]


def quantized_products(model: onnx.ModelProto) -> list[str]:
    """Names of the MatMul and Gemm nodes both of whose operands come from a DequantizeLinear, in graph order."""
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and set(node.input[:2]) <= dequantized
    ]


# --- running --------------------------------------------------------------------------------------------------------


def session(
    model: onnx.ModelProto | Path | str,
    threads: int = 0,
    optimized: Path | str | None = None,
    optimize: bool = True,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU.

    Args:
        model: A graph or its path.
        threads: CPU threads; 0 leaves it to ONNX Runtime.
        optimized: Where to write the graph as ONNX Runtime rewrote it.
        optimize: False runs the graph as it is written.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    settings.add_session_config_entry(EXACT_PRODUCTS, "1")
    if not optimize:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized is not None:
        settings.optimized_model_filepath = os.fspath(optimized)
        name = data_path(optimized).name
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", name)
    options = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": CRASHING_OPTIMIZERS}
    if not isinstance(model, onnx.ModelProto):
        operator_library.register(settings, model)
        return onnxruntime.InferenceSession(os.fspath(model), settings, **options)
    if fits(model):
        return onnxruntime.InferenceSession(model.SerializeToString(), settings, **options)
    with stored(model) as path:
        return onnxruntime.InferenceSession(os.fspath(path), settings, **options)


@contextlib.contextmanager
def stored(model: onnx.ModelProto) -> Iterator[Path]:
    """A graph as a file for the block: for tools that serialise, which no large graph survives in memory."""
    with temporary_folder() as folder:
        path = Path(folder, "model.onnx")
        save(model, path)
        yield path


def first_line(error: BaseException) -> str:
    """What an error says, cut to one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


# --- weights beside the graph ---------------------------------------------------------------------------------------


def _outside(model: onnx.ModelProto) -> list[str]:
    """Files that hold tensors of a graph, as it names them."""
    places = (
        entry.value
        for tensor in hollow.tensors(model)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    )
    return list(dict.fromkeys(places))


def _digest_of_data(model: onnx.ModelProto) -> str | None:
    """What a graph says of the weights beside it; None where it has none beside it, or was not written here."""
    return next((entry.value for entry in model.metadata_props if entry.key == DATA_SHA256), None)


def _check_data(model: onnx.ModelProto, path: Path, remedy: str) -> None:
    if files.sha256(data_path(path)) != _digest_of_data(model):
        raise UserError(f"{data_path(path)} is not what was written beside {path}; {remedy}")


def _write_data(shell: onnx.ModelProto, aside: Mapping[str, TensorProto], path: Path, name: str) -> str:
    """Write the tensors that are not in ``shell`` and tell it, in place, where they are.

    Returns:
        Hex digest of the file.
    """
    digest, end = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for tensor in shell.graph.initializer:
            if tensor.name not in aside:
                continue
            padding = bytes(-end % ALIGNMENT)
            content = hollow.raw(aside[tensor.name])
            for part in (padding, content):
                file.write(part)
                digest.update(part)
            del tensor.external_data[:]
            for key, value in (
                ("location", name),
                ("offset", str(end + len(padding))),
                ("length", str(len(content))),
            ):
                tensor.external_data.add(key=key, value=value)
            end += len(padding) + len(content)
    return digest.hexdigest()


def forget_data(model: onnx.ModelProto) -> None:
    """Strike out the digest of weights that are now in the graph, in place."""
    kept = [entry for entry in model.metadata_props if entry.key != DATA_SHA256]
    if len(kept) < len(model.metadata_props):
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
