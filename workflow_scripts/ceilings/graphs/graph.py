"""ONNX graphs on disk: reading, writing, describing and running them on the CPU."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ceilings import files
from ceilings.errors import UserError
from ceilings.provenance import provenance

if TYPE_CHECKING:
    import onnxruntime

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"
REMEDY = "delete it and run again to make it anew"
PACKAGES = ("onnx", "onnxruntime", "numpy")
STANDARD_DOMAINS = {"", "ai.onnx"}
LARGEST = 2**31 - 1
"""Bytes that one protobuf file can hold."""


def load(path: Path | str) -> onnx.ModelProto:
    """Read a graph.

    Raises:
        UserError: Missing, damaged, or not a graph of this pipeline.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the rule that makes it") from None
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise UserError(f"{path} is a damaged ONNX file ({first_line(error)}); {REMEDY}") from None
    if tuple(value.name for value in model.graph.input) != INPUTS or not model.graph.node:
        raise UserError(f"{path} is a damaged ONNX file (its inputs are not {', '.join(INPUTS)}); {REMEDY}")
    return model


def save(model: onnx.ModelProto, path: Path | str) -> None:
    """Write a graph atomically.

    Raises:
        UserError: It does not fit into one file.
    """
    if model.ByteSize() > LARGEST:
        raise UserError(
            f"{path} would have {model.ByteSize():,} bytes, more than one ONNX file holds; use a smaller model"
        )
    with files.atomic(path) as temporary:
        onnx.save(model, temporary)


def report(path: Path | str, graph: Path | str, sources: Mapping[str, Path | str], **content: Any) -> None:
    """Write the JSON that stands beside a graph.

    Args:
        path: Of the report.
        graph: The graph it describes, written before.
        sources: What the graph was made from.
        content: What was done.
    """
    model = load(graph)
    record = {
        "schema_version": 1,
        **content,
        "opset": opset(model),
        "nodes": len(model.graph.node),
        "op_types": op_types(model),
        "inputs": [describe(value) for value in model.graph.input],
        "outputs": [describe(value) for value in model.graph.output],
        "bytes": Path(graph).stat().st_size,
        "graph_sha256": files.sha256(graph),
        "provenance": provenance([*PACKAGES, "onnxslim", "torch"], sources),
    }
    files.write_json(path, record)


def op_types(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes by operator, most frequent first; ``domain::Operator`` outside the standard domain."""
    names = (
        node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"
        for node in model.graph.node
    )
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operator set."""
    return max(entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS)


def describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """Name, type and shape (numbers, or names of dynamic dimensions) of a graph input or output."""
    kind = value.type.tensor_type
    return {
        "name": value.name,
        "type": onnx.TensorProto.DataType.Name(kind.elem_type).lower(),
        "shape": [dim.dim_param or dim.dim_value for dim in kind.shape.dim],
    }


def fixed_axes(model: onnx.ModelProto) -> dict[str, int]:
    """The axes of the inputs that are not dynamic: ``{"batch": 1, "sequence": 128}`` or a part of it."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return {axis: dim.dim_value for axis, dim in zip(("batch", "sequence"), dims, strict=True) if not dim.dim_param}


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
    """The MatMul and Gemm nodes with constant weights, in graph order: what quantisation is about."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
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
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants and node.input[0] not in constants
    ]


def quantized_products(model: onnx.ModelProto) -> list[str]:
    """Names of the MatMul and Gemm nodes both of whose operands come from a DequantizeLinear, in graph order."""
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and set(node.input[:2]) <= dequantized
    ]


def example(model: onnx.ModelProto, vocabulary: int, shape: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Seeded inputs of a shape, or of the graph's fixed axes; in all rows but the first the last quarter is masked."""
    fixed = fixed_axes(model)
    batch, sequence = fixed.get("batch", shape[0]), fixed.get("sequence", shape[1])
    ids = np.random.default_rng(seed).integers(1, vocabulary, (batch, sequence), dtype=np.int64)
    mask = np.ones_like(ids)
    mask[1:, sequence - sequence // 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


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
    if not optimize:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized is not None:
        settings.optimized_model_filepath = os.fspath(optimized)
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else os.fspath(model)
    return onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])


def first_line(error: BaseException) -> str:
    """What an error says, cut to one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
