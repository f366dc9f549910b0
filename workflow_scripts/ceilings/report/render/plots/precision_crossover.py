"""Lower precisions against FP32 along each axis."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ceilings.report import text
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.analysis.precision_series import PrecisionSeries, precision_series
from ceilings.report.render.axes import log_title
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables


@style.settled
def draw(tables: Tables) -> Figure:
    """Latency ratio to FP32 (below 1: the lower precision is faster), along each axis."""
    measured = Measured(tables)
    swept = [series for series in precision_series(measured) if len(series.points) > 1]
    if not swept:
        return style.nothing("Lower precision against FP32", "no pair was measured at more than one shape")
    rows = group_by(swept, lambda series: (series.device, series.model))
    precisions = sorted({series.precision.upper() for series in swept})
    names = [name for name in measured.axes if any(series.axis == name for series in swept)]
    figure, axes = style.panels(
        len(rows),
        len(names),
        4.0,
        f"{', '.join(precisions)} latency over FP32 latency: below 1 the lower precision is faster",
    )
    looks = style.looks(measured)
    for row, ((device, model), members) in zip(axes, rows.items(), strict=True):
        floor = measured.noise_floor(device)
        for axis, name in zip(row, names, strict=True):
            lines = longest([series for series in members if series.axis == name])
            draw_axis(axis, lines, looks, floor)
            fixed = text.sizes(lines[0].fixed) if lines else ""
            axis.set_title(", ".join(filter(None, (f"{model} on {device}", fixed))))
            axis.set_xlabel(log_title(name))
            axis.set_ylabel("latency ratio to FP32")
        top = [line for axis in row for line in axis.get_ylim()]
        for axis in row:
            axis.set_ylim(min(top), max(top))
    style.legend(figure, [axis for row in axes for axis in row], columns=3)
    return figure


def longest(series: list[PrecisionSeries]) -> list[PrecisionSeries]:
    """Of the fixed rests of a shape, the one with the most points: one line a configuration."""
    by_fixed = group_by(series, lambda one: one.fixed)
    return max(by_fixed.values(), key=lambda group: sum(len(one.points) for one in group), default=[])


def draw_axis(axis: Axes, lines: list[PrecisionSeries], looks: dict, floor: float | None) -> None:
    if not lines:
        axis.text(0.5, 0.5, "not swept", transform=axis.transAxes, ha="center", color=style.GREY)
        return
    if floor is not None and math.isfinite(floor):
        axis.axhspan(
            1 / (1 + floor), 1 + floor, color="0.88", zorder=0.5, label=f"{style.noise_note(floor)} (A/A pair)"
        )
    axis.axhline(1, color="0.2", linewidth=1.0, zorder=0.8)
    for i, series in enumerate(lines):
        apart = 1.02 ** (i - (len(lines) - 1) / 2)  # so that equal ratios do not hide one another
        look = looks[series.runtime, series.precision] | {"label": f"{series.label} / {series.reference_label}"}
        ratios = [point.ratio for point in series.points]
        sizes = [size * apart for size in series.sizes]
        axis.errorbar(sizes, [r.estimate for r in ratios], yerr=style.error(ratios), capsize=3, **look)
        for crossing in series.crossovers:
            axis.plot(
                crossing.size,
                1,
                marker="*",
                markersize=15,
                color=look["color"],
                markeredgecolor="black",
                linestyle="none",
                label="crossover (interpolated)",
            )
            axis.annotate(
                f"≈ {crossing.size:.3g}",
                (crossing.size, 1),
                xytext=(6, 9),
                textcoords="offset points",
                fontsize=9,
            )
    style.plain_log(axis, "x", sorted({size for series in lines for size in series.sizes}))
