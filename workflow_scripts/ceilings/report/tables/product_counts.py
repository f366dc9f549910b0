"""Whether a quantised cell computed in INT8 or FP8 at all: what its runtime, or its engine's layers, say of products.

A Q/DQ graph only allows a runtime to multiply in the narrow type. Where it does not, the graph is the float one with
nodes added that quantise and dequantise, and its latency says nothing of narrow arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from ceilings import records as written
from ceilings.report.tables.quantities import PRODUCT_COLUMNS

Record = Mapping[str, Any]

QUANTIZED = ("int8", "fp8")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


class Products(NamedTuple):
    """The matrix products that ran in one inference; fused ones count as the one kernel or layer that they are.

    Attributes:
        narrow: Those in INT8 or FP8.
        all: Those in any type.
        quantizers: Nodes that quantise or dequantise and ran; None where only layers of an engine are known.
    """

    narrow: int
    all: int
    quantizers: int | None


# --- from records ----------------------------------------------------------------------------------------------------


def product_columns(cell: Record, records: Sequence[Record]) -> dict[str, int | None]:
    """What ran in a planned cell, from its processes' records; unknown where these differ.

    Raises:
        UserError: The record of its engine is missing or damaged.
    """
    if cell["precision"] not in QUANTIZED:
        return {}
    engine = cell.get("engine")
    counts = {_of_engine(engine, record) if engine else _of_session(record) for record in records}
    same = counts.pop() if len(counts) == 1 else None
    return dict(zip(PRODUCT_COLUMNS, same, strict=True)) if same else {}


def _of_session(record: Record) -> Products | None:
    """What a runtime counted, or ONNX Runtime's profile of one inference, where an engine within shows no products."""
    runtime = record.get("runtime") or {}
    if counts := runtime.get("products"):
        return _of_counts(counts)
    placement = runtime.get("placement")
    if not placement:
        return None
    narrow, wide = (sum(placement[name].values()) for name in ("int8_products", "float_products"))
    quantizers = sum(placement["operators"].get(name, 0) for name in QUANTIZERS)
    return Products(narrow, narrow + wide, quantizers) if narrow + wide else None


def _of_engine(path: str, record: Record) -> Products | None:
    """From the layers of the engine that was timed; unknown of another one, or of profiles that were not summarised."""
    engine = written.read(path, "engine")
    counts, timed = engine["summary"]["products"], record["provenance"]["sources"].get("artifact")
    same = engine["engine_sha256"] == timed and (record.get("runtime") or {}).get("profile") == 0
    if not same or not counts or "none" in counts:
        return None
    return _of_counts(counts)


def _of_counts(counts: Mapping[str, int]) -> Products:
    """Of products by the type that they ran in."""
    return Products(sum(counts.get(name, 0) for name in QUANTIZED), sum(counts.values()), None)


# --- from rows --------------------------------------------------------------------------------------------------------


def products(row: Mapping[str, Any]) -> Products | None:
    """Of a row of the table of cells."""
    values = [row.get(name) for name in PRODUCT_COLUMNS]
    narrow, everything, quantizers = (int(value) if value is not None and pd.notna(value) else None for value in values)
    return None if narrow is None or everything is None else Products(narrow, everything, quantizers)


def counted(row: Mapping[str, Any]) -> str:
    """``26 of 32``; empty where it is not known."""
    counts = products(row)
    return f"{counts.narrow} of {counts.all}" if counts else ""
