"""Every quantity that a table's reader is shown, declared once: its column, unit, form and meaning.

Those of a run record come from the measurements' catalogue, so what a plug-in measures is among them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ceilings.measure.catalogue import MEASUREMENTS, quantities
from ceilings.quantity import Quantity
from ceilings.report import text
from ceilings.statistics.intervals import median_over_processes
from ceilings.statistics.quantiles import Interval

Row = Mapping[str, Any]
Record = Mapping[str, Any]

PERCENTILES = {"p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
"""Column stem and quantile of the percentiles that need a minimum of samples."""

QUANTILES = {f"{stem}_ms": q for stem, q in PERCENTILES.items()}
"""The same by column."""

SUFFIXES = {"1/s": "_per_s", "1/J": "_per_j", "σ": "_sigma", "": ""}
"""How a column's name ends by its unit, where it is not the unit in small letters."""

RATES = ("1/s", "1/J")
"""Units that labels hold already: ``inferences/s``."""

TAILS = {*QUANTILES, "token_p99_ms"}
"""Columns of percentiles: where nothing bounds one, it is shown without an interval."""

PRODUCT_COLUMNS = ["quantized_products", "matrix_products", "quantize_nodes"]
"""What ran of a quantised graph; empty for other precisions and where no record says it."""


CELL = "Cell"
"""The group of what a cell is."""


def _text(column: str, label: str, meaning: str, group: str = CELL) -> Quantity:
    return Quantity(column, label, "", "text", meaning, group)


IDENTITY = (
    _text("device", "device", "The device that runs it."),
    _text("runtime", "runtime", "What executes it, by the name of the runtimes' catalogue."),
    _text("aa_of", "A/A pair of", "The runtime that is measured a second time under this name, for the noise floor."),
    _text("model", "model", "The model, as the study calls it."),
    _text("model_source", "source of the model", "What the model is: an ONNX file, or weights with a configuration."),
    _text("precision", "precision", "What its matrix products are asked to compute in."),
    _text("shape", "shape", "Sizes of its axes and the lengths of its inputs; each axis has a column too."),
    _text("lengths", "lengths", "The length distribution that its inputs follow; empty: every input fills its row."),
    _text("stack", "stack", "What executes, whatever is done to it."),
    _text("levers", "levers", "What is done to the stack, beside choosing a precision."),
    _text("artifact", "artifact", "What the runtime executes: weights, a graph or an engine."),
    _text("sweeps", "sweeps", "The sweeps of the study that ask for it."),
    _text("status", "status", "ok, failed or unavailable."),
    _text("reason", "reason", "Why it was not measured."),
    _text("remedy", "remedy", "What a user can do about that."),
    _text("failure_kind", "class of failure", "Of what kind its failure is."),
    _text("log", "log", "The log of the process that failed."),
    Quantity("processes", "processes", "", "count", "Fresh processes that it was measured in.", CELL),
    Quantity("n", "iterations", "", "count", "Timed iterations of all processes.", "Latency"),
)

COMPUTED = (
    Quantity("process_spread", "processes differ by", "", "percent", "Slowest median over fastest, less 1.", "Latency"),
    Quantity(
        "real_share",
        "share of real tokens",
        "",
        "percent",
        "Of the input's positions, those that are no padding.",
        CELL,
        source="inputs.real_share",
    ),
    Quantity("price_per_hour", "price of an hour", "", "number", "Of the device, in the study's currency.", CELL),
    Quantity(
        "quantized_products",
        "INT8/FP8 products",
        "",
        "count",
        "Of the matrix products that ran, those in INT8 or FP8.",
        "Matrix products",
    ),
    Quantity("matrix_products", "matrix products", "", "count", "Matrix products that ran.", "Matrix products"),
    Quantity(
        "quantize_nodes", "Q/DQ nodes", "", "count", "Nodes that quantise or dequantise and ran.", "Matrix products"
    ),
    _text("warmup_stable", "stable warm-up", "Whether the warm-up reached a plateau in every process.", "Latency"),
    _text("stop_reasons", "stopped", "Why the processes stopped measuring.", "Latency"),
    _text("flags", "flags", "What its processes noticed that can make a number wrong.", "Latency"),
)

