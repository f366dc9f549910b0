"""Iterations of every configuration at the common shape, process by process."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, withStroke

from ceilings.report import text
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.workload.shape import Shape

OUTLINE = [withStroke(linewidth=3.2, foreground="white"), Normal()]
"""Round what is black, since a runtime's colour may be black too."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A row a process: all iterations as faint ticks, the middle half as a line, the median as a marker."""
    measured = Measured(tables)
    if not measured.cells:
        return style.nothing("Latency distributions", "no cell was measured")
    groups = group_by(measured.at_common_shape, lambda cell: (cell.device, cell.model))
    shapes = set(measured.common_shapes.values())
    at = f"at {text.sizes(*shapes)}" if len(shapes) == 1 else "at each model's common shape"
    looks = style.looks(measured)
    most = max(sum(len(cell.groups) for cell in cells) for cells in groups.values())
    figure, axes = style.panels(
        len(groups),
        1,
        1.0 + 0.16 * most,
        f"Latency of single iterations {at}: a row a process",
    )
    for (axis,), ((device, model), cells) in zip(axes, groups.items(), strict=True):
        ranked = sorted(cells, key=lambda cell: cell.p50.estimate)
        y, ticks = 0.0, []
        for cell in ranked:
            ticks.append(y + (len(cell.groups) - 1) / 2)
            look = looks[cell.configuration]
            for group in cell.groups:
                milliseconds = group / 1e6
                low, middle, high = np.quantile(milliseconds, [0.25, 0.5, 0.75])
                axis.plot(
                    milliseconds,
                    np.full(len(group), y),
                    "|",
                    color=look["color"],
                    alpha=0.35,
                    markersize=7,
                    rasterized=True,
                )
                axis.plot(
                    [low, high], [y, y], color="black", linewidth=1.6, solid_capstyle="butt", path_effects=OUTLINE
                )
                axis.plot(
                    middle,
                    y,
                    marker=look["marker"],
                    color="black",
                    markerfacecolor="white",
                    markersize=4.5,
                    markeredgewidth=1.2,
                    linestyle="none",
                    path_effects=OUTLINE,
                )
                y += 1
            y += 0.8
        axis.set_yticks(ticks, [cell.label for cell in ranked])
        axis.set_ylim(y - 0.8, -1)
        style.plain_log(axis, "x")
        axis.grid(axis="y", visible=False)
        axis.set_title(f"{model} on {device}{_shape(cells, shapes)}")
    axes[-1][0].set_xlabel(
        f"{style.latency_title(*shapes, median=False)}\n"
        "ticks: single iterations; line: their middle half; marker: their median"
    )
    return figure


def _shape(cells: list[Cell], shapes: set[Shape]) -> str:
    """The panel's shape, where the panels differ in it."""
    return f", {text.sizes(cells[0].shape)}" if len(shapes) > 1 else ""
