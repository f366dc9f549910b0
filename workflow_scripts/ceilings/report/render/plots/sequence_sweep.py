"""Latency against sequence length."""

from __future__ import annotations

from collections import Counter

from matplotlib.figure import Figure

from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables


@style.settled
def draw(tables: Tables) -> Figure:
    """A line a configuration, and a dotted one for latency in proportion to the sequence."""
    measured = Measured(tables)
    panels = {}
    for (device, model), cells in measured.panels.items():
        batch = most_swept(cells)
        lines = group_by([cell for cell in cells if cell.batch == batch], lambda cell: cell.configuration)
        lines = {key: sorted(line, key=lambda cell: cell.sequence) for key, line in lines.items() if len(line) > 1}
        if lines:
            panels[device, model, batch] = lines
    if not panels:
        return style.nothing("Sequence sweep", "no configuration was measured at more than one sequence length")
    looks = style.looks(measured)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = style.panels(rows, columns, 4.3, "Median latency against sequence length (95% intervals)")
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(panels) :]:
        axis.remove()
    for axis, ((device, model, batch), lines) in zip(flat, panels.items(), strict=False):
        sizes = sorted({cell.sequence for line in lines.values() for cell in line})
        for configuration, line in lines.items():
            latency = [cell.p50 for cell in line]
            axis.errorbar(
                [cell.sequence for cell in line],
                [value.estimate for value in latency],
                yerr=style.error(latency),
                capsize=3,
                **looks[configuration],
            )
        drawn = [
            (cell.p50, cell.sequence, looks[configuration]["color"])
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
            label="in proportion to the sequence",
        )
        style.plain_log(axis, "x", sizes)
        style.plain_log(axis, "y")
        axis.set_title(f"{model} on {device}, batch {batch}")
        axis.set_xlabel("sequence length (tokens, log scale)")
        axis.set_ylabel("median latency of one request (ms, log scale)")
    style.legend(figure, flat[: len(panels)], columns=3)
    return figure


def most_swept(cells: list[Cell]) -> int:
    """The batch at which the most sequence lengths were measured; of several, the smallest."""
    shapes = {(cell.batch, cell.sequence) for cell in cells}
    counts = Counter(batch for batch, _ in shapes)
    return min(counts, key=lambda batch: (-counts[batch], batch))
