"""Where the host decides a latency, and where the device does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ceilings.report import text
from ceilings.report.analysis.measured import Cell, Measured, configuration_label, group_by, without_axis
from ceilings.report.render.axes import name
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import axes_of, key_of
from ceilings.workload.shape import Shape

SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#f6d2a2", "#b3541e", "#3b1203"])
"""From white to nearly black, so that it reads the same in grey."""

MOST_NUMBERS = 26
"""With more shapes side by side a tile is too narrow for its number."""

MOST_WORDS = 6
"""With more, for its verdict."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A row a configuration, a column a shape: the share of the latency in which the host submits work."""
    measured = Measured(tables)
    known = [cell for cell in measured.cells if submitting_share(cell) is not None]
    if not known:
        return style.nothing("Host or device", "no cell was measured whose host and device times are known apart")
    verdicts = {key_of(row): row["verdict"] for row in tables.budgets.to_dict("records")}
    panels = group_by(known, lambda cell: (cell.device, cell.model))
    rows = [len({cell.configuration for cell in members}) for members in panels.values()]
    figure, axes = style.panels(
        len(panels),
        1,
        0.33 * max(rows) + 1.1,
        "Who decides the latency: the share of it in which the host submits work",
        height_ratios=rows,
    )
    for (axis,), ((device, model), members) in zip(axes, panels.items(), strict=True):
        image = _draw_map(axis, members, measured, verdicts)
        axis.set_title(f"{model} on {device}{_above(members)}", pad=18)
    bar = figure.colorbar(image, ax=[axis for (axis,) in axes], pad=0.01, aspect=30, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0: the device decides", "25%", "50%", "75%", "100%: the host decides"])
    return figure


def submitting_share(cell: Cell) -> float | None:
    """Host time of the submitting calls over the latency; None where it was not measured.

    A call that itself waits for the device (there is then no boundary on the device) says nothing about the host. Of
    cells that generate, which have no such boundary, such a call's submitting is not recorded.
    """
    enqueue, end_to_end = cell.row["enqueue_p50_ms"], cell.row["e2e_p50_ms"]
    needed = (enqueue,) if cell.shape.get("generated") is not None else (enqueue, end_to_end)
    if any(value is None or math.isnan(value) for value in needed):
        return None
    return min(1.0, enqueue / cell.p50.estimate)


def _draw_map(axis: Axes, cells: list[Cell], measured: Measured, verdicts: dict[tuple[Any, ...], str]) -> Any:
    present = {cell.configuration for cell in cells}
    configurations = [one for one in measured.configurations if one in present]
    shapes = sorted({cell.shape for cell in cells}, key=lambda shape: (without_axis(shape, "batch"), shape))
    share = np.full((len(configurations), len(shapes)), np.nan)
    for cell in cells:
        row, column = configurations.index(cell.configuration), shapes.index(cell.shape)
        share[row, column] = value = submitting_share(cell) or 0.0
        if len(shapes) > MOST_NUMBERS:
            continue
        verdict = verdicts.get(cell.key) if len(shapes) <= MOST_WORDS else None
        axis.text(
            column,
            row,
            f"{value:.0%}" + (f"\n{verdict}" if verdict else ""),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if value > 0.55 else "black",
        )
    image = axis.imshow(share, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    axis.set_yticks(range(len(configurations)), [configuration_label(*one) for one in configurations], fontsize=9)
    axis.set_xticks(range(len(shapes)), [str(shape.batch) for shape in shapes])
    words = "; words: the verdict of the capture" if verdicts and len(shapes) <= MOST_WORDS else ""
    axis.set_xlabel(f"batch size (empty: not measured{words})")
    # Lines between the tiles, so that a white tile (0%) differs from an empty place.
    for row, column in np.argwhere(~np.isnan(share)):
        axis.add_patch(_frame(row, column))
    for rest, members in group_by(list(enumerate(shapes)), lambda entry: without_axis(entry[1], "batch")).items():
        first, last = members[0][0], members[-1][0]
        axis.annotate(
            _short(rest),
            ((first + last) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
        if first:
            axis.axvline(first - 0.5, color="black", linewidth=1.2)
    axis.grid(visible=False)
    return image


def _above(cells: list[Cell]) -> str:
    """What stands above the columns, where a shape is more than a batch."""
    axes = [axis for axis in axes_of(cell.shape for cell in cells) if axis != "batch"]
    return f" (above the columns: {text.listed(map(name, axes))})" if axes else ""


def _short(rest: Shape) -> str:
    """A size alone where there is one, else the shape's name."""
    return str(rest.sizes[0][1]) if len(rest.sizes) == 1 and not rest.lengths else str(rest)


def _frame(row: int, column: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="0.6", linewidth=0.7)
