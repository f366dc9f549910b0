"""One iteration of each captured cell: what the host did, what that launched, what the device did."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ceilings.report.budgets import read_budget
from ceilings.report.measured import configuration_label
from ceilings.report.plots import parts, style
from ceilings.report.tables import Tables
from ceilings.report.where import count

MOST = 8
"""Cells shown, the ones with the longest iterations; the others can be opened in Perfetto."""

HOST, DEVICE, HEIGHT = 0.0, 1.6, 0.8
NS_PER_US = 1e3


@style.settled
def draw(tables: Tables) -> Figure:
    """A panel a cell: a host row, a line from each launch to what it started, a row of the device."""
    budgets = tables.budgets
    if budgets.empty:
        return style.nothing("Timeline of an iteration", "no cell was measured with a recorder")
    rows = budgets.sort_values("iteration_ms", ascending=False).head(MOST).to_dict("records")
    figure, axes = style.panels(
        len(rows), 1, 1.55, "One iteration of median length: host calls, launches (lines), work of the device"
    )
    seen: dict[str, dict[str, Any]] = {}
    for (axis,), row in zip(axes, rows, strict=True):
        _panel(axis, read_budget(row["path"], row)["timeline"], seen)
        label = configuration_label(row["runtime"], row["precision"])
        axis.set_title(
            f"{label}, {row['model']} b{row['batch']}-s{row['sequence']} on {row['device']}: "
            f"{count(row['launches'])} launches, {count(row['kernels'])} kernels, {row['verdict']}"
        )
    axes[-1][0].set_xlabel("time from the iteration's start (µs, each panel on its own scale)")
    handles = [Patch(**look, **parts.EDGE) for look in seen.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9, handlelength=2.6, handleheight=1.3)
    return figure


def _panel(axis: Axes, timeline: dict[str, Any], seen: dict[str, dict[str, Any]]) -> None:
    length = timeline["length"] / NS_PER_US
    axis.plot([0, length], [HOST, HOST], color=parts.HOST_LOOKS["framework"]["facecolor"], linewidth=2.5, zorder=1)
    seen["framework"] = parts.HOST_LOOKS["framework"]
    for kind, look in parts.HOST_LOOKS.items():
        spans = [call[:2] for call in timeline["calls"] if call[2] == kind]
        _row(axis, HOST, spans, look, length)
        if spans:
            seen[kind] = look
    for kind, look in parts.CLASS_LOOKS.items():
        spans = [operation[:2] for operation in timeline["operations"] if operation[2] == kind]
        _row(axis, DEVICE, spans, look, length)
        if spans:
            seen[f"device {kind}"] = look
    arrows = {
        (operation[4], min(other[0] for other in timeline["operations"] if other[4] == operation[4]))
        for operation in timeline["operations"]
        if operation[4] is not None
    }
    edges = HOST + HEIGHT / 2, DEVICE - HEIGHT / 2
    lines = [
        [(begin / NS_PER_US, edges[0]), (start / NS_PER_US, edges[1])] for begin, start in sorted(arrows) if begin >= 0
    ]
    axis.add_collection(LineCollection(lines, colors="0.35", linewidths=0.6))
    axis.set_xlim(0, length)
    axis.set_ylim(DEVICE + 0.6, HOST - 0.6)
    axis.set_yticks([HOST, DEVICE], ["host", "device"])
    axis.grid(axis="y", visible=False)


def _row(axis: Axes, y: float, spans: list[list[int]], look: dict[str, Any], length: float) -> None:
    shown = {name: value for name, value in look.items() if name != "label"}
    cut = [(max(begin / NS_PER_US, 0), min(end / NS_PER_US, length)) for begin, end in spans]
    bars = [(begin, end - begin) for begin, end in cut if end > begin]
    axis.broken_barh(bars, (y - HEIGHT / 2, HEIGHT), edgecolor="0.25", linewidth=0.3, **shown)
