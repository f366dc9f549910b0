"""Expected latency over the number of buckets that requests are padded up to, with what was measured of the choice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETUP

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.render.plots import style
from ceilings.report.tables.changing_rows import CHANGING_KEY
from ceilings.report.tables.frames import Tables

MOST_PANELS = 8

PREDICTED, MEASURED, UNPADDED, SEQUENCE = style.COLOURS[0], style.COLOURS[1], style.GREY, style.COLOURS[2]

BESIDE = 0.08
"""Between what lies at one number of buckets, so that nothing hides the next."""

LOW = 0.3
"""Of the axis, the share below which a name stands above its point."""

MOST_NAMED = 3
"""Buckets of a choice up to which its label has all of them."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A row a cell: on the left the mean latency of a request, on the right the memory that the buckets add."""
    points = tables.changing_buckets
    if points.empty:
        return style.nothing("Latency over the number of buckets", "no cell was measured with its requests padded")
    rows = {tuple(row[name] for name in CHANGING_KEY): row for row in tables.changing.to_dict("records")}
    groups = [(key, members.sort_values("buckets")) for key, members in points.groupby(CHANGING_KEY, sort=False)]
    groups = groups[:MOST_PANELS]
    figure, axes = style.panels(
        *(len(groups), 2, 2.7, "Padded to buckets: mean latency of a request, and memory, over the buckets allowed"),
        width_ratios=(5, 3),
    )
    for (key, members), (left, right) in zip(groups, axes, strict=True):
        _latency(left, members, rows[key])
        _memory(right, members)
        device, runtime, model, precision, sequence = key
        left.set_title(f"{configuration_label(runtime, precision)}, {model}, {sequence}\non {device}", fontsize=9)
        for axis in (left, right):
            axis.set_xlim(members["buckets"].min() - 0.5, members["buckets"].max() + 0.5)
            axis.set_xticks(members["buckets"].to_list())
            axis.set_xlabel("buckets at most")
    style.legend(figure, [left for left, _ in axes], columns=2)
    return figure


def _latency(axis: Axes, members: pd.DataFrame, row: dict[str, Any]) -> None:
    axis.plot(
        members["buckets"], members["predicted_ms"], color=PREDICTED, marker="o", label="steady, padded: predicted"
    )
    chosen = row["buckets"]
    if pd.notna(row["padded_steady_ms"]):
        at, middle = chosen + BESIDE, row["padded_steady_ms"]
        ends = row["padded_steady_low_ms"], row["padded_steady_high_ms"]
        error = [[middle - ends[0]], [ends[1] - middle]] if pd.notna(ends[0]) else None
        look: dict[str, Any] = {"color": MEASURED, "marker": "s", "linestyle": "none", "capsize": 3}
        axis.errorbar([at], [middle], yerr=error, label="steady, padded to the choice: measured (95%)", **look)
        look = {"color": SEQUENCE, "marker": "D", "linestyle": "none"}
        axis.plot([chosen + 2 * BESIDE], [row["padded_ms"]], label="in the sequence, padded to the choice", **look)
    unpadded = row["steady_ms"] if pd.isna(row["unpadded_ms"]) else row["unpadded_ms"]
    axis.axhline(unpadded, color=UNPADDED, linestyle=":", label="steady, not padded")
    axis.axhline(row["sequence_ms"], color=UNPADDED, linestyle="--", label="in the sequence, not padded")
    seen = [row[name] for name in ("sequence_ms", "padded_steady_ms", "padded_ms") if pd.notna(row[name])]
    highest = style.REACH * max(unpadded, *seen, members["predicted_ms"].max())
    top = 1.12 * min(axis.get_ylim()[1], highest)  # an interval of decades would hide all else
    axis.set_ylim(0, top)
    if pd.notna(row["padded_steady_high_ms"]) and row["padded_steady_high_ms"] > top:
        look = {"color": MEASURED, "marker": CARETUP, "markersize": 8, "linestyle": "none"}
        axis.plot([chosen + BESIDE], [top], label="the interval goes on", **look)
    for point in members.to_dict("records"):
        if point["shapes"]:
            _name(axis, point, str(point["shapes"]).split(";"), top)
    axis.set_ylabel("mean latency (ms)")


def _name(axis: Axes, point: Mapping[Hashable, Any], shapes: list[str], top: float) -> None:
    """The buckets beside their point, where nothing else is drawn; of many the number alone says enough."""
    if len(shapes) <= MOST_NAMED:
        x, y = point["buckets"], point["predicted_ms"]
        low = y < LOW * top  # below it there is no room
        beside, side = (7, "left") if low and not point["chosen"] else (-7, "right")
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
        look: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": "0.3", "bbox": box}
        axis.annotate(
            "\n".join(shapes), (x, y), (beside, 5 if low else -4), ha=side, va="bottom" if low else "top", **look
        )


def _memory(axis: Axes, members: pd.DataFrame) -> None:
    known = members[members["memory_mb"].notna()]
    colours = [MEASURED if chosen else style.GREY for chosen in known["chosen"]]
    bars = axis.bar(known["buckets"], known["memory_mb"], width=0.5, color=colours)
    axis.bar_label(bars, [text.number(value) for value in known["memory_mb"]], fontsize=8, padding=2)
    axis.set_ylim(0, max(1.0, known["memory_mb"].max() if len(known) else 0.0) * 1.2)
    axis.set_ylabel("memory added (MB)")
    axis.set_title("in colour: the choice", fontsize=9)