FLOORS = (
    Quantity(
        "floor_ms",
        "floor",
        "ms",
        "number",
        "The least time that the measured limits allow.",
        "How far from the hardware",
    ),
    Quantity(
        "compute_floor_ms",
        "floor of computing",
        "ms",
        "number",
        "Its products at the matrix rate.",
        "How far from the hardware",
    ),
    Quantity(
        "memory_floor_ms",
        "floor of moving bytes",
        "ms",
        "number",
        "Its bytes at the bandwidth.",
        "How far from the hardware",
    ),
    _text("limited_by", "floor set by", "Which limit sets the floor.", "How far from the hardware"),
    Quantity("gap", "gap", "×", "number", "Latency over floor.", "How far from the hardware"),
    Quantity("mfu", "MFU", "", "percent", "Share of the highest measured matrix rate.", "How far from the hardware"),
)
"""Columns of the table of floors that are shown with a cell."""

VERDICT = _text("verdict", "verdict", "What decides the latency, by a capture of an iteration.", "Capture")
"""Of the table of budgets."""

RECORDED = quantities()
"""Of the run records."""

QUANTITIES = (*IDENTITY, *RECORDED, *COMPUTED)
"""Every column of the table of cells, but for the axes' and for the ends of intervals."""

MEASURED = tuple(one for measurement in MEASUREMENTS.values() for one in measurement.quantities)
"""What is measured of a cell in the steady state: what a table of results shows unless it leaves it out."""

BY_COLUMN = {one.column: one for one in (*QUANTITIES, *FLOORS, VERDICT)}


def ends(one: Quantity) -> tuple[str, str]:
    """Columns of both ends of a quantity's interval: ``p50_low_ms`` and ``p50_high_ms``."""
    suffix = SUFFIXES.get(one.unit, f"_{one.unit.lower()}")
    stem = one.column.removesuffix(suffix)
    suffix = one.column[len(stem) :]
    return f"{stem}_low{suffix}", f"{stem}_high{suffix}"


def columns(declared: Sequence[Quantity]) -> list[str]:
    """Columns of the table, ends of intervals behind their quantity."""
    return [name for one in declared for name in (one.column, *(ends(one) if one.interval else ()))]


CELL_COLUMNS = columns(QUANTITIES)
"""Of the table of cells; those of the axes stand behind ``shape``."""

SOURCED = tuple(one for one in (*RECORDED, *COMPUTED) if one.source)
"""Quantities that are read from a place in the run records, without further arithmetic."""


# --- from run records ------------------------------------------------------------------------------------------------


def of_process(one: Quantity, record: Record) -> float | None:
    """A quantity of one process: what its record holds, of a list the median; None where it holds none."""
    value = recorded(one, record)
    if isinstance(value, list):
        value = float(np.median(value)) if value else None
    return None if value is None else value * one.scale


def of_cell(one: Quantity, records: Sequence[Record]) -> dict[str, float | None]:
    """A quantity of a cell over its processes, with the ends of its interval; empty unless every process has it."""
    values = [of_process(one, record) for record in records]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return dict.fromkeys(columns([one]))
    if one.interval:
        every = [recorded(one, record) for record in records]
        groups = [np.atleast_1d(np.asarray(value, np.float64)) * one.scale for value in every]
        return interval_columns(one, median_over_processes(groups))
    return {one.column: max(known) if one.over == "max" else _middle(known)}


def interval_columns(one: Quantity, interval: Interval | None) -> dict[str, float | None]:
    """Three columns; the ends stay empty where nothing bounds the estimate."""
    low, high = ends(one)
    if interval is None:
        return {one.column: None, low: None, high: None}
    bounds = (interval.low, interval.high) if interval.bounded else (None, None)
    return {one.column: interval.estimate, low: bounds[0], high: bounds[1]}


def recorded(one: Quantity, record: Record) -> Any:
    """What a run record holds of a quantity, in its own unit; None where it holds nothing."""
    value: Any = record
    for name in _steps(one.source):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@functools.cache
def _steps(source: str) -> tuple[str, ...]:
    return tuple(source.split("."))


