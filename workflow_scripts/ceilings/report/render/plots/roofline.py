"""Cells below the roofs that their device was measured to have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import key_of
from ceilings.workload.shape import Shape

HALO = [withStroke(linewidth=3, foreground="white")]
FILLS = {"fp32": "full", "tf32": "left", "fp16": "none", "bf16": "bottom", "int8": "top", "fp8": "right"}
"""How much of a marker is filled, by precision: most cells stand alone, without a line to tell it."""

TOUCHING = 1.25
"""Dashes within this factor of each other in both directions touch."""

COURSE = 3
"""Shapes from which on a configuration's markers are connected."""

MOST_NAMES = 3
"""Shapes that are named above dashes that lie together; of more, the number."""

NEAR = 1.12
"""Roofs that lie closer together than this factor share one label."""


@style.settled
def draw(tables: Tables) -> Figure:
    """Operations a second against operations a byte: a dash is what a cell's limits allow, a marker what it reached."""
    measured = Measured(tables)
    rows = {key_of(row): row for row in tables.floors.to_dict("records")}
    bounded = [(cell, rows[key]) for cell in measured.cells if (key := cell.key) in rows]
    if not bounded:
        return style.nothing("Roofline", "no cell was measured on a device with measured limits")
    panels = group_by(bounded, lambda pair: (pair[0].device, pair[0].model))
    figure, axes = style.panels(
        len(panels), 1, 5.6, "Rates below the roofs: a dash is what the measured limits allow at that shape"
    )
    looks = style.looks(measured)
    for (axis,), ((device, model), members) in zip(axes, panels.items(), strict=True):
        for configuration, line in group_by(members, lambda pair: pair[0].configuration).items():
            _draw_cells(axis, line, looks[configuration])
        _draw_roofs(axis, pd.DataFrame([row for _, row in members]))
        axis.set_title(f"{model} on {device}")
        axis.set_xlabel("arithmetic intensity (matrix-product operations per byte that must be moved, log scale)")
        axis.set_ylabel("rate (TFLOP/s, log scale)")
    style.legend(figure, [axis for (axis,) in axes], columns=3)
    return figure


def _draw_cells(axis: Axes, line: list[tuple[Cell, dict[str, Any]]], look: dict[str, Any]) -> None:
    """Reached rates of one configuration, connected where there are enough shapes for a course."""
    line = sorted(line, key=lambda pair: pair[1]["flops"] / pair[1]["bytes"])
    cell = line[0][0]
    axis.plot(
        [row["flops"] / row["bytes"] for _, row in line],
        [row["flops"] / cell.p50.estimate / 1e9 for cell, row in line],
        **{
            **look,
            "linestyle": look["linestyle"] if len(line) >= COURSE else "none",
            "linewidth": 0.9,
            "markersize": 7,
            "markerfacecolor": look["color"],
            "markerfacecoloralt": "white",
            "fillstyle": FILLS.get(cell.precision, "full"),
        },
    )


def _draw_roofs(axis: Axes, floors: pd.DataFrame) -> None:
    """The dashes with their shapes, the matrix rate of each precision, and the memory's diagonal."""
    floors = floors.assign(
        intensity=floors["flops"] / floors["bytes"],
        allowed=floors["flops"] / floors["floor_ms"] / 1e9,
        matrix=floors["flops"] / floors["compute_floor_ms"] / 1e9,
    )
    # Engines and ONNX Runtime execute different INT8 graphs, so a precision can have two floors at a shape.
    shapes = floors.drop_duplicates(["precision", "shape", "floor_ms", "bytes"])
    axis.plot(
        shapes["intensity"],
        shapes["allowed"],
        linestyle="none",
        marker="_",
        markersize=17,
        markeredgewidth=2.6,
        color="black",
        label="what the limits allow, L2 kept warm",
    )
    style.plain_log(axis, "x")
    style.plain_log(axis, "y")
    low, high = axis.get_xlim()
    left, right = low / 1.1, high * 2.8  # room for the names of the roofs
    bottom, top = axis.get_ylim()
    rates = shapes.groupby("precision")["matrix"].max().sort_values()
    for precision, rate in rates.items():
        line = style.LINES[str(precision)]
        axis.plot([left, right], [rate, rate], color="0.55", linewidth=0.8, linestyle=line, zorder=1.5)  # below dashes
    for members in _close_together(rates):
        axis.annotate(
            ", ".join(f"{precision} {rates[precision]:,.0f}" for precision in members),
            (right, rates[members[-1]]),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color="0.3",
            path_effects=HALO,
        )
    bandwidth = (floors["bytes"] / floors["cold_memory_floor_ms"] / 1e6).max()  # GB/s
    x = np.array([left, right])
    axis.plot(x, x * bandwidth / 1e3, color="0.35", linewidth=1.2, label=f"memory without cache, {bandwidth:,.0f} GB/s")
    for members in _neighbours(shapes):
        names = dict.fromkeys(members["shape"])
        axis.annotate(
            "\n".join(names) if len(names) <= MOST_NAMES else f"{len(names)} shapes",
            (members["intensity"].median(), members["allowed"].max()),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            path_effects=HALO,
        )
    axis.set_xlim(left, right)
    axis.set_ylim(bottom / 1.2, top * 1.6)


def _neighbours(shapes: pd.DataFrame) -> list[pd.DataFrame]:
    """Dashes that touch each other, so that they share one label."""
    groups: list[pd.DataFrame] = []
    for _, row in shapes.sort_values(["intensity", "shape"], key=_in_order).iterrows():
        near = [
            index
            for index, members in enumerate(groups)
            if row["intensity"] < TOUCHING * members["intensity"].iloc[0]
            and max(row["allowed"], members["allowed"].max()) < TOUCHING * min(row["allowed"], members["allowed"].min())
        ]
        if near:
            groups[near[0]] = pd.concat([groups[near[0]], row.to_frame().T])
        else:
            groups.append(row.to_frame().T)
    return groups


def _close_together(rates: pd.Series) -> list[list[str]]:
    """Precisions in the order of their rates, those with nearly the same one together."""
    groups: list[list[str]] = []
    for precision, rate in rates.items():
        if groups and rate < NEAR * rates[groups[-1][-1]]:
            groups[-1].append(str(precision))
        else:
            groups.append([str(precision)])
    return groups


def _in_order(column: pd.Series) -> pd.Series:
    """Shapes by their sizes, other columns as they are."""
    names = (
        {name: i for i, name in enumerate(sorted(column.unique(), key=Shape.parse))} if column.name == "shape" else {}
    )
    return column.map(names) if names else column
