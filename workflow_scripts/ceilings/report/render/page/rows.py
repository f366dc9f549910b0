"""The cells as the report's table shows them, and all that the page's scripts get of each.

Numbers become text here, so that they read as in the summary; the scripts only place what they are given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ceilings.quantity import Quantity
from ceilings.report import text
from ceilings.report.analysis.findings import Finding
from ceilings.report.analysis.measured import configuration_label, group_by
from ceilings.report.render.axes import axis_cells, axis_headers
from ceilings.report.render.page.details import Row, budget, facts, kernels, processes, records, timeline
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import KEY
from ceilings.report.tables.product_counts import counted
from ceilings.report.tables.quantities import (
    BY_COLUMN,
    MEASURED,
    QUANTILES,
    heading,
    known,
    of_both,
    of_tokens,
    show,
    show_interval,
)
from ceilings.workload.generation import is_request
from ceilings.workload.shape import Shape

NO_DEVICE = "none"
"""Shown as the device of cells whose kind of device this machine lacks."""

LEFT_OUT = {"mean_ms", "p95_ms", "p99_9_ms", "cold_p50_ms", "energy_j", "power_w"}
"""What is measured and has no column: what opens for a cell has it."""

WITH_INTERVAL = {"p50_ms"}
"""Columns that have room for an interval."""

COLUMNS = (
    *(one for one in MEASURED if one.column not in LEFT_OUT),
    *(BY_COLUMN[name] for name in ("floor_ms", "gap", "verdict", "quantized_products", "relative_l2")),
)
"""Columns of the table of cells behind its axes."""


def facets_of(axes: Sequence[str]) -> tuple[str, ...]:
    """What the table is filtered by."""
    return ("device", "model", "runtime", "precision", *axes, "status")


@dataclass(frozen=True)
class Shown:
    """A cell, measured or not.

    Attributes:
        name: Unique; also the cell's address within the page.
        row: Its values in the tables of cells, floors and budgets; those that are missing left out.
        data: What the page's scripts get.
        columns: The axes of the study, and the lengths where inputs have any.
    """

    name: str
    label: str
    row: Row
    data: dict[str, Any]
    shape: Shape
    columns: Sequence[str]

    @property
    def axes(self) -> list[str]:
        """Its sizes along all axes of the study, empty along those that it does not have."""
        return axis_cells(self.shape, self.columns)

    def texts(self, columns: Sequence[Quantity]) -> list[str]:
        """Its values in these columns; empty where there is none."""
        return [_shown_value(one, self.row) for one in columns]

    @property
    def panel(self) -> str:
        """Latencies are compared within one of these, never across."""
        return self.data["panel"]

    @property
    def plotted(self) -> bool:
        return self.row["status"] == "ok" and "aa_of" not in self.row

    @property
    def short(self) -> str:
        return f"{self.label} {self.shape}"


def shown_cells(plan: Mapping[str, Any], tables: Tables, observed: Sequence[Finding]) -> list[Shown]:
    """Every planned cell, in the plan's order."""
    floors, budgets = _by_key(tables.floors), _by_key(tables.budgets)
    runs = processes(tables)
    paths = {_key(cell): cell["runs"] for cell in plan["cells"]}
    supports: dict[str, list[int]] = {}
    for index, finding in enumerate(observed):
        for name in finding.cells:
            supports.setdefault(name, []).append(index)
    cell_kernels = group_by(records(tables.kernels), _key)
    columns = axis_headers(map(Shape.parse, tables.cells["shape"].unique()))
    cells = []
    for values in records(tables.cells):
        key = _key(values)
        row = floors.get(key, {}) | budgets.get(key, {}) | values
        cell = _shown(row, key, runs.get(key, []), columns)
        more = {
            "paths": [*paths.get(key, []), *(row[name] for name in ("log", "path") if name in row)],
            "findings": supports.get(cell.name, []),
            "kernels": kernels(cell_kernels.get(key, [])),
        }
        cell.data.update({name: value for name, value in more.items() if value})
        cells.append(cell)
    return cells


def _shown(row: Row, key: tuple[Any, ...], runs: list[dict[str, Any]], columns: list[str]) -> Shown:
    device, runtime, model, precision, shape_name = key
    name, shape = "/".join(key), Shape.parse(shape_name)
    label = configuration_label(row.get("aa_of", runtime), precision)
    label += " (A/A pair)" if "aa_of" in row else ""
    data = {
        "name": name,
        "label": label,
        "panel": f"{model}, no such device here" if device == NO_DEVICE else f"{model} on {device}",
        "second": "aa_of" in row,
        "shape": shape_name,
        "where": text.sizes(shape),
        "device": device,
        **{name: row[name] for name in ("model", "runtime", "precision", "status")},
        **dict(shape.sizes),
        "lengths": shape.lengths,
        **{one.column: row.get(one.column) for one in COLUMNS},
        "throughput": row.get("saturated_per_s", row.get("inferences_per_s")),
        "low": row.get("p50_low_ms"),
        "high": row.get("p50_high_ms"),
        "facts": facts(row),
        "processes": [process["shown"] for process in runs],
        "quantiles": [process["quantiles"] for process in runs if "quantiles" in process],
        "stretches": [process["stretches"] for process in runs if "stretches" in process],
        "budget": budget(row),
        "timeline": timeline(row),
    }
    return Shown(
        name, label, row, {name: value for name, value in data.items() if value not in (None, [], "")}, shape, columns
    )


def _shown_value(one: Quantity, row: Row) -> str:
    if one.column == "quantized_products":
        return counted(row)
    if not (known(one, row) or one.column in QUANTILES):
        return ""
    return show_interval(one, row) if one.column in WITH_INTERVAL else show(one, row)


def title(one: Quantity) -> str:
    """Heading of a column."""
    return f"{one.label} [95%], {one.unit}" if one.column in WITH_INTERVAL else heading(one)


def shown_columns(cells: Sequence[Shown]) -> list[Quantity]:
    """The columns that any cell has a value in, called by what the models give."""
    generating = {is_request(cell.shape) for cell in cells}
    called = of_both if len(generating) > 1 else of_tokens if generating == {True} else dataclasses.replace
    return [called(one) for one in COLUMNS if any(one.column in cell.row for cell in cells)]


def choices(cells: Sequence[Shown], axes: Sequence[str]) -> dict[str, list[str]]:
    """The values of each facet: sizes ascending, names as they come in the plan."""
    values = {facet: dict.fromkeys(cell.data.get(facet, "") for cell in cells) for facet in facets_of(axes)}
    sizes = {
        facet: sorted(size for size in values[facet] if size) if facet in axes else values[facet] for facet in values
    }
    return {facet: [str(value) for value in each] for facet, each in sizes.items()}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row.get("device") or NO_DEVICE, *(row[name] for name in KEY[1:]))


def _by_key(frame: pd.DataFrame) -> dict[tuple[Any, ...], Row]:
    return {_key(row): row for row in records(frame)}
