"""Which layers an engine has: read from what TensorRT tells of it, and summarised.

Three wordings of the same facts are read: the inspector's JSON of TensorRT 10 (``Bindings``, ``Format/Datatype``), that
of TensorRT 11 (``I/O Tensors``, ``Datatype``), and the list of text lines that a verbose build ends with, which is all
that can be had without the GPU that the engine is for. What is kept is in TensorRT's own words.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

PRODUCTS = ("MatMul", "Gemm")
PRODUCT_LAYER = re.compile(r"gemm|matmul|matrixmultiply|conv|mha|runtime_fusion", re.IGNORECASE)
REFORMAT_LAYER = re.compile(r"reformat|\bcopy\b", re.IGNORECASE)
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")

PRECISIONS = (
    (r"bf16|bfloat16", "bf16"),
    (r"fp8|float8|e4m3", "fp8"),
    (r"fp16|half|float16", "fp16"),
    (r"int8", "int8"),
    (r"fp32|float", "fp32"),
)
"""TensorRT's words for a type, and ours; the first that fits. Index types and booleans have no precision."""

WIDTH = {"int8": 1, "fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
"""Bytes of an element."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: As TensorRT calls it.
        kind: TensorRT's layer type.
        precision: Of a product (matrix product, convolution, attention): the widest type among its inputs, which is
            what its matrix units take. Of any other layer: the widest among inputs and outputs. None: no numbers.
        nodes: Names of the ONNX nodes that TensorRT attributes to it.
        product: Whether it is a product.
        profile: Index of the optimisation profile that it serves: each has layers of its own.
    """

    name: str
    kind: str
    precision: str | None
    nodes: tuple[str, ...]
    product: bool
    profile: int


def read(listing: str, wording: str) -> dict[str, Any]:
    """What TensorRT tells of an engine, as one JSON object with ``Layers`` and ``I/O Tensors``.

    Args:
        listing: The inspector's JSON, or the lines of a verbose build; may be empty.
        wording: ``json`` or ``text``.
    """
    if wording == "json":
        parsed = json.loads(listing)
        layers, tensors = (
            [each if isinstance(each, dict) else {"Name": each} for each in entries]
            for entries in (parsed.get("Layers", []), parsed.get("I/O Tensors", parsed.get("Bindings", [])))
        )
        return {"source": "inspector", "Layers": layers, "I/O Tensors": tensors}
    lines = [line.strip() for line in listing.split("\n") if line.strip().startswith("Name: ")]
    parsed = [_fields(line) for line in lines]
    return {
        "source": "build log",
        "Layers": [fields for fields in parsed if "LayerType" in fields],
        "I/O Tensors": [fields for fields in parsed if "IOMode" in fields],
    }


def layers(listing: Mapping[str, Any]) -> list[Layer]:
    """The layers of :func:`read`'s object. They stand profile by profile; only some names say which."""
    listed, profile = [], 0
    for entry in listing["Layers"]:
        tags = re.findall(r"\[profile (\d+)\]", f"{entry.get('Name')} {entry.get('Metadata')}")
        profile = max([profile, *map(int, tags)])
        listed.append(_layer(entry, profile))
    return listed


def summary(listed: Sequence[Layer], operators: Mapping[str, str], quantized: Sequence[str]) -> dict[str, Any]:
    """How many layers of each type and precision there are, what was fused, and which products run quantised.

    All of it of the first optimisation profile; ``layers`` counts those of each.

    Args:
        listed: The layers.
        operators: Operator of each node of the ONNX graph, by name.
        quantized: The products of the graph that have Q/DQ pairs.
    """
    counts = Counter(layer.profile for layer in listed)
    listed = [layer for layer in listed if layer.profile == 0]
    types: dict[str, Counter[str]] = {}
    fusions: Counter[tuple[str, str, str]] = Counter()
    alone: Counter[str] = Counter()
    ran: dict[str, set[str]] = {}
    attention = 0
    for layer in listed:
        precision = layer.precision or "none"
        types.setdefault(layer.kind, Counter())[precision] += 1
        # Constants that were folded have nodes of the parser's making, which the graph does not know.
        known = [operators[node] for node in layer.nodes if node in operators]
        computing = [operator for operator in known if operator not in QUANTIZERS]
        if len(computing) > 1:
            fusions["+".join(computing), layer.kind, precision] += 1
        elif computing:
            alone[computing[0]] += 1
        if layer.product:
            attention += "Softmax" in computing
            for node in layer.nodes:
                if operators.get(node) in PRODUCTS:
                    ran.setdefault(node, set()).add(precision)
    low = {node for node in quantized if ran.get(node, set()) & {"int8", "fp8"}}
    return {
        "layers": [counts[profile] for profile in sorted(counts)],
        "types": {kind: dict(each) for kind, each in sorted(types.items())},
        "products": dict(Counter(layer.precision or "none" for layer in listed if layer.product)),
        "reformats": sum(bool(REFORMAT_LAYER.search(f"{layer.kind} {layer.name}")) for layer in listed),
        "fused": [
            {"operators": operators_, "type": kind, "precision": precision, "layers": count}
            for (operators_, kind, precision), count in fusions.most_common()
        ],
        "unfused": dict(alone.most_common()),
        "attention": {"softmax": sum(operator == "Softmax" for operator in operators.values()), "fused": attention},
        "quantized": {
            "asked": len(quantized),
            "ran": len(low),
            "elsewhere": {node: sorted(ran.get(node, {"not found"})) for node in quantized if node not in low},
        },
    }


def _layer(entry: Mapping[str, Any], profile: int) -> Layer:
    name, kind = str(entry.get("Name", "")), str(entry.get("LayerType", "unknown"))
    inputs, outputs = ([_precision(tensor) for tensor in entry.get(side) or []] for side in ("Inputs", "Outputs"))
    product = bool(PRODUCT_LAYER.search(f"{kind} {entry.get('TacticName', '')}")) or "_gemm_" in name
    widths = [width for width in (inputs if product else [*inputs, *outputs]) if width]
    nodes = re.findall(r"\[ONNX Layer: (.*?)\](?=[\[\x1c-\x1f]|$)", str(entry.get("Metadata", "")))
    precision = max(widths, key=lambda name: WIDTH[name], default=None)
    return Layer(name, kind, precision, tuple(dict.fromkeys(nodes)), product, profile)


def _precision(tensor: Mapping[str, Any]) -> str | None:
    words_of = {key.lower(): str(value) for key, value in tensor.items()}  # both "Datatype" and "DataType" occur
    kind = words_of.get("datatype") or words_of.get("format/datatype") or ""
    return next((ours for words, ours in PRECISIONS if re.search(words, kind, re.IGNORECASE)), None)


def _fields(text: str) -> dict[str, Any]:
    """``Key: value, Key: value`` as a dict; commas within brackets belong to a value."""
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        depth += (sign in "[{") - (sign in "]}")
        if depth == 0 and sign == "," and re.match(r", [A-Za-z][A-Za-z0-9/ ]*: ", text[at:]):
            parts.append(text[start:at])
            start = at + 2
    parts.append(text[start:])
    pairs = (part.partition(": ") for part in parts)
    return {key.strip(): _value(value.strip()) for key, _, value in pairs}


def _value(text: str) -> Any:
    """A list of tensors, a list of numbers, a number, or text."""
    if re.fullmatch(r"\[[-\d, ]*\]|-?\d+", text):
        return json.loads(text)
    if text.startswith("[ {"):
        return [_fields(inner) for inner in _braced(text)]
    return text


def _braced(text: str) -> list[str]:
    """The contents of the outermost braces."""
    contents, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        if sign == "{":
            depth += 1
            start = at + 1 if depth == 1 else start
        elif sign == "}":
            depth -= 1
            if depth == 0:
                contents.append(text[start:at].strip())
    return contents
