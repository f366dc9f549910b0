"""One look for every picture: legible at 1000 pixels, in grey, and to colour-blind readers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWN, CARETLEFT, CARETRIGHT, CARETUP
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from ceilings.files import atomic
from ceilings.report import text
from ceilings.report.analysis.measured import Measured, configuration_label, phase_of
from ceilings.statistics.quantiles import Interval
from ceilings.workload.shape import Shape

WIDTH_INCHES = 10.0
DPI = 160
GREY = "0.45"
SHORT = 80
"""Characters of a title that are never too many for a whole figure; two panels beside each other have half of them."""

# Okabe and Ito's palette without its yellow, which is lost on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p"]
LINES = {"fp32": "-", "tf32": (0, (6, 1)), "bf16": "-.", "fp16": (0, (4, 2)), "fp8": (0, (1, 1)), "int8": (0, (2, 1.5))}

REACH = 2.0
"""How many times beyond the estimates an axis goes for the sake of intervals."""

SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "ceilings",  # the same ids each time, so that the same data give the same bytes
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def save(figure: Figure, svg: Path | str, png: Path | str) -> None:
    """Write both files atomically and without a date."""
    with mpl.rc_context(SETTINGS):
        _break_titles(figure)
        with atomic(svg) as temporary:
            figure.savefig(temporary, metadata={"Date": None, "Creator": None})
        with atomic(png) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def _break_titles(figure: Figure) -> None:
    """Break the lines of titles that reach into the panel beside, at words."""
    titled = [(axis, axis.get_title(loc="left")) for axis in figure.axes]
    columns = len({round(axis.get_position().x0, 2) for axis, _ in titled})
    if len(titled) < 2 or max(len(line) for _, title in titled for line in title.split("\n")) < SHORT / columns:
        return
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    lefts = sorted({axis.get_position().x0 * figure.bbox.width for axis, _ in titled})
    for axis, title in titled:
        drawn = next((one for one in axis.findobj(Text) if title and one.get_text() == title), None)
        if drawn is None:
            continue
        extent = drawn.get_window_extent(renderer)
        room = min((left for left in lefts if left > extent.x0 + 1), default=figure.bbox.width) - extent.x0
        if extent.width > room:
            lines = title.split("\n")
            most = max(1, int(max(map(len, lines)) * room / extent.width))
            wrapper = textwrap.TextWrapper(most, break_long_words=False, break_on_hyphens=False)
            drawn.set_text("\n".join(wrapper.fill(line) for line in lines))


def panels(rows: int, columns: int, height: float, title: str, **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of ``rows`` x ``columns`` axes, each row ``height`` inches high, below a title."""
    figure = Figure(figsize=(WIDTH_INCHES, rows * height + 0.9), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    return figure, figure.subplots(rows, columns, squeeze=False, **options).tolist()


def nothing(what: str, why: str) -> Figure:
    """A picture for a study that has no data for it."""
    figure = Figure(figsize=(WIDTH_INCHES, 1.2), layout="constrained")
    figure.text(0.5, 0.5, f"{what}: {why}", ha="center", va="center", fontsize=11, color="0.3", wrap=True)
    return figure


def looks(measured: Measured) -> dict[tuple[str, str], dict[str, Any]]:
    """Colour and marker by runtime, line by precision: the same in every picture of a study."""
    runtimes = list(dict.fromkeys(runtime for runtime, _ in measured.configurations))
    return {
        (runtime, precision): {
            "color": COLOURS[runtimes.index(runtime) % len(COLOURS)],
            "marker": MARKERS[runtimes.index(runtime) % len(MARKERS)],
            "linestyle": LINES.get(precision, "-"),
            "markerfacecolor": COLOURS[runtimes.index(runtime) % len(COLOURS)] if precision == "fp32" else "white",
            "label": configuration_label(runtime, precision),
        }
        for runtime, precision in measured.configurations
    }


def legend(figure: Figure, axes: Iterable[Axes], columns: int = 4) -> None:
    """One legend below all axes, so that it covers nothing; with as many of the columns as the figure is wide for."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for count in range(min(columns, len(handles)), 0, -1):
        made = figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=count, handlelength=3.2
        )
        if count == 1 or made.get_window_extent(renderer).width <= figure.bbox.width:
            return
        made.remove()


def plain_log(axis: Axes, which: str, ticks: Sequence[float] | None = None) -> None:
    """A log axis with plain numbers on it."""
    getattr(axis, f"set_{which}scale")("log")
    part = getattr(axis, f"{which}axis")
    if ticks is not None:
        part.set_ticks(list(ticks))
        part.set_minor_locator(NullLocator())
    else:
        low, high = getattr(axis, f"get_{which}lim")()
        # Within two decades the decades alone leave an axis nearly bare.
        subs = (1, 1.5, 2, 3, 4, 5, 7) if high / low < 12 else (1, 2, 5) if high / low < 500 else (1,)
        part.set_major_locator(mpl.ticker.LogLocator(subs=subs, numticks=30))
        part.set_minor_formatter(NullFormatter())
    part.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def within_reach(
    axis: Axes, which: str, drawn: Sequence[tuple[Interval, float, str]], marks: Sequence[float] = ()
) -> None:
    """Let the estimates set an axis that intervals would stretch, and end those that go on with an arrow.

    Two processes that differ have an interval of decades, beside which all other differences would be invisible.

    Args:
        which: ``x`` or ``y``, the axis that the intervals lie along.
        drawn: Intervals, where they lie on the other axis, and their colours.
        marks: What else must be seen.
    """
    bounded = [one for one in drawn if one[0].bounded]
    seen = [*(interval.estimate for interval, *_ in drawn), *marks]
    lowest, highest = min(seen) / REACH, max(seen) * REACH
    low = max(lowest, min((interval.low for interval, *_ in bounded), default=lowest))
    high = min(highest, max((interval.high for interval, *_ in bounded), default=highest))
    if all(low <= interval.low and interval.high <= high for interval, *_ in bounded):
        return
    getattr(axis, f"set_{which}lim")(low, high)
    look: dict[str, Any] = {"markersize": 8, "linestyle": "none"}
    markers = (CARETLEFT, CARETRIGHT) if which == "x" else (CARETDOWN, CARETUP)  # their tips lie at the limits
    for interval, at, colour in bounded:
        for goes_on, end, marker in zip((interval.low < low, interval.high > high), (low, high), markers, strict=True):
            if goes_on:
                axis.plot(*((end, at) if which == "x" else (at, end)), marker=marker, color=colour, **look)
    axis.plot([], [], marker=CARETRIGHT, color=GREY, label="the interval goes on", **look)


def error(intervals: Sequence[Interval]) -> list[list[float]] | None:
    """Distances from the estimates to both ends, for matplotlib; None where one is unbounded."""
    if not all(interval.bounded for interval in intervals):
        return None
    return [[i.estimate - i.low for i in intervals], [i.high - i.estimate for i in intervals]]


def latency_name(*shapes: Shape) -> str:
    """What a picture of latencies of these shapes is of, to begin its title."""
    tokens = {phase_of(shape) is not None for shape in shapes}
    what = "token time" if tokens == {True} else "latency"
    return f"Median {what}"


def latency_title(*shapes: Shape, median: bool = True) -> str:
    """What an axis of latencies of these shapes is called: of generating models that of one token."""
    phases = {phase_of(shape) for shape in shapes}
    middle = "median " if median else ""
    if phases == {"decode"}:
        return f"{middle}time per output token (ms, log scale)"
    if phases == {"prefill"}:
        return f"{middle}time to the first token (ms, log scale)"
    return f"{middle}latency of one request{' or token' if len(phases) > 1 else ''} (ms, log scale)"


def noise_note(floor: float | None) -> str:
    return "no A/A pair on this device" if floor is None else f"noise floor {text.noise(floor)}"


def settled(draw: Any) -> Any:
    """Decorator: draw with the project's settings, whatever the user's matplotlib is set to."""

    def wrapped(tables: Any) -> Figure:
        with mpl.rc_context({**mpl.rcParamsDefault, "backend": "agg", **SETTINGS}):
            return draw(tables)

    wrapped.__doc__ = draw.__doc__
    return wrapped
