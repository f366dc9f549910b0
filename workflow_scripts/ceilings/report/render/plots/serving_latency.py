"""What a request waits for behind a server, stacked from load to load: a panel a cell and deployment."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ceilings.report import text
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.served import Line, Served, ServedLoads
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.served_quantities import PARTS

TITLE = "What a request waits for behind a server (means; dot: median at the client, 95% interval)"

COLUMNS = 3
WIDTH = 0.7
MOST_PANELS = 18

FILLS = {
    "beyond_ms": ("#56B4E9", ""),
    "queue_ms": ("#D55E00", "///"),
    "input_ms": ("#E69F00", "..."),
    "infer_ms": ("#009E73", ""),
    "output_ms": ("#CC79A7", "xx"),
    "rest_ms": ("0.7", ""),
}
"""Colour and hatch of each part: distinct in grey too."""

UNKNOWN = ("0.88", "")
"""Of a request whose server counts none of its parts."""


@style.settled
def draw(tables: Tables) -> Figure:
    """Bars: parts of the client's mean, and a line at the bare runtime's mean at the sizes executed.

    Loads whose queue grew are named, and not drawn: they have no latency.
    """
    loads = ServedLoads(Measured(tables))
    lines = [line for line in loads.lines if any(one.settled for one in line.loads)][:MOST_PANELS]
    if not lines:
        return style.nothing("What a request waits for behind a server", "no deployment was measured in a steady state")
    columns = min(COLUMNS, len(lines))
    rows = -(-len(lines) // columns)
    figure, axes = style.panels(rows, columns, 3.3, TITLE)
    flat = [axis for row in axes for axis in row]
    for axis, line in zip(flat, lines, strict=False):
        _draw(axis, line, loads)
    for axis in flat[len(lines) :]:
        axis.set_visible(False)
    style.legend(figure, flat[: len(lines)], columns=7)
    return figure


def _draw(axis: Axes, line: Line, loads: ServedLoads) -> None:
    shown = [one for one in line.loads if one.settled]
    places = list(range(len(shown)))
    bottom = [0.0] * len(shown)
    for part in PARTS:
        heights = [max(one.known(part.column) or 0.0, 0.0) for one in shown]
        if any(heights):
            _bars(axis, heights, bottom, FILLS[part.column], part.label)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    whole = [one.known("client_ms") or 0.0 for one in shown]
    left = [0.0 if low else height for low, height in zip(bottom, whole, strict=True)]
    if any(left):
        _bars(axis, left, bottom, UNKNOWN, "whole request, not split by the server")
    medians = [one.p50 for one in shown]
    estimates = [median.estimate for median in medians]
    top = max([*whole, *estimates]) * 1.15
    axis.errorbar(
        *(places, estimates),
        yerr=style.error(medians),
        fmt="o",
        color="black",
        markersize=4,
        capsize=3,
        label="median at the client",
    )
    bare = [(place, value) for place, one in enumerate(shown) if (value := one.known("bare_ms")) is not None]
    if bare:
        left_ends, right_ends = ([place + side for place, _ in bare] for side in (-WIDTH / 2, WIDTH / 2))
        look: dict[str, Any] = {
            "color": "black",
            "linewidth": 1.2,
            "linestyle": "--",
            "label": "bare runtime at the batches formed",
        }
        axis.hlines([value for _, value in bare], left_ends, right_ends, **look)
    axis.set_ylim(0, top)  # two servers that differ have an interval beside which the bars would be invisible
    axis.set_xticks(places, [_tick(one) for one in shown], rotation=30, ha="right", fontsize=8.5)
    axis.set_ylabel("latency (ms)")
    axis.set_title(_title(line, loads), fontsize=9.5)
    grow = [one.load for one in line.loads if one.overloaded]
    short = [one.load for one in line.loads if one.short]
    gone = [
        f"{words} {text.listed(loads)}"
        for words, loads in (("queue grows at", grow), ("windows too short at", short))
        if loads
    ]
    if gone:
        axis.text(
            *(0.02, 0.97),
            "\n".join(gone),
            transform=axis.transAxes,
            va="top",
            fontsize=8,
            color="0.3",
        )


def _bars(axis: Axes, heights: list[float], bottom: list[float], fill: tuple[str, str], label: str) -> None:
    colour, hatch = fill
    places = range(len(heights))
    look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
    axis.bar(places, heights, bottom=bottom, width=WIDTH, label=label, **look)


def _tick(one: Served) -> str:
    return f"{one.load}{' *' if one.row['flagged'] else ''}"


def _title(line: Line, loads: ServedLoads) -> str:
    head = line.head
    several = len({(other.head.device, other.head.model) for other in loads.lines}) > 1
    first = f"{head.deployment}: {head.label}"
    words = [f"{head.model} on {head.device}"] if several else []
    flagged = any(one.row["flagged"] for one in line.loads)
    words += ["*: disturbed"] if flagged else []
    return "\n".join([first, *([", ".join(words)] if words else [])])
