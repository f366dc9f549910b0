"""The transition matrix: latency of a shape by the shape before it, over the shape's steady latency."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.render.plots import style
from ceilings.report.tables.changing_rows import CHANGING_KEY
from ceilings.report.tables.frames import Tables
from ceilings.workload.shape import Shape

MOST_PANELS = 8
MOST_NUMBERS = 8
"""Shapes up to which each field has its number."""

TICKS = (1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Of the colours; the three largest that occur, and their inverses."""

WIDEST = 1.25
"""The colours span at least this factor to either side of 1: below it, noise would look like a cost."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A field a pair of shapes, a panel a cell; the cells with the largest tax where there are many."""
    pairs = tables.transitions
    if pairs.empty:
        return style.nothing("Shape transitions", "no cell of changing shapes was measured")
    order = tables.changing[tables.changing["status"] == "ok"].sort_values("tax", ascending=False)
    keys = [tuple(row) for row in order[CHANGING_KEY].itertuples(index=False)]
    several = [key for key in keys if len(_shapes(_of(pairs, key))) > 1][:MOST_PANELS]
    if not several:
        return style.nothing("Shape transitions", "every sequence has one shape only")
    columns = min(2, len(several))
    rows = -(-len(several) // columns)
    figure, axes = style.panels(
        *(rows, columns, 3.9),
        "Latency by the shape before, over its steady latency; n: requests; blank: none",
    )
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(several) :]:
        axis.remove()
    reach = max(WIDEST, *(max(ratio, 1 / ratio) for key in several for ratio in _of(pairs, key)["ratio"]))
    image = None
    for axis, key in zip(flat, several, strict=False):
        members = _of(pairs, key)
        shapes = _shapes(members)
        place = {name: index for index, name in enumerate(shapes)}
        field = np.full((len(shapes), len(shapes)), np.nan)
        for row in members.to_dict("records"):
            field[place[row["previous"]], place[row["shape"]]] = row["ratio"]
        image = axis.imshow(field, cmap="PuOr_r", norm=LogNorm(1 / reach, reach), aspect="auto")
        axis.grid(visible=False)
        axis.set_xticks(range(len(shapes)), shapes, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(shapes)), shapes, fontsize=8)
        axis.set_xlabel("shape")
        axis.set_ylabel("shape before")
        device, runtime, model, precision, sequence = key
        axis.set_title(f"{configuration_label(runtime, precision)}, {model}, {sequence}\non {device}", fontsize=9)
        if len(shapes) <= MOST_NUMBERS:
            for row in members.to_dict("records"):
                dark = abs(np.log(row["ratio"])) > 0.6 * np.log(reach)
                look: dict[str, Any] = {"ha": "center", "va": "center", "color": "white" if dark else "black"}
                number = f"{text.number(row['ratio'])}\nn {row['count']}"
                axis.text(place[row["shape"]], place[row["previous"]], number, fontsize=7, **look)
    assert image is not None
    plain = FuncFormatter(lambda value, _: text.number(value))
    bar = figure.colorbar(image, ax=flat[: len(several)], shrink=0.6, format=plain)
    shown = [factor for factor in TICKS if factor <= reach][-3:]
    bar.set_ticks([*(1 / factor for factor in reversed(shown)), 1, *shown])
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("times the steady latency (log scale)")
    return figure


def _of(pairs: pd.DataFrame, key: tuple[str, ...]) -> pd.DataFrame:
    mask = np.ones(len(pairs), bool)
    for column, value in zip(CHANGING_KEY, key, strict=True):
        mask &= (pairs[column] == value).to_numpy()
    return pairs[mask]


def _shapes(members: pd.DataFrame) -> list[str]:
    return sorted({*members["previous"], *members["shape"]}, key=Shape.parse)
