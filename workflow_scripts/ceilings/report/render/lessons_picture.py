"""The lessons on a device: of each the time of its variants beside the counter that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ceilings import foreign
from ceilings.report import text
from ceilings.report.render.kernel_roofline import VERDICT_COLOURS
from ceilings.report.render.plots import style

BAR = 0.34


@style.settled
def draw(record: Mapping[str, Any]) -> Figure:
    """A row a lesson: times on the left, causes on the right, coloured by what limits the longest kernel."""
    if record["status"] != "ok":
        return style.nothing("Lessons", foreign.one_line(record["failure"]["message"]))
    lessons = record["lessons"]
    heights = [0.9 + BAR * len(lesson["variants"]) for lesson in lessons]
    figure = Figure(figsize=(style.WIDTH_INCHES, sum(heights) + 0.9), layout="constrained")
    title = f"One cause and its effect each, on {record['device']}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    rows = figure.subplots(len(lessons), 2, squeeze=False, height_ratios=heights, sharey="row")
    for (left, right), lesson in zip(rows, lessons, strict=True):
        _times(left, lesson)
        _causes(right, lesson)
    shown = {_verdict(variant) for lesson in lessons for variant in lesson["variants"]}
    for verdict in (name for name in VERDICT_COLOURS if name in shown):
        rows[0][0].bar(0, 0, color=VERDICT_COLOURS[verdict], label=verdict)
    style.legend(figure, [rows[0][0]])
    return figure


def _times(axis: Axes, lesson: Mapping[str, Any]) -> None:
    variants = lesson["variants"]
    least = min(variant["us"]["median"] for variant in variants)
    for y, variant in enumerate(variants):
        time = variant["us"]
        spread = [[time["median"] - time["low"]], [time["high"] - time["median"]]]
        axis.barh(y, time["median"], 0.7, xerr=spread, color=VERDICT_COLOURS[_verdict(variant)], ecolor="0.3")
        label = f"{text.number(time['median'])} µs, {text.number(time['median'] / least)}×"
        axis.annotate(label, (time["high"], y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axis.set_yticks(range(len(variants)), [variant["name"] for variant in variants])
    axis.set_ylim(len(variants) - 0.5, -0.5)
    axis.set_xlim(0, 1.45 * max(variant["us"]["high"] for variant in variants))
    axis.set_ylabel(lesson["varied"], fontsize=8.5)
    axis.set_xlabel("device time (µs), median and range, without a profiler", fontsize=8.5)
    axis.set_title(lesson["title"], fontsize=10)
    axis.grid(axis="y", visible=False)


def _causes(axis: Axes, lesson: Mapping[str, Any]) -> None:
    known = [variant["cause"] or 0 for variant in lesson["variants"]]
    axis.barh(range(len(known)), known, 0.7, color="0.6")
    for y, variant in enumerate(lesson["variants"]):
        label = "n/a" if variant["cause"] is None else _short(variant["cause"])
        axis.annotate(label, (known[y], y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axis.set_xlim(0, 1.35 * (max(known) or 1))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_xlabel(lesson["meaning"], fontsize=8.5)
    axis.grid(axis="y", visible=False)


def _verdict(variant: Mapping[str, Any]) -> str:
    """What limits the kernel that takes longest."""
    longest = max(variant["kernels"], key=lambda kernel: kernel["duration_ns"] or 0)
    return str(longest["verdict"])


def _short(value: float) -> str:
    """
    >>> _short(4.0), _short(65011712.0), _short(268435456.0)
    ('4.00', '65.0 M', '268 M')
    """
    return f"{text.number(value / 1e6)} M" if value >= 1e5 else text.number(value)
