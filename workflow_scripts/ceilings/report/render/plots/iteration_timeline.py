"""One iteration of each captured cell: what the host did, what that launched, what the device did."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ceilings.report.analysis.measured import Measured, configuration_label, group_by
from ceilings.report.render.budget_sentences import count
from ceilings.report.render.plots import parts, style
from ceilings.report.tables.budget_rows import read_budget
from ceilings.report.tables.frames import Tables, in_order

MOST = 12
"""Cells shown, those at the common shape before others; the rest can be opened in Perfetto."""

ENLARGED = 1.5
"""An iteration is drawn a second time, enlarged, where there is room for at least this factor beside it."""

GAP = 0.03
"""Between the two, of the panel's width."""

HOST, DEVICE, HEIGHT = 0.0, 1.6, 0.8
TOP, BOTTOM = HOST - 0.6, DEVICE + 0.6
NS_PER_US = 1e3


@style.settled
def draw(tables: Tables) -> Figure:
    """A panel a cell: a host row, a line from each launch to what it started, a row of the device."""
    if tables.budgets.empty:
        return style.nothing("Timeline of an iteration", "no cell was measured with a recorder")
    rows = chosen(tables)
    figure, axes = style.panels(
        len(rows), 1, 1.6, "One traced iteration of median length: host calls, launches (lines), work of the device"
    )
    timelines = [read_budget(row["path"], row)["timeline"] for row in rows]
    seen: dict[str, dict[str, Any]] = {}
    panel = itemgetter(*parts.PANEL)
    for same in group_by(zip(axes, rows, timelines, strict=True), lambda entry: panel(entry[1])).values():
        longest = max(timeline["length"] for _, _, timeline in same) / NS_PER_US
        for (axis,), row, timeline in same:
            _panel(axis, timeline, longest, seen)
            launches, kernels = row["launches"], row["kernels"]
            axis.set_title(
                f"{configuration_label(row['runtime'], row['precision'])}, {row['model']} "
                f"{row['shape']} on {row['device']}\n"
                f"{count(launches)} launch{'' if launches == 1 else 'es'}, "
                f"{count(kernels)} kernel{'' if kernels == 1 else 's'}, {row['verdict']}"
            )
    label = (
        "time from the iteration's start (µs); all iterations of a shape to one scale, short ones enlarged beside it"
    )
    if len(rows) < len(tables.budgets):
        label += (
            f"\n{len(rows)} of {len(tables.budgets)} captured cells; the others open in Perfetto: "
            "results/traces/**/*.perfetto.json"
        )
    axes[-1][0].set_xlabel(label)
    handles = [Patch(**look, **parts.EDGE) for look in seen.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9, handlelength=2.6, handleheight=1.3)
    return figure


def chosen(tables: Tables) -> list[dict[str, Any]]:
    """Rows of the budgets table that are shown, in the order of all pictures of captures."""
    ordered, shapes = in_order(tables.budgets), Measured(tables).common_shapes
    places = zip(ordered["device"], ordered["model"], ordered["shape"], strict=True)
    common = pd.Series([shape == str(shapes.get((device, model))) for device, model, shape in places], ordered.index)
    first = pd.concat([ordered[common], ordered[~common]]).head(MOST)
    return in_order(first).to_dict("records")


def _panel(axis: Axes, timeline: dict[str, Any], longest: float, seen: dict[str, dict[str, Any]]) -> None:
    length = timeline["length"] / NS_PER_US
    _iteration(axis, timeline, seen)
    axis.set_xlim(0, longest)
    axis.set_yticks([HOST, DEVICE], ["host", "device"])
    left = length + GAP * longest
    factor = (longest - left) / length
    if factor < ENLARGED:
        return
    axis.set_xticks([length])
    axis.get_xticklabels()[0].set_horizontalalignment("right")  # clear of the other scale's 0
    axis.spines["bottom"].set_bounds(0, length)
    axis.add_patch(Rectangle((length, TOP), left - length, BOTTOM - TOP, facecolor="0.92", zorder=0))
    axis.text(
        (length + left) / 2,
        (TOP + BOTTOM) / 2,
        f"enlarged {factor:.1f}×",
        rotation=90,
        ha="center",
        va="center",
        fontsize=7.5,
    )
    beside = axis.inset_axes((left / longest, 0, 1 - left / longest, 1))
    _iteration(beside, timeline, seen)
    beside.set_xlim(0, length)
    beside.spines["left"].set_visible(False)
    beside.set_yticks([])


def _iteration(axis: Axes, timeline: dict[str, Any], seen: dict[str, dict[str, Any]]) -> None:
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
    axis.set_ylim(BOTTOM, TOP)
    axis.grid(axis="y", visible=False)
    axis.xaxis.set_major_formatter("{x:,.0f}")


def _row(axis: Axes, y: float, spans: list[list[int]], look: dict[str, Any], length: float) -> None:
    shown = {name: value for name, value in look.items() if name != "label"}
    cut = [(max(begin / NS_PER_US, 0), min(end / NS_PER_US, length)) for begin, end in spans]
    bars = [(begin, end - begin) for begin, end in cut if end > begin]
    axis.broken_barh(bars, (y - HEIGHT / 2, HEIGHT), edgecolor="0.25", linewidth=0.3, **shown)
