"""What a transfer between host and GPU takes over its size, by kind of memory, and where the models' copies lie."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ceilings.report.analysis.host_curves import DIRECTIONS, Curve, bytes_in_words, curves, devices
from ceilings.report.render.plots import style
from ceilings.report.tables.frames import Tables

LOOKS = {
    "pinned": ("#0072B2", "o", "-", "pinned"),
    "pageable": ("#D55E00", "s", "-", "pageable"),
    "write-combined": ("#56B4E9", "v", "--", "write-combined"),
    "mapped": ("#009E73", "^", "-", "mapped, by a kernel"),
    "managed": ("#CC79A7", "D", "-", "managed, on demand"),
    "managed-prefetch": ("#CC79A7", "D", ":", "managed, prefetched"),
    "managed-read-mostly": ("#E69F00", "P", "--", "managed, read-mostly"),
    "managed-on-host": ("#000000", "X", ":", "managed, stays on the host"),
}
"""Colour, marker, line and name of each kind of memory, the same in every panel."""

MOST_NAMED = 6
"""Models whose copies are marked in a panel."""


@style.settled
def draw(tables: Tables) -> Figure:
    """For each GPU a column a direction: time over size above, rate over size below; ranges are those over rounds."""
    known = curves(tables)
    shown = [device for device in devices(tables) if any(device == one for one, _ in known)]
    if not shown:
        return style.nothing("Transfers", "none was measured between a host and its GPU")
    title = "Transfers between host and GPU until done (bands: range over rounds; dashes: inputs, outputs)"
    figure, axes = style.panels(2 * len(shown), 2, 3.7, title, sharex="col")
    for index, device in enumerate(shown):
        for column, direction in enumerate(("h2d", "d2h")):
            mine = [curve for curve in known.values() if (curve.device, curve.direction) == (device, direction)]
            time, rate = axes[2 * index][column], axes[2 * index + 1][column]
            for curve in mine:
                _curve(time, rate, curve)
            for axis in (time, rate):
                axis.set_yscale("log")
                _sizes(axis, mine)
            time.set_title(f"{DIRECTIONS[direction]}, {device}")
            _own(time, tables.copies, device, direction)
            rate.set_xlabel("bytes of a transfer (log scale)")
        axes[2 * index][0].set_ylabel("time (µs, log scale)")
        axes[2 * index + 1][0].set_ylabel("rate (GB/s, log scale)")
        for row in (axes[2 * index], axes[2 * index + 1]):
            low, high = (f(axis.get_ylim()[end] for axis in row) for end, f in ((0, min), (1, max)))
            for axis in row:
                axis.set_ylim(low, high)
                style.plain_log(axis, "y")
    style.legend(figure, [axis for row in axes for axis in row])
    return figure


def _curve(time: Axes, rate: Axes, curve: Curve) -> None:
    colour, marker, line, name = LOOKS.get(curve.kind, (style.GREY, ".", "-", curve.kind))
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4, "label": name}
    band: dict[str, Any] = {"color": colour, "alpha": 0.15, "linewidth": 0}
    low, middle, high = ([getattr(us, end) for us in curve.host] for end in ("low", "estimate", "high"))
    time.plot(curve.sizes, middle, **look)
    time.fill_between(curve.sizes, low, high, **band)
    slow, typical, fast = (
        [size / us / 1e3 for size, us in zip(curve.sizes, column, strict=True)] for column in (high, middle, low)
    )
    rate.plot(curve.sizes, typical, **look)
    rate.fill_between(curve.sizes, slow, fast, **band)


def _sizes(axis: Axes, shown: list[Curve]) -> None:
    axis.set_xscale("log", base=2)
    ticks = sorted({size for curve in shown for size in curve.sizes})[::2]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_in_words(int(value))))
    axis.tick_params(axis="x", labelrotation=30)


def _own(axis: Axes, copies: pd.DataFrame, device: str, direction: str) -> None:
    """Where the bytes of the models' inputs or outputs lie."""
    column = "bytes_in" if direction == "h2d" else "bytes_out"
    rows = copies[copies["device"] == device]
    named: dict[int, list[str]] = {}
    for row in rows.drop_duplicates(["model", "shape"]).to_dict("records"):
        named.setdefault(int(row[column]), []).append(f"{row['model']} {row['shape']}")
    for nbytes, names in sorted(named.items())[:MOST_NAMED]:
        axis.axvline(nbytes, color="0.55", linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
        label = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        axis.annotate(
            *(label, (nbytes, 0.985)),
            xycoords=axis.get_xaxis_transform(),
            xytext=(-2, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize=7,
            color="0.35",
        )
