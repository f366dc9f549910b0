"""Batch sizes that servers formed, from load to load: a panel a cell and deployment."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.served import Line, ServedLoads
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables

TITLE = "Batch sizes that the server formed (share of its executions)"
COLUMNS = 3
MOST_PANELS = 12


@style.settled
def draw(tables: Tables) -> Figure:
    """Deployments that form batches alone: one without has batches of one request."""
    loads = ServedLoads(Measured(tables))
    lines = [line for line in loads.lines if line.batches][:MOST_PANELS]
    if not lines:
        return style.nothing("Batch sizes that the server formed", "no deployment with dynamic batching was measured")
    sizes = sorted({size for line in lines for one in line.loads for size in one.formed})
    colours = mpl.colormaps["viridis"]
    look = {size: colours(0.95 * (1 - i / max(1, len(sizes) - 1))) for i, size in enumerate(sizes)}
    columns = min(COLUMNS, len(lines))
    figure, axes = style.panels(-(-len(lines) // columns), columns, 3.1, TITLE)
    flat = [axis for row in axes for axis in row]
    for axis, line in zip(flat, lines, strict=False):
        _draw(axis, line, sizes, look)
    for axis in flat[len(lines) :]:
        axis.set_visible(False)
    style.legend(figure, flat[: len(lines)], columns=8)
    return figure


def _draw(axis: Axes, line: Line, sizes: list[int], look: Mapping[int, tuple[float, ...]]) -> None:
    shown = [one for one in line.loads if one.formed]
    places, bottom = list(range(len(shown))), [0.0] * len(shown)
    for size in sizes:
        heights = [one.formed.get(size, 0.0) for one in shown]
        axis.bar(places, heights, bottom=bottom, width=0.75, color=look[size], edgecolor="white", label=f"batch {size}")
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    for place, one in zip(places, shown, strict=True):
        if (mean := one.known("batch_mean")) is not None:
            axis.text(place, 1.02, f"{mean:.1f}", ha="center", va="bottom", fontsize=8)
    axis.set_ylim(0, 1.12)
    axis.set_xticks(places, [one.load for one in shown], rotation=30, ha="right", fontsize=8.5)
    axis.set_ylabel("share of executions")
    axis.set_title(f"{line.head.deployment}: {line.head.label}\n(above the bars: mean)", fontsize=9.5)
