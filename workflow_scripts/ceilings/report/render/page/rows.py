"""The cells as the report's table shows them, and all that the page's scripts get of each.

Numbers become text here, so that they read as in the summary; the scripts only place what they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings import Finding
from ceilings.report.analysis.measured import configuration_label, group_by
from ceilings.report.render.page.details import Row, budget, facts, kernels, p50, processes, records, timeline
from ceilings.report.render.summary import error
from ceilings.report.tables.frames import KEY, PERCENTILES, Tables
from ceilings.report.tables.product_counts import counted

FACETS = ("device", "model", "runtime", "precision", "batch", "sequence", "status")
"""What the table is filtered by."""

NO_DEVICE = "none"
"""Shown as the device of cells whose kind of device this machine lacks."""


@dataclass(frozen=True)
class Column:
    """A column of the table of cells.

    Attributes:
        name: The value that it is sorted by.
        about: What it shows, for those who ask.
        show: The row's text; empty where there is no value.
    """

    name: str
    title: str
    about: str
    show: Callable[[Row], str]


def _plain(name: str, title: str, about: str) -> Column:
    return Column(name, title, about, lambda row: text.number(row[name]) if name in row else "")


def _percentile(name: str) -> Column:
    column, q = f"{name}_ms", PERCENTILES[name]
    return Column(column, f"{name}, ms", "Of all iterations", lambda row: text.percentile(row.get(column), row["n"], q))


COLUMNS = (
    Column("p50_ms", "p50 [95%], ms", "Median latency over processes, with its interval", p50),
    _percentile("p90"),
    _percentile("p99"),
    _plain("gpu_p50_ms", "GPU p50, ms", "Between two events on the stream; the device's waits for the host count"),
    _plain("enqueue_p50_ms", "enqueue p50, ms", "The host's submitting calls alone"),
    _plain("e2e_p50_ms", "end to end p50, ms", "With copies from and to the host"),
    _plain("e2e_pageable_p50_ms", "pageable p50, ms", "With copies from and to pageable memory"),
    _plain("inferences_per_s", "inferences/s", "Batch over median"),
    _plain("saturated_per_s", "saturated/s", "Inferences a second with requests queued"),
    _plain("floor_ms", "floor, ms", "The least time that the measured limits allow"),
    _plain("gap", "gap, ×", "Latency over floor"),
    Column("verdict", "verdict", "What a capture of the iteration says", lambda row: row.get("verdict", "")),
    Column("quantized_products", "INT8/FP8 products", "Of the matrix products that ran, those in INT8 or FP8", counted),
    Column("relative_l2", "rel. L2 error", "Against FP32 PyTorch", lambda row: error(row.get("relative_l2"))),
)


@dataclass(frozen=True)
class Shown:
    """A cell, measured or not.

    Attributes:
        name: Unique; also the cell's address within the page.
        row: Its values in the tables of cells, floors and budgets; those that are missing left out.
        data: What the page's scripts get.
    """

    name: str
    label: str
    row: Row
    data: dict[str, Any]

    @property
    def facets(self) -> dict[str, str]:
        return {facet: str(self.data[facet]) for facet in FACETS}

    @property
    def panel(self) -> str:
        """Latencies are compared within one of these, never across."""
        return self.data["panel"]

    @property
    def plotted(self) -> bool:
        return self.row["status"] == "ok" and "twin_of" not in self.row

    @property
    def short(self) -> str:
        return f"{self.label} b{self.row['batch']}-s{self.row['sequence']}"


def shown_cells(plan: Mapping[str, Any], tables: Tables, found: Sequence[Finding]) -> list[Shown]:
    """Every planned cell, in the plan's order."""
    floors, budgets = _by_key(tables.floors), _by_key(tables.budgets)
    runs = processes(tables)
    paths = {_key(cell): cell["runs"] for cell in plan["cells"]}
    supports: dict[str, list[int]] = {}
    for index, finding in enumerate(found):
        for name in finding.cells:
            supports.setdefault(name, []).append(index)
    own_kernels = group_by(records(tables.kernels), _key)
    cells = []
    for values in records(tables.cells):
        key = _key(values)
        row = floors.get(key, {}) | budgets.get(key, {}) | values
        cell = _shown(row, key, runs.get(key, []))
        more = {
            "paths": [*paths.get(key, []), *(row[name] for name in ("log", "path") if name in row)],
            "findings": supports.get(cell.name, []),
            "kernels": kernels(own_kernels.get(key, [])),
        }
        cell.data.update({name: value for name, value in more.items() if value})
        cells.append(cell)
    return cells


def _shown(row: Row, key: tuple[Any, ...], own: list[dict[str, Any]]) -> Shown:
    device, runtime, model, precision, batch, sequence = key
    name = f"{'/'.join(key[:4])}/b{batch}-s{sequence}"
    label = configuration_label(row.get("twin_of", runtime), precision)
    label += " (A/A twin)" if "twin_of" in row else ""
    data = {
        "name": name,
        "label": label,
        "panel": f"{model}, no such device here" if device == NO_DEVICE else f"{model} on {device}",
        "twin": "twin_of" in row,
        **{facet: row.get(facet, NO_DEVICE) for facet in FACETS},
        **{column.name: row.get(column.name) for column in COLUMNS},
        "low": row.get("p50_low_ms"),
        "high": row.get("p50_high_ms"),
        "facts": facts(row),
        "processes": [process["shown"] for process in own],
        "quantiles": [process["quantiles"] for process in own if "quantiles" in process],
        "stretches": [process["stretches"] for process in own if "stretches" in process],
        "budget": budget(row),
        "timeline": timeline(row),
    }
    return Shown(name, label, row, {name: value for name, value in data.items() if value not in (None, [])})


def shown_columns(cells: Sequence[Shown]) -> list[Column]:
    """The columns that any cell has a value in."""
    return [column for column in COLUMNS if any(column.name in cell.row for cell in cells)]


def choices(cells: Sequence[Shown]) -> dict[str, list[str]]:
    """The values of each facet: sizes ascending, names as they come in the plan."""
    values = {facet: dict.fromkeys(cell.data[facet] for cell in cells) for facet in FACETS}
    return {
        facet: [str(value) for value in (sorted(own) if facet in {"batch", "sequence"} else own)]
        for facet, own in values.items()
    }


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row.get("device") or NO_DEVICE, *(row[name] for name in KEY[1:]))


def _by_key(frame: pd.DataFrame) -> dict[tuple[Any, ...], Row]:
    return {_key(row): row for row in records(frame)}