def _middle(values: Sequence[float]) -> float:
    """The median in logarithms: of an even number, the geometric mean of both in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else math.sqrt(ordered[half - 1] * ordered[half])


# --- as a reader sees them -------------------------------------------------------------------------------------------


def heading(one: Quantity) -> str:
    """Label and unit, for tables whose cells hold numbers alone."""
    return f"{one.label}, {one.unit}" if one.unit and one.unit not in RATES else one.label


def of_tokens(one: Quantity) -> Quantity:
    """The quantity as headings call it of a model that generates: an iteration gives a token a row."""
    label, meaning = one.label.replace("inferences/s", "tokens/s"), one.meaning.replace("one inference", "one token")
    return dataclasses.replace(one, label=label, meaning=meaning)


def of_both(one: Quantity) -> Quantity:
    """The quantity as headings call it where some models generate and others do not."""
    return dataclasses.replace(one, label=one.label.replace("inferences/s", "inferences or tokens/s"))


def results_heading(one: Quantity) -> str:
    """As :func:`heading`, of a table that shows the interval of the median beside it."""
    return f"{one.label} [95%], {one.unit}" if one.column == "p50_ms" else heading(one)


def legend(shown: Sequence[Quantity]) -> str:
    """What each column of a table of results is, as a list."""
    return "\n".join(f"- {heading(one)}: {one.meaning}" for one in shown)


FORMS: dict[str, Callable[[Any], str]] = {
    "number": text.number,
    "percent": text.percent,
    "powers": text.powers,
    "count": lambda value: f"{int(value):,}",
    "text": str,
}
"""A value in words, by the form of its quantity."""


def known(one: Quantity, row: Row) -> bool:
    """Whether a row has a value of it."""
    value = row.get(one.column)
    return value is not None and bool(pd.notna(value)) and value != ""


def show(one: Quantity, row: Row, unit: bool = False) -> str:
    """The value in words, without its interval; ``n/a`` for a number that is not known, empty for a text."""
    if one.column in QUANTILES and pd.notna(row.get("n")):
        return text.percentile(row.get(one.column), row["n"], QUANTILES[one.column])
    if not known(one, row):
        return "" if one.form in {"text", "count"} else "n/a"
    value = row[one.column]
    shown = FORMS[one.form](value)
    if one.form == "number" and not one.unit:
        shown = text.ratio(value)
    return f"{shown} {one.unit}" if unit and one.unit and one.unit not in RATES else shown


def show_interval(one: Quantity, row: Row, unit: bool = False) -> str:
    """The value with its interval, where it has one."""
    interval = interval_of(one, row)
    if interval is None:
        return show(one, row, unit)
    return text.interval(interval, one.unit if unit and one.unit not in RATES else "")


def interval_of(one: Quantity, row: Row) -> Interval | None:
    """A quantity's interval in a row, unbounded where its ends are not known; None where it has none or no value."""
    if not (one.interval and known(one, row)):
        return None
    low, high = (row.get(name) for name in ends(one))
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return None if one.column in TAILS else Interval(0.0, row[one.column], math.inf)
    return Interval(low, row[one.column], high)


INTRODUCTION = """\
# Quantities

**Reference**: every column of `results/tables/cells.csv`, as the summary, the report and the lab note show it.
Generated from the declarations of the measurements and of the report; in `workflow_scripts/`:
`python -m ceilings.report.tables.quantities > ../docs/quantities.md`.

Behind `shape` stands a column for each axis (`batch`, `sequence`, `image` and so on). A quantity with an interval (±)
has two more columns, `_low` and `_high` before the unit: the ends of its 95% interval.
"""


def documentation() -> str:
    """docs/quantities.md: every column of the tables of cells and of serving."""
    rows = [(f"`{one.column}`", one.label, one.unit, one.meaning, "±" if one.interval else "") for one in QUANTITIES]
    from ceilings.report.tables import served_quantities  # which builds on this module

    cells = text.table(rows, ("column", "label", "unit", "meaning", "interval"), "lllll")
    return f"{INTRODUCTION}\n{cells}\n{served_quantities.documentation()}"


if __name__ == "__main__":
    print(documentation(), end="")
