"""Latency against the size of an input: the length of a sequence, the edge of an image."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure

from ceilings.report import text
from ceilings.report.analysis.measured import Measured, group_by, most_swept, without_axis
from ceilings.report.render.axes import log_title, name
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables


@style.settled
def draw(tables: Tables) -> Figure:
    """A line a configuration, and a dotted one for latency in proportion to the size."""
    measured = Measured(tables)
    panels = {}
    for ((device, model), cells), along in itertools.product(measured.panels.items(), measured.swept_axes):
        having = [cell for cell in cells if along in cell.shape.axes]
        if along == "batch" or not having:
            continue
        rest = most_swept(having, along)
        lines = group_by([c for c in having if without_axis(c.shape, along) == rest], lambda cell: cell.configuration)
        lines = {key: sorted(line, key=lambda cell: cell.axis(along)) for key, line in lines.items() if len(line) > 1}
        if lines:
            panels[device, model, along, rest] = lines
    if not panels:
        return style.nothing("Sequence sweep", "no configuration was measured at more than one sequence length")
    looks = style.looks(measured)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    swept = text.listed(dict.fromkeys(name(along) for *_, along, _ in panels))
    figure, axes = style.panels(rows, columns, 4.3, f"Median latency against {swept} (95% intervals)")
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(panels) :]:
        axis.remove()
    for axis, ((device, model, along, rest), lines) in zip(flat, panels.items(), strict=False):
        sizes = sorted({cell.axis(along) for line in lines.values() for cell in line})
        for configuration, line in lines.items():
            latency = [cell.p50 for cell in line]
            axis.errorbar(
                [cell.axis(along) for cell in line],
                [value.estimate for value in latency],
                yerr=style.error(latency),
                capsize=3,
                **looks[configuration],
            )
        drawn = [
            (cell.p50, cell.axis(along), looks[configuration]["color"])
            for configuration, line in lines.items()
            for cell in line
        ]
        start = min(line[0].p50.estimate for line in lines.values()) * 0.6
        style.within_reach(axis, "y", drawn, [start])
        axis.plot(
            [sizes[0], sizes[-1]],
            [start, start * sizes[-1] / sizes[0]],
            color=style.GREY,
            linestyle=":",
            linewidth=1.2,
            label=f"in proportion to the {along}",
        )
        style.plain_log(axis, "x", sizes)
        style.plain_log(axis, "y")
        axis.set_title(", ".join(filter(None, (f"{model} on {device}", text.sizes(rest)))))
        axis.set_xlabel(log_title(along))
        axis.set_ylabel(style.latency_title(rest))
    style.legend(figure, flat[: len(panels)], columns=3)
    return figure
