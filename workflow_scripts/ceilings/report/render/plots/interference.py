"""The interference matrix: how many times as long a request takes beside a neighbour as alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables

MOST_PANELS = 6

WIDEST = 1.25
"""The colours span at least this factor to either side of 1: below it, noise would look like a cost."""

SLANTED: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
"""Of the names below more than two fields, which have no room beside each other."""

NARROW = 4
"""From so many columns on an interval is as wide as a field in larger letters."""

SHARING = ["device", "how", "cores"]


@style.settled
def draw(tables: Tables) -> Figure:
    """A panel a way to share a device; a field for each pair of cells that were at work at once in it.

    A pair that several groups hold is shown as the first of them has it.
    """
    pairs = tables.interference
    if pairs.empty:
        return style.nothing("Interference", "no co-location was measured")
    panels = list(pairs.groupby(SHARING, sort=False))[:MOST_PANELS]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = 2.2 + 0.55 * max(len(_cells(members)) for _, members in panels)
    figure, axes = style.panels(
        rows, columns, height, "Interference: time of a request beside a neighbour, over that alone"
    )
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(panels) :]:
        axis.remove()
    drawn = pd.concat([members for _, members in panels])
    reach = max(WIDEST, *(max(ratio, 1 / ratio) for ratio in drawn["slowdown"]))
    image = None
    for axis, ((device, how, cores), members) in zip(flat, panels, strict=False):
        cells = _cells(members)
        place = {name: index for index, name in enumerate(cells)}
        field = np.full((len(cells), len(cells)), np.nan)
        for row in members.drop_duplicates(["slowed", "neighbour"]).to_dict("records"):
            at = place[row["slowed"]], place[row["neighbour"]]
            field[at] = row["slowdown"]
            dark = abs(np.log(row["slowdown"])) > 0.6 * np.log(reach)
            color = "white" if dark else "black"
            size = 8 if len(cells) < NARROW else 7
            axis.text(*at[::-1], _shown(row), ha="center", va="center", fontsize=size, color=color)
        image = axis.imshow(field, cmap="PuOr_r", norm=LogNorm(1 / reach, reach), aspect="auto")
        axis.set_facecolor("0.9")  # of fields whose cells were never at work at once
        for slowed, neighbour in np.argwhere(np.isnan(field)):
            axis.text(neighbour, slowed, "not\nmeasured", ha="center", va="center", fontsize=7, color="0.4")
        axis.grid(visible=False)
        labels = [_label(cell) for cell in cells]
        axis.set_xticks(range(len(cells)), labels, fontsize=7, **(SLANTED if len(cells) > 2 else {}))
        axis.set_yticks(range(len(cells)), labels, fontsize=7)
        axis.set_xlabel("neighbour")
        axis.set_ylabel("slowed")
        apart = ", cores split" if cores == "split" else ""
        axis.set_title(f"{text.SHARED_AS[how]}{apart}\non {device}", fontsize=9)
    assert image is not None
    bar = figure.colorbar(
        image, ax=flat[: len(panels)], shrink=0.7, format=FuncFormatter(lambda value, _: text.number(value))
    )
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_ticks([1 / reach, reach**-0.5, 1, reach**0.5, reach])
    bar.set_label("times as long as alone (log scale)")
    return figure


def _cells(members: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys([*members["slowed"], *members["neighbour"]]))


def _label(cell: str) -> str:
    runtime, model, precision, shape = cell.split("/")
    return f"{model} {shape}\n{configuration_label(runtime, precision)}"


def _shown(row: dict[str, object]) -> str:
    """The slowdown with its interval."""
    low, high = row["slowdown_low"], row["slowdown_high"]
    value = text.number(float(str(row["slowdown"])))
    if pd.isna(low) or pd.isna(high):
        return f"{value}×"
    return f"{value}×\n[{text.number(float(str(low)))}, {text.number(float(str(high)))}]"
