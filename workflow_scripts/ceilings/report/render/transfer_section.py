"""The section on transfers: what each way takes over size, what memory costs to get, what copies cost each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.host_curves import (
    DIRECTIONS,
    KINDS,
    Curve,
    bytes_in_words,
    curves,
    in_words,
    microseconds,
    unavailable,
)
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.tables.frames import Tables
from ceilings.statistics.quantiles import Interval

MOST_ROWS = 8
"""Of the summary."""

SMALL, MIDDLE = 4096, 1 << 20
"""Bytes beside the smallest and the largest size."""

CELLS = [
    *("device", "model", "shape", "configuration", "in", "out"),
    *("pinned, by the curves", "pinned, measured", "pageable, by the curves", "pageable, measured"),
]

ALLOCATED = ["device", "memory from", "bytes", "first", "allocate", "free", "in a loop", "kept in a loop"]

GRAPHS = ["device", "kernels", "capture", "instantiate", "first launch", "later launches", "memory"]

FIRST = ("pinned", "pageable", "managed")
"""Kinds of memory that the summary has."""


def section(tables: Tables, most: int | None = None) -> str:
    """The section; empty where no transfers were measured.

    Args:
        most: Rows of each table of the summary, which has no allocations; None: all.
    """
    if tables.transfers.empty:
        return ""
    known = list(curves(tables).values())
    shown = [curve for curve in known if most is None or curve.kind in FIRST][:most]
    lines = [
        "## Transfers between host and GPU",
        "Time on the host until a transfer is done, called from Python; median over rounds. Floor and rate: what "
        "describes all sizes best, with the largest deviation. All in `tables/transfers.csv`, "
        "`tables/allocations.csv`, `tables/copies.csv`.",
        _ways(shown),
    ]
    copies = tables.copies.to_dict("records")
    if copies:
        lines += [
            "Copies of inputs and outputs of a cell. By the curves: from the device's part of each copy to each copy "
            "with the wait after it. Measured: latency with copies less that without, within each process.",
            text.table(map(_cell, copies[:most]), CELLS, "llllrrrrrr"),
        ]
    if most is None:
        costs = [row for row in tables.allocations.to_dict("records") if not text.absent(row["bytes"])]
        lines += [
            "Memory, host time. First: nothing is kept. In a loop: an iteration that allocates, uses and frees; kept: "
            "the same in memory that was allocated before.",
            text.table(map(_allocation, costs), ALLOCATED, "llrrrrrr"),
        ]
        graphs = [row for row in tables.graph_costs.to_dict("records") if not text.absent(row["nodes"])]
        if graphs:
            lines += [
                "A CUDA graph by its kernels, host time. A program that replays graphs pays for capture, "
                "instantiation, first launch and memory once a shape.",
                text.table(map(_graph, graphs), GRAPHS, "lrrrrrr"),
            ]
        lacking = [(row["way"], row) for row in unavailable(tables.transfers)]
        lacking += [(row["allocator"], row) for row in unavailable(tables.allocations)]
        lacking += [("graphs", row) for row in tables.graph_costs.to_dict("records") if text.absent(row["nodes"])]
        lines.append(
            "\n".join(f"- `{name}` on {row['device']}: not measured: {row['reason']}" for name, row in lacking)
        )
    elif len(known) > len(shown) or len(copies) > most:
        lines.append("More is in [the lab note](engineering_observations.md#transfers-between-host-and-gpu).")
    return "\n\n".join(filter(None, lines))


def _ways(shown: list[Curve]) -> str:
    sizes = sorted({size for curve in shown for size in (curve.sizes[0], SMALL, MIDDLE, curve.sizes[-1])})
    rows = [
        [
            curve.device,
            f"{DIRECTIONS[curve.direction]}: {KINDS.get(curve.kind, curve.kind)}",
            *(microseconds(time.estimate) if (time := curve.at(size)) else "" for size in sizes),
            f"{text.number(curve.largest_rate.estimate)} GB/s",
            in_words(curve.fit),
        ]
        for curve in shown
    ]
    headers = ["device", "way", *map(bytes_in_words, sizes), "largest", "floor and rate"]
    return text.table(rows, headers, "ll" + "r" * (len(sizes) + 1) + "l")


def _cell(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["device"]),
        str(row["model"]),
        str(row["shape"]),
        configuration_label(row["runtime"], row["precision"]),
        *(f"{bytes_in_words(row[f'bytes_{way}'])} in {int(row[f'copies_{way}'])}" for way in ("in", "out")),
        *(one for kind in ("pinned", "pageable") for one in (_expected(row, kind), _added(row, kind))),
    ]


def _expected(row: Mapping[str, Any], kind: str) -> str:
    least, most = row[f"{kind}_least_us"], row[f"{kind}_most_us"]
    if text.absent(most):
        return "n/a"
    return microseconds(most) if text.absent(least) else f"{microseconds(least)} to {microseconds(most)}"


def _added(row: Mapping[str, Any], kind: str) -> str:
    low, value, high = (row[f"{kind}_added{end}_us"] for end in ("_low", "", "_high"))
    if text.absent(value):
        return "n/a"
    if text.absent(low):
        return f"{text.number(value)} µs [one process]"
    return text.interval(Interval(low, value, high), "µs", signed=True)


def _allocation(row: Mapping[str, Any]) -> list[str]:
    times = (microseconds(row[f"{name}_us"]) for name in ("first", "allocate", "free", "loop", "kept"))
    return [str(row["device"]), str(row["method"]), bytes_in_words(row["bytes"]), *times]


def _graph(row: Mapping[str, Any]) -> list[str]:
    times = (microseconds(row[f"{name}_us"]) for name in ("capture", "instantiate", "first", "again"))
    return [str(row["device"]), f"{int(row['nodes']):,}", *times, bytes_in_words(row["device_bytes"])]
