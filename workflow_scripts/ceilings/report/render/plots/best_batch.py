"""What searches for the best batch measured: latency with its limit, throughput, and the order of the search."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ceilings.report import text
from ceilings.report.analysis.findings.batch_limits import search_name
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.search_rows import SEARCH_KEY, interval_of

MOST_PANELS = 8

VERDICTS = {
    "keeps": ("#009E73", "o", "keeps the limit"),
    "undecided": ("#E69F00", "D", "undecided"),
    "exceeds": ("#D55E00", "s", "exceeds the limit"),
}
"""Colour, marker and words of what a batch does with the limit."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A row a search: latency with the limit and throughput over batch, numbers in the order of the search."""
    rows = tables.best_batches[tables.best_batches["status"] == "ok"].to_dict("records")[:MOST_PANELS]
    if not rows:
        return style.nothing("Best batch", "no search for it was measured")
    title = "Searches for the best batch under a latency limit (numbers: its order; hollow: once more)"
    figure, axes = style.panels(len(rows), 2, 3.4, title)
    steps = tables.searched_batches
    for row, (latency, throughput) in zip(rows, axes, strict=True):
        mine = steps[(steps[SEARCH_KEY] == [row[name] for name in SEARCH_KEY]).all(axis=1)]
        timed = mine[mine["p50_ms"].notna()].to_dict("records")
        failed = mine[mine["p50_ms"].isna()].to_dict("records")
        judged = "judged" if any(not text.absent(step["judged_ms"]) for step in timed) else "p50"
        _points(latency, timed, judged, "ms")
        _points(throughput, timed, "inferences", "per_s")
        for step in timed:
            if not text.absent(step[f"{judged}_ms"]):
                _number(latency, step, step[f"{judged}_ms"])
        latency.axhline(row["limit_ms"], color="0.2", linestyle="--", linewidth=1.2, label="limit")
        for axis in (latency, throughput):
            for step in failed:
                axis.axvline(step["batch"], color="#D55E00", linestyle=":", label="does not run")
            if not text.absent(row["best"]):
                axis.axvline(row["best"], color="0.75", linewidth=5, zorder=0, label="best batch")
            style.plain_log(axis, "x", sorted({batch for batch in mine["batch"] if _power_of_two(batch)}))
            style.plain_log(axis, "y")
            axis.set_xlabel("batch (log scale)")
        best = "none" if text.absent(row["best"]) else f"{int(row['best'])}"
        latency.set_title(f"{search_name(row)}\non {row['device']}", fontsize=9)
        throughput.set_title(f"best batch within {text.number(row['limit_ms'])} ms: {best}", fontsize=9)
        latency.set_ylabel(f"{row['percentile'] if judged == 'judged' else 'p50'} latency (ms, log scale)")
        throughput.set_ylabel("inferences/s (log scale)")
    style.legend(figure, [axis for pair in axes for axis in pair])
    return figure


def _points(axis: Axes, steps: list[dict[str, Any]], column: str, unit: str) -> None:
    """The batches of a search, with their intervals, joined by a line in the order of their size."""
    known = sorted((s for s in steps if not text.absent(s[f"{column}_{unit}"])), key=lambda step: step["batch"])
    axis.plot(
        [step["batch"] for step in known], [step[f"{column}_{unit}"] for step in known], color="0.8", linewidth=0.8
    )
    drawn = []
    for verdict, (colour, marker, words) in VERDICTS.items():
        for step in known:
            if step["verdict"] == verdict:
                interval = interval_of(step, column, unit)
                look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "label": words}
                look["markerfacecolor"] = "white" if step["again"] else colour
                ends = style.error([interval])
                axis.errorbar(step["batch"], interval.estimate, yerr=ends, linestyle="none", elinewidth=1, **look)
                drawn.append((interval, float(step["batch"]), colour))
    style.within_reach(axis, "y", drawn)


def _number(axis: Axes, step: dict[str, Any], value: float) -> None:
    axis.annotate(
        str(int(step["step"])),
        (step["batch"], value),
        xytext=(4, -11),
        textcoords="offset points",
        fontsize=7,
        color="0.3",
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def _power_of_two(batch: int) -> bool:
    return batch & (batch - 1) == 0
