"""Where the time of an iteration goes, runtimes side by side: the host's account above the device's."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.render.plots import parts, style
from ceilings.report.tables.frames import Tables, in_order
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES
from ceilings.workload.shape import Shape

HEIGHT = 0.36
"""Of a bar; a cell has two, and the distance to the next cell is 1."""

MARK = 2.2
"""Points, of the mark of the latency without tracing."""


@style.settled
def draw(tables: Tables) -> Figure:
    """Two stacked bars a captured cell, and a mark for its latency without tracing."""
    budgets = tables.budgets
    if budgets.empty:
        return style.nothing("Latency budget", "no cell was measured with a recorder")
    groups = list(in_order(budgets).groupby(parts.PANEL, observed=True, sort=False))
    most = max(len(members) for _, members in groups)
    figure, axes = style.panels(
        len(groups), 1, 1.6 + 0.75 * most, "Where an iteration's time goes: host above, device below (medians, traced)"
    )
    for (axis,), ((device, model, shape), members) in zip(axes, groups, strict=True):
        ranked = members.sort_values("iteration_ms")
        for y, row in enumerate(ranked.to_dict("records")):
            _bar(axis, y - HEIGHT / 2, [(row[f"host_{part}_ms"], parts.HOST_LOOKS[part]) for part in HOST_PARTS])
            device_parts = [(row[f"gpu_{kind}_ms"], parts.CLASS_LOOKS[kind]) for kind in KERNEL_CLASSES]
            device_parts += [(row[f"idle_{cause}_ms"], parts.IDLE_LOOKS[cause]) for cause in IDLE_CAUSES]
            _bar(axis, y + HEIGHT / 2, device_parts)
            if pd.notna(row["untraced_p50_ms"]):
                axis.plot([row["untraced_p50_ms"]] * 2, [y - HEIGHT, y + HEIGHT], color="black", linewidth=MARK)
            axis.annotate(
                f"{text.number(row['iteration_ms'])} ms, {row['verdict']}",
                (max(row["iteration_ms"], row["untraced_p50_ms"] or 0), y),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        labels = [configuration_label(row.runtime, row.precision) for row in ranked.itertuples()]
        axis.set_yticks(range(len(ranked)), labels)
        axis.set_ylim(len(ranked) - 0.45, -0.55)
        axis.set_xlim(0, 1.27 * max(ranked["iteration_ms"].max(), ranked["untraced_p50_ms"].max(skipna=True)))
        axis.grid(axis="y", visible=False)
        axis.set_title(f"{model} on {device}, {text.sizes(Shape.parse(shape))}")
    axes[-1][0].set_xlabel("time of one iteration (ms)")
    _legend(figure, budgets)
    return figure


def _bar(axis: Axes, y: float, lengths: list[tuple[float, dict[str, Any]]]) -> None:
    left = 0.0
    for length, look in lengths:
        if length > 0:
            shown = {name: value for name, value in look.items() if name != "label"}
            axis.barh(y, length, HEIGHT, left=left, **shown, **parts.EDGE)
            left += length


def _legend(figure: Figure, budgets: pd.DataFrame) -> None:
    """The parts that occur, and the mark."""
    looks = {
        **{f"host_{part}_ms": look for part, look in parts.HOST_LOOKS.items()},
        **{f"gpu_{kind}_ms": look for kind, look in parts.CLASS_LOOKS.items()},
        **{f"idle_{cause}_ms": look for cause, look in parts.IDLE_LOOKS.items()},
    }
    shown: list[Artist] = [Patch(**look, **parts.EDGE) for column, look in looks.items() if (budgets[column] > 0).any()]
    if budgets["untraced_p50_ms"].notna().any():
        mark = Line2D([], [], color="black", marker="|", markersize=13, markeredgewidth=MARK, linestyle="none")
        mark.set_label("median latency, not traced")
        shown.append(mark)
    figure.legend(handles=shown, loc="outside lower center", ncols=4, fontsize=9, handlelength=2.6, handleheight=1.3)
