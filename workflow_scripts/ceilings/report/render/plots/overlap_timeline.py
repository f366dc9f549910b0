"""Some requests of each captured schedule: copies in, compute and copies out, on the streams that they run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import KEY
from ceilings.report.tables.overlap_rows import read_hidden
from ceilings.traces.hidden_copies import COMPUTE, COPY_IN, COPY_OUT, SHOWN

MOST_CELLS = 2
"""Cells that are drawn: those whose three streams gain most. A timeline says little of the others."""

LOOKS: dict[str, dict[str, Any]] = {
    COPY_IN: {"facecolor": "#56B4E9", "label": "copies in"},
    COMPUTE: {"facecolor": "#E69F00", "label": "kernels"},
    COPY_OUT: {"facecolor": "#009E73", "label": "copies out"},
}

SHADES = (1.0, 0.55)
"""Opacity of even and of odd requests, so that a reader can distinguish neighbours."""

NS_PER_MS = 1e6
HEIGHT = 0.8

FINEST = 1 / 800
"""Of a timeline: gaps between pieces of one request that are shorter show as none on paper, and are drawn as none."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A panel a schedule, all of a cell to one scale of time; a row a stream; numbers count requests."""
    rows = tables.overlap[tables.overlap["hidden"].notna()]
    if rows.empty:
        return style.nothing("Copies beside compute", "no captured schedule was measured")
    chosen = [panel for cell in _cells(rows) for panel in cell]
    figure, axes = style.panels(
        len(chosen),
        1,
        1.15,
        f"While {SHOWN} requests are computed, in a capture: what runs on which stream (numbers: requests)",
    )
    for (axis,), (row, account, longest) in zip(axes, chosen, strict=True):
        _panel(axis, account["timeline"], longest)
        hidden = (
            "" if text.absent(row["hidden_share"]) else f": {text.percent(row['hidden_share'])} of copy time hidden"
        )
        axis.set_title(
            f"{configuration_label(row['runtime'], row['precision'])}, {row['model']} {row['shape']}, "
            f"{row['schedule']}{hidden}",
            fontsize=9,
        )
    axes[-1][0].set_xlabel("time (ms), as traced; all schedules of a cell to one scale")
    handles = [Patch(edgecolor="0.25", linewidth=0.5, **look) for look in LOOKS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _cells(rows: pd.DataFrame) -> list[list[tuple[Mapping[str, Any], Mapping[str, Any], float]]]:
    """Of each cell that is drawn its schedules: the row, the account, and the longest timeline of the cell in ms."""
    cells = []
    for _, members in rows.groupby(KEY, sort=False):
        mine = members.to_dict("records")
        accounts = {one["name"]: one for one in read_hidden(mine[0]["hidden"], mine[0])["schedules"]}
        longest = max(piece[4] for one in accounts.values() for piece in one["timeline"]) / NS_PER_MS
        gain = max((row["gain"] for row in mine if not text.absent(row["gain"])), default=0.0)
        panels = [(row, accounts[row["schedule"]], longest) for row in mine if row["schedule"] in accounts]
        cells.append((gain, panels))
    cells.sort(key=lambda one: -one[0])
    return [panels for _, panels in cells[:MOST_CELLS]]


def joined(pieces: Sequence[Sequence[Any]], gap: float) -> list[list[Any]]:
    """Pieces of one request, part and stream that lie no farther apart than ``gap``, as one piece.

    >>> joined([[0, "kernels", 7, 0, 4], [0, "kernels", 7, 5, 9], [0, "kernels", 7, 20, 30]], 2)
    [[0, 'kernels', 7, 0, 9], [0, 'kernels', 7, 20, 30]]
    """
    made: dict[tuple[Any, ...], list[list[Any]]] = {}
    for piece in sorted(pieces, key=lambda one: one[3]):
        mine = made.setdefault(tuple(piece[:3]), [])
        if mine and piece[3] - mine[-1][4] <= gap:
            mine[-1][4] = max(mine[-1][4], piece[4])
        else:
            mine.append(list(piece))
    return [piece for mine in made.values() for piece in mine]


def _panel(axis: Axes, pieces: Sequence[Sequence[Any]], longest: float) -> None:
    streams = sorted({piece[2] for piece in pieces})
    for request, part, stream, begin, end in joined(pieces, longest * NS_PER_MS * FINEST):
        row = streams.index(stream)
        span = (begin / NS_PER_MS, (end - begin) / NS_PER_MS)
        axis.broken_barh(
            [span],
            (row - HEIGHT / 2, HEIGHT),
            facecolor=LOOKS[part]["facecolor"],
            alpha=SHADES[request % 2],
            edgecolor="0.25",
            linewidth=0.4,
        )
        if part == COMPUTE and span[1] > longest / 40:
            axis.text(span[0] + span[1] / 2, row, str(request + 1), ha="center", va="center", fontsize=7)
    axis.set_yticks(range(len(streams)), [f"stream {number + 1}" for number in range(len(streams))], fontsize=7)
    axis.set_ylim(len(streams) - 0.4, -0.6)
    axis.set_xlim(0, longest)
    axis.grid(axis="y", visible=False)
