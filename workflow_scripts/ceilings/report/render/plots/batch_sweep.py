"""Latency against throughput along batches."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ceilings.report import text
from ceilings.report.analysis.findings.operating import pareto
from ceilings.report.analysis.measured import Cell, Measured, group_by, most_swept, without_axis
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables

TOUCHING = 1.06
"""Points of one batch within this factor lie upon each other, and so would their numbers."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A line a configuration, a point a batch: right is more throughput, down is less latency; the front marked."""
    measured = Measured(tables)
    panels = {}
    for (device, model), cells in measured.panels.items():
        rest = most_swept(cells, "batch")
        lines = group_by(
            [cell for cell in cells if without_axis(cell.shape, "batch") == rest], lambda cell: cell.configuration
        )
        lines = {key: sorted(line, key=lambda cell: cell.batch) for key, line in lines.items() if len(line) > 1}
        if lines:
            panels[device, model, rest] = lines
    if not panels:
        return style.nothing("Batch sweep", "no configuration was measured at more than one batch")
    looks = style.looks(measured)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = style.panels(
        rows, columns, 4.3, "Latency against throughput along batches (numbers are batch sizes)"
    )
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(panels) :]:
        axis.remove()
    for axis, ((device, model, rest), lines) in zip(flat, panels.items(), strict=False):
        front = pareto([cell for line in lines.values() for cell in line])
        axis.plot(
            [cell.p50.inverted(cell.batch * 1e3).estimate for cell in front],
            [cell.p50.estimate for cell in front],
            color="0.2",
            linewidth=6,
            alpha=0.2,
            solid_capstyle="round",
            zorder=1,
            label="Pareto front",
        )
        named: list[Cell] = []
        for configuration, line in lines.items():
            latency = [cell.p50 for cell in line]
            rate = [cell.p50.inverted(cell.batch * 1e3) for cell in line]
            axis.errorbar(
                [value.estimate for value in rate],
                [value.estimate for value in latency],
                xerr=style.error(rate),
                yerr=style.error(latency),
                elinewidth=0.8,
                **looks[configuration],
            )
            for cell, x, y in zip(line, rate, latency, strict=True):
                if any(_together(cell, other) for other in named):
                    continue
                named.append(cell)
                axis.annotate(
                    str(cell.batch),
                    (x.estimate, y.estimate),
                    xytext=(6, 4),
                    textcoords="offset points",
                    fontsize=9,
                    path_effects=[withStroke(linewidth=3, foreground="white")],
                    color=looks[configuration]["color"],
                )
        drawn = [
            (cell.p50, cell.p50.inverted(cell.batch * 1e3), looks[configuration]["color"])
            for configuration, line in lines.items()
            for cell in line
        ]
        style.within_reach(axis, "x", [(rate, latency.estimate, colour) for latency, rate, colour in drawn])
        style.within_reach(axis, "y", [(latency, rate.estimate, colour) for latency, rate, colour in drawn])
        style.plain_log(axis, "x")
        style.plain_log(axis, "y")
        axis.set_title(", ".join(filter(None, (f"{model} on {device}", text.sizes(rest)))))
        axis.set_xlabel(f"throughput of the closed loop ({front[0].unit}s/s, log scale)")
        axis.set_ylabel(style.latency_title(rest))
    style.legend(figure, flat[: len(panels)])
    return figure


def _together(a: Cell, b: Cell) -> bool:
    """Whether one number is enough for both."""
    ratio = a.p50.estimate / b.p50.estimate  # of one batch, that of the throughputs too
    return a.batch == b.batch and 1 / TOUCHING < ratio < TOUCHING
