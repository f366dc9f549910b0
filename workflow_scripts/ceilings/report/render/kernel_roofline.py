"""The hierarchical roofline of one cell: each kernel at each level of the memory, and what limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from ceilings import foreign
from ceilings.report import text
from ceilings.report.render.plots import style
from ceilings.report.tables.kernel_groups import Group, groups
from ceilings.taxonomy import MEMORY_LEVELS

LEVEL_LOOKS: dict[str, dict[str, Any]] = {
    "dram": {"marker": "o", "linestyle": "-", "label": "DRAM"},
    "l2": {"marker": "s", "linestyle": "--", "label": "L2"},
    "shared": {"marker": "^", "linestyle": ":", "label": "shared memory"},
}
VERDICT_COLOURS = {
    "memory-limited": "#0072B2",
    "compute-limited": "#D55E00",
    "wave-limited": "#009E73",
    "occupancy-limited": "#CC79A7",
    "latency-limited": "#E69F00",
    "undecided": "0.55",
}

SHOWN = 12
"""Kernels with a separate bar; the others share one line of text."""


@style.settled
def draw(record: Mapping[str, Any]) -> Figure:
    """Above, operations a second against operations a byte; below, the time of the kernels by what limits them."""
    name = "/".join(record["cell"][key] for key in ("runtime", "model", "precision", "shape"))
    if record["status"] != "ok":
        return style.nothing(f"Kernels of {name}", foreign.one_line(record["failure"]["message"]))
    every = groups(record)
    shown = every[:SHOWN]
    figure = Figure(figsize=(style.WIDTH_INCHES, 6.6 + 0.42 * len(shown)), layout="constrained")
    figure.suptitle(f"Kernels of {name} by hardware counters", x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    upper, lower = figure.subplots(2, 1, height_ratios=[5.2, 0.9 + 0.42 * len(shown)])
    _roofline(upper, every, record["ceilings"])
    _bars(lower, shown, every[SHOWN:])
    handles = [
        Line2D([], [], color="0.3", markersize=6, **{**look, "linestyle": "none"}) for look in LEVEL_LOOKS.values()
    ]
    occurring = [verdict for verdict in VERDICT_COLOURS if any(group.verdict == verdict for group in every)]
    patches = [Patch(color=VERDICT_COLOURS[verdict], label=verdict) for verdict in occurring]
    figure.legend(handles=[*handles, *patches], loc="outside lower center", ncols=5, fontsize=9)
    return figure


def _roofline(axis: Axes, every: Sequence[Group], ceilings: Mapping[str, Any]) -> None:
    """One marker a kernel and level, its area by the time it takes; the ceilings behind."""
    axis.set_title("Rates below the ceilings: products, DRAM and L2 as measured, shared memory by design")
    axis.set_xlabel("operations per byte that the level moves (log scale)")
    axis.set_ylabel("rate (TFLOP/s, log scale)")
    places = []
    for group in every:
        if not group.operations or not group.duration_ns:
            continue
        rate = group.operations / group.duration_ns / 1e3
        moved = {level: amount for level in MEMORY_LEVELS if (amount := group.bytes(level))}
        points = [(group.operations / amount, level) for level, amount in moved.items()]
        colour = VERDICT_COLOURS[group.verdict]
        axis.plot([x for x, _ in points], [rate] * len(points), color=colour, linewidth=0.7, alpha=0.6)
        for x, level in points:
            look = LEVEL_LOOKS[level]
            axis.scatter(x, rate, 18 + 400 * group.share, marker=look["marker"], facecolor="none", edgecolor=colour)
            places.append((x, rate))
    if not places:
        axis.text(0.5, 0.5, "no kernel has counted operations", ha="center", va="center", transform=axis.transAxes)
        return
    left, right = min(x for x, _ in places) / 2, max(x for x, _ in places) * 4
    rates = {kind: value / 1e12 for kind, value in ceilings["operations_per_s"].items() if value}
    low = min(y for _, y in places) / 3
    high = max([*(y for _, y in places), *rates.values()]) * 2
    for kind, rate in rates.items():
        axis.axhline(rate, color="0.55", linewidth=0.8, linestyle=style.LINES.get(kind, "-"), zorder=1)
        label = f"{kind} {text.number(rate)} TFLOP/s"
        axis.annotate(label, (right, rate), xytext=(-2, 2), textcoords="offset points", ha="right", fontsize=8.5)
    span = np.array([left, right])
    for level, bandwidth in ceilings["bytes_per_s"].items():
        if not bandwidth:
            continue
        line = LEVEL_LOOKS[level]["linestyle"]
        axis.plot(span, span * bandwidth / 1e12, color="0.35", linewidth=1.0, linestyle=line, zorder=1)
        # Where the diagonal enters the picture, at its left or its lower edge.
        at = max(left, low * 1e12 / bandwidth) * 1.1
        axis.annotate(
            f"{LEVEL_LOOKS[level]['label']} {text.number(bandwidth / 1e12)} TB/s",
            (at, at * bandwidth / 1e12),
            xytext=(2, -3),
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axis.set_xlim(left, right)
    axis.set_ylim(low, high)
    style.plain_log(axis, "x")
    style.plain_log(axis, "y")


def _bars(axis: Axes, shown: Sequence[Group], others: Sequence[Group]) -> None:
    """The kernels that take longest: their time, what limits them and why."""
    for y, group in enumerate(shown):
        kernel = group.first
        axis.barh(y, group.duration_ns / 1e3, 0.6, color=VERDICT_COLOURS[group.verdict])
        axis.annotate(
            f"{text.percent(group.share)}, {kernel['why']}",
            (group.duration_ns / 1e3, y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    labels = [f"{len(group.launches)}× {foreign.one_line(group.first['short'], 36)}" for group in shown]
    axis.set_yticks(range(len(shown)), labels, fontsize=8.5)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlim(0, 1.9 * max((group.duration_ns for group in shown), default=1) / 1e3)
    axis.grid(axis="y", visible=False)
    rest = f"; {len(others)} others take {text.percent(sum(one.share for one in others))}" if others else ""
    axis.set_title(f"Time of one iteration's kernels, each alone on the device{rest}")
    axis.set_xlabel("time under the profiler (µs)")
