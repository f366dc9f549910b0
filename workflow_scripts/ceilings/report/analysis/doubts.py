"""What speaks against the answers of a fast configuration: a latency alone recommends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ceilings.report.analysis.findings.quality import status_of_quality
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.analysis.narrow_products import float_only
from ceilings.report.analysis.quality_words import worth
from ceilings.report.tables.product_counts import QUANTIZED
from ceilings.report.tables.quality_rows import CONFIGURATION


@dataclass(frozen=True)
class Doubt:
    """Something to know before a configuration is deployed.

    Attributes:
        short: In a few words, for a table.
        why: In a sentence, less its stop, with its number or what would give one.
        lost: Whether it was shown that the configuration does not keep the quality of FP32.
    """

    short: str
    why: str
    lost: bool = False


def doubt_of(measured: Measured, cell: Cell) -> Doubt | None:
    """The gravest doubt about a cell's configuration; None where nothing is known against it."""
    row = _quality(measured, cell)
    if row and status_of_quality(row) == "refuted":
        return Doubt("loses quality", f"{cell.label} loses quality: {worth(row)}", lost=True)
    if float_only(cell):
        name = cell.precision.upper()
        return Doubt(f"not {name} inside", f"{cell.label} computes no product in {name}: choose the float cell instead")
    if cell.precision not in QUANTIZED or (row and status_of_quality(row) == "supported"):
        return None
    if row is None:
        entry = f"quality: {{cells: [{cell.runtime}/{cell.model}/{cell.precision}]}}"
        return Doubt("quality not evaluated", f"the quality of {cell.label} was not evaluated: add `{entry}`")
    if row["weights"] == "random":
        return Doubt("quality unknown", f"the quality of {cell.label} is unknown: the weights are random")
    return Doubt("quality undecided", f"{cell.label} may lose quality, too little data to say: {worth(row)}")


def loses_quality(measured: Measured, cell: Cell) -> bool:
    """Whether the data show that a cell's configuration does not keep the quality of FP32."""
    row = _quality(measured, cell)
    return row is not None and status_of_quality(row) == "refuted"


def _quality(measured: Measured, cell: Cell) -> Mapping[str, Any] | None:
    """The evaluated row of a cell's configuration."""
    rows = measured.tables.quality
    rows = rows[rows["status"] == "ok"]
    for name in CONFIGURATION:
        rows = rows[rows[name] == getattr(cell, name)]
    return {str(name): value for name, value in rows.iloc[0].items()} if len(rows) else None
