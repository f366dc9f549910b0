"""What schedules of copies and compute gain over one stream, over the bytes that a request copies."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ceilings.measure.schedules import PAGEABLE, SEQUENTIAL
from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables
from ceilings.statistics.pipelining import REFERENCE
from ceilings.statistics.quantiles import Interval

MOST_PANELS = 6

SERIES = ["device", "model", "runtime", "precision"]

MIB = 1 << 20

FAINT = {SEQUENTIAL, PAGEABLE}
"""Schedules that show what not to do."""


@style.settled
def draw(tables: Tables) -> Figure:
    """A panel a model on a runtime: a line a schedule, a grey band up to the prediction, one stream at 1."""
    rows = tables.overlap[tables.overlap["status"] == "ok"]
    if rows.empty:
        return style.nothing("Copies beside compute", "no cell was measured so")
    panels = list(rows.groupby(SERIES, sort=False))[:MOST_PANELS]
    columns = min(2, len(panels))
    figure, axes = style.panels(
        -(-len(panels) // columns), columns, 3.3, "Copies beside compute: requests a second, over those of one stream"
    )
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(panels) :]:
        axis.remove()
    names = [name for name in dict.fromkeys(rows["schedule"]) if name != REFERENCE]
    looks = {
        name: {"color": style.COLOURS[at % len(style.COLOURS)], "marker": style.MARKERS[at % len(style.MARKERS)]}
        for at, name in enumerate(names)
    }
    for axis, ((device, model, runtime, precision), each) in zip(flat, panels, strict=False):
        copied = (each["bytes_in"] + each["bytes_out"]).astype(float) / MIB
        members = each.assign(copied=copied).sort_values("copied")
        known = members.dropna(subset=["predicted"]).drop_duplicates("copied")
        values = known["predicted"].astype(float)
        axis.fill_between(
            known["copied"], 1, values, color="0.9", zorder=0, label="up to what the parts predict of three streams"
        )
        axis.plot(known["copied"], values, color="0.6", linestyle=":", marker="_", zorder=1)
        axis.axhline(1, color="0.2", linewidth=1)
        for name in names:
            _line(axis, members[members["schedule"] == name], name, looks[name])
        style.plain_log(axis, "x", sorted({float(f"{value:.3g}") for value in members["copied"]}))
        axis.set_xlabel("MiB that a request copies (log scale)")
        axis.set_ylabel("times one stream")
        axis.set_title(f"{configuration_label(runtime, precision)}, {model}\non {device}", fontsize=9)
    style.legend(figure, flat[: len(panels)])
    return figure


def _line(axis: object, rows: pd.DataFrame, name: str, look: dict[str, str]) -> None:
    mine = rows.to_dict("records")
    intervals = [
        Interval(row["gain"], row["gain"], row["gain"])
        if text.absent(row["gain_low"])
        else Interval(row["gain_low"], row["gain"], row["gain_high"])
        for row in mine
    ]
    axis.errorbar(  # type: ignore[attr-defined]
        [row["copied"] for row in mine],
        [row["gain"] for row in mine],
        yerr=style.error(intervals),
        label=name,
        linewidth=1,
        elinewidth=1,
        linestyle=":" if name in FAINT else "-",
        **look,
    )
