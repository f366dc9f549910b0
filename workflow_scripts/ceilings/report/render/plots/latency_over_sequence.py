"""Latency over a sequence of changing shapes, request by request, from a cold start on."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from ceilings.report.analysis.measured import configuration_label
from ceilings.report.render.plots import style
from ceilings.report.tables.changing_rows import CHANGING_KEY
from ceilings.report.tables.frames import Tables
from ceilings.workload.shape import Shape

MOST_PANELS = 8

MOST_NAMED = 12
"""Shapes up to which a legend names them."""

MOST_REQUESTS = 120
"""Of a pass that are shown: more would be a smear."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A panel a cell: the pass from a cold start and the first warm one, a mark a request, filled where the shape is
    another one than before, a line for each shape's steady latency."""
    requests = tables.changing_requests
    if requests.empty:
        return style.nothing("Latency over the sequence", "no cell of changing shapes was measured")
    steady = {
        (*(row[name] for name in CHANGING_KEY), row["shape"]): row["steady_ms"]
        for row in tables.transitions.to_dict("records")  # medians, beside which a single request may be held
    }
    groups = list(requests.groupby(CHANGING_KEY, sort=False))[:MOST_PANELS]
    figure, axes = style.panels(
        len(groups),
        2,
        2.9,
        "Latency of each request; filled: another shape than before; dotted: the shape's steady median",
        sharey="row",
    )
    for (key, members), (cold, warm) in zip(groups, axes, strict=True):
        shapes = sorted(members["shape"].unique(), key=Shape.parse)
        for axis, part, name in ((cold, 0, "from a cold start"), (warm, 1, "warm")):
            chosen = members[(members["part"] == part) & (members["i"] < MOST_REQUESTS)].sort_values("i")
            changed = (chosen["shape"] != chosen["shape"].shift()).to_numpy()
            axis.plot(chosen["i"], chosen["latency_ms"], color="0.8", linewidth=0.7, zorder=1)
            for index, shape in enumerate(shapes):
                colour = style.COLOURS[index % len(style.COLOURS)]
                mine = (chosen["shape"] == shape).to_numpy()
                for mask, face in ((mine & changed, colour), (mine & ~changed, "white")):
                    axis.plot(
                        chosen["i"][mask],
                        chosen["latency_ms"][mask],
                        linestyle="none",
                        marker=style.MARKERS[index % len(style.MARKERS)],
                        markersize=4,
                        color=colour,
                        markerfacecolor=face,
                    )
                look: dict[str, Any] = {
                    "linestyle": "none",
                    "marker": style.MARKERS[index % len(style.MARKERS)],
                    "color": colour,
                }
                axis.plot([], [], markersize=4, label=shape, **look)
                if (level := steady.get((*key, shape))) is not None:
                    axis.axhline(level, color=colour, linestyle=":", linewidth=1)
            device, runtime, model, precision, sequence = key
            axis.set_title(
                f"{configuration_label(runtime, precision)}, {model}, {sequence}, {name}\non {device}", fontsize=9
            )
            axis.set_xlabel("request" if members["i"].max() < MOST_REQUESTS else f"request, the first {MOST_REQUESTS}")
        if len(shapes) <= MOST_NAMED:
            warm.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7)
        style.plain_log(cold, "y")
        cold.set_ylabel("latency (ms, log scale)")
    return figure
