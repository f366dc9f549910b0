"""Requests answered a second against the tail of their latency: a panel a device and model, a line a deployment."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.analysis.served import Line, Served, ServedLoads, tail_of
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.statistics.quantiles import Interval

TITLE = "Requests answered a second against latency at the client, from load to load"
NOTE = "line: closed loops by clients; hollow: open loops by rate; *: disturbed; up and left is better"

LINES = ["-", (0, (4, 2)), (0, (1, 1)), "-."]


@style.settled
def draw(tables: Tables) -> Figure:
    """p99 where every load of the panel has requests enough for one, else the highest percentile that all have."""
    loads = ServedLoads(Measured(tables))
    panels = group_by(loads.lines, lambda line: (line.head.device, line.head.model))
    panels = {key: lines for key, lines in panels.items() if any(_shown(line) for line in lines)}
    if not panels:
        return style.nothing("Requests a second against latency", "no deployment was measured in a steady state")
    figure, axes = style.panels(len(panels), 1, 5.2, f"{TITLE}\n({NOTE})")
    for (axis,), ((device, model), lines) in zip(axes, panels.items(), strict=True):
        _draw(axis, lines)
        axis.set_title(f"{model} on {device}")
    style.legend(figure, [axis for row in axes for axis in row], columns=2)
    return figure


def _shown(line: Line) -> list[Served]:
    """Loads with a latency."""
    return [one for one in line.loads if one.settled]


def _draw(axis: Axes, lines: list[Line]) -> None:
    every = [one for line in lines for one in _shown(line)]
    column, name = tail_of(every)
    deployments = list(dict.fromkeys(line.head.deployment for line in lines))
    cells = list(dict.fromkeys(line.head.cell for line in lines))
    for line in lines:
        look: dict[str, Any] = {
            "color": style.COLOURS[deployments.index(line.head.deployment) % len(style.COLOURS)],
            "marker": style.MARKERS[cells.index(line.head.cell) % len(style.MARKERS)],
        }
        label = f"{line.head.label} behind {line.head.deployment}"
        closed = [one for one in _shown(line) if one.closed]
        opened = [one for one in _shown(line) if not one.closed]
        style_of = LINES[cells.index(line.head.cell) % len(LINES)]
        if closed:
            _points(axis, closed, column, look | {"linestyle": style_of, "label": label})
        if opened:
            more = {} if closed else {"label": label}
            _points(axis, opened, column, look | {"linestyle": "none", "markerfacecolor": "white"} | more)
        for one in [*closed, *opened]:
            place = (one.interval(column).estimate, one.throughput.estimate)
            words = f"{one.clients if one.closed else ''}{' *' if one.row['flagged'] else ''}"
            axis.annotate(words, place, textcoords="offset points", xytext=(5, -9), fontsize=7.5)
    axis.set_xlabel(f"{name} at the client (ms, log scale); numbers: clients")
    axis.set_ylabel("requests answered a second")
    axis.set_ylim(bottom=0)
    estimates = [one.interval(column).estimate for one in every]
    axis.set_xlim(min(estimates) / 1.3, max(estimates) * 1.4)
    style.plain_log(axis, "x")


def _points(axis: Axes, loads: list[Served], column: str, look: dict[str, Any]) -> None:
    latencies, rates = [one.interval(column) for one in loads], [one.throughput for one in loads]
    axis.errorbar(
        [one.estimate for one in latencies],
        [one.estimate for one in rates],
        xerr=_bars(latencies),
        yerr=_bars(rates),
        elinewidth=0.8,
        **look,
    )


def _bars(intervals: list[Interval]) -> list[list[float]] | None:
    """Error bars, unless one goes on far beyond the estimates: then they say less than they hide."""
    if any(one.high > style.REACH * one.estimate or one.low < one.estimate / style.REACH for one in intervals):
        return None
    return style.error(intervals)
