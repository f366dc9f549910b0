"""Every configuration at the common shape, sorted by its median."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from ceilings.report import text
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.workload.shape import Shape


@style.settled
def draw(tables: Tables) -> Figure:
    """Dot plot: median over processes with its 95% interval, p90 where enough iterations carry it."""
    measured = Measured(tables)
    if not measured.cells:
        return style.nothing("Median latency of configurations", "no cell was measured")
    groups = group_by(measured.at_common_shape, lambda cell: (cell.device, cell.model))
    shapes = set(measured.common_shapes.values())
    at = f"at {text.sizes(*shapes)}" if len(shapes) == 1 else "at each model's common shape"
    looks = style.looks(measured)
    most = max(len(cells) for cells in groups.values())
    figure, axes = style.panels(
        len(groups),
        1,
        1.0 + 0.34 * most,
        f"{style.latency_name(*shapes)} {at}, fastest first (95% intervals)",
    )
    for (axis,), ((device, model), cells) in zip(axes, groups.items(), strict=True):
        ranked = sorted(cells, key=lambda cell: cell.p50.estimate)
        best, floor = ranked[0].p50.estimate, measured.noise_floor(device)
        if floor is not None and math.isfinite(floor):
            axis.axvspan(
                best, best * (1 + floor), color="0.85", zorder=0.5, label="within the noise floor of the fastest"
            )
        for y, cell in enumerate(ranked):
            look = {key: value for key, value in looks[cell.configuration].items() if key not in {"label", "linestyle"}}
            axis.errorbar(cell.p50.estimate, y, xerr=style.error([cell.p50]), capsize=4, **look, linestyle="none")
            if pd.notna(cell.row["p90_ms"]):
                axis.plot(cell.row["p90_ms"], y, "|", color=style.GREY, markersize=11, markeredgewidth=2, label="p90")
        axis.set_yticks(range(len(ranked)), [cell.label for cell in ranked])
        axis.set_ylim(len(ranked) - 0.4, -0.6)
        style.within_reach(
            axis,
            "x",
            [(cell.p50, y, looks[cell.configuration]["color"]) for y, cell in enumerate(ranked)],
            [cell.row["p90_ms"] for cell in ranked if pd.notna(cell.row["p90_ms"])],
        )
        style.plain_log(axis, "x")
        axis.grid(axis="y", visible=False)
        axis.set_title(f"{model} on {device}{_shape(cells, shapes)} ({style.noise_note(floor)})")
        values = axis.secondary_yaxis("right")
        values.set_yticks(range(len(ranked)), [f"{text.number(cell.p50.estimate)} ms" for cell in ranked])
        values.tick_params(length=0)
        values.spines["right"].set_visible(False)
    axes[-1][0].set_xlabel(style.latency_title(*shapes, median=False))
    style.legend(figure, [row[0] for row in axes])
    return figure


def _shape(cells: list[Cell], shapes: set[Shape]) -> str:
    """The panel's shape, where the panels differ in it."""
    return f", {text.sizes(cells[0].shape)}" if len(shapes) > 1 else ""
