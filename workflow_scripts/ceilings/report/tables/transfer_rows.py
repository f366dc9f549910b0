"""Records of transfers to tables: a row a way and size, a row an allocator and size, a row a cell and its copies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.tables.keys import KEY, with_axes
from ceilings.statistics.intervals import difference_over_processes
from ceilings.statistics.transfer_model import time_at

Record = Mapping[str, Any]
Curves = Mapping[str, Sequence[Record]]
"""Points of the curves of a device, by the names of the ways."""

WAY_KEY, ALLOCATOR_KEY = ["device", "way", "bytes"], ["device", "allocator", "bytes"]

RANGE = ("", "_low", "_high")
"""A median and its range over rounds, as columns of a table end."""


def _columns(*times: str) -> list[str]:
    return [f"{time}{end}_us" for time in times for end in RANGE]


TRANSFER_COLUMNS = [*WAY_KEY, *_columns("host", "device"), "rounds", "transfers", "method", "reason"]
"""One row a way and size: median and range over rounds, on the host until the transfer is done, and on the device.

``transfers``: how many a round has. Of a way that could not be had there is one row without a size, with the reason.
"""

ALLOCATION_COLUMNS = [
    *(*ALLOCATOR_KEY, *_columns("first", "allocate", "free", "loop", "kept")),
    *("rounds", "method", "reason"),
]
"""One row an allocator and size: what its calls cost, and an iteration with them (``loop``) and without (``kept``)."""

GRAPH_KEY = ["device", "nodes"]

GRAPH_COLUMNS = [
    *(*GRAPH_KEY, *_columns("capture", "instantiate", "first", "again")),
    *("device_bytes", "rounds", "method", "reason"),
]
"""One row a number of kernels in a CUDA graph: what it costs to make and to launch, and memory of the device."""

KINDS = ("pinned", "pageable")

COPY_COLUMNS = [
    *(*KEY, "copies_in", "bytes_in", "copies_out", "bytes_out"),
    *(f"{kind}_{what}_us" for kind in KINDS for what in ("least", "most", "added", "added_low", "added_high")),
]
"""One row a measured cell whose inputs and outputs were copied from and to the host in a separate measurement.

``least``, ``most``: what its copies take by the curves of its device: the device's part of each, and each with the
wait after it; a pageable copy occupies the host, so only ``most`` is known. ``added``: latency with copies less that
without, within each process, the mean over processes with its interval.
"""


@dataclasses.dataclass(frozen=True)
class TransferTables:
    """The tables of transfers."""

    transfers: pd.DataFrame
    allocations: pd.DataFrame
    graph_costs: pd.DataFrame
    copies: pd.DataFrame


class Transfers:
    """The records of transfers that a plan names, and what they say of its cells.

    Args:
        plan: Content of ``plan.json``.

    Raises:
        UserError: A record is missing, damaged or of another device.
    """

    def __init__(self, plan: Record) -> None:
        self._records = {record["device"]: record for record in map(_read, plan.get("transfers", []))}
        self._curves = {
            device: {name: curve["points"] for name, curve in record["curves"].items() if "points" in curve}
            for device, record in self._records.items()
        }
        self._copies: list[dict[str, Any]] = []

    def add(self, cell: Record, runs: Sequence[Record]) -> None:
        """Take a cell of the plan, with its run records, into the table of copies."""
        if cell["device"] in self._curves and not cell.get("aa_of") and _copied(runs):
            self._copies.append({name: cell[name] for name in KEY} | _copies(runs, self._curves[cell["device"]]))

    def tables(self) -> TransferTables:
        """The tables, with the cells that were taken so far."""
        return TransferTables(
            _frame(self._records, "curves", "way", TRANSFER_COLUMNS),
            _frame(self._records, "allocations", "allocator", ALLOCATION_COLUMNS),
            _graph_frame(self._records),
            with_axes(pd.DataFrame(self._copies, columns=COPY_COLUMNS)),
        )


def _read(path: str) -> dict[str, Any]:
    record = records.read(path, "transfers")
    if record["device"] != Path(path).parent.name:
        raise UserError(f"{path} is of {record['device']}, another device than its path names; {records.anew(path)}")
    return record


def _frame(made: Mapping[str, Record], part: str, key: str, columns: list[str]) -> pd.DataFrame:
    entries = [
        ({"device": device, key: name}, entry)
        for device, record in made.items()
        for name, entry in record[part].items()
    ]
    return _typed([row for head, entry in entries for row in _rows(head, entry)], columns)


def _graph_frame(made: Mapping[str, Record]) -> pd.DataFrame:
    entries = [({"device": device}, record["graphs"]) for device, record in made.items() if "graphs" in record]
    return _typed([row for head, entry in entries for row in _rows(head, entry)], GRAPH_COLUMNS)


def _rows(head: Record, entry: Record) -> list[dict[str, Any]]:
    """A row a point of an entry, or one that says why there is none."""
    if "unavailable" in entry:
        return [{**head, "reason": entry["unavailable"]}]
    common = {**head, "method": entry["method"], "rounds": entry["rounds"]}
    return [{**common, **_point(point)} for point in entry["points"]]


def _typed(rows: Sequence[Record], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns)
    kinds = {column: "float64" for column in columns if column.endswith("_us")}
    kinds |= {
        column: "Int64" for column in ("bytes", "nodes", "device_bytes", "rounds", "transfers") if column in columns
    }
    return frame.astype(kinds)


def _point(point: Record) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in point.items():
        if isinstance(value, Mapping):
            stem = name.removesuffix("_us")
            row |= {f"{stem}{end}_us": value[end.strip("_") or "median"] for end in RANGE}
        elif not name.endswith("_us"):
            row[name] = value
    return row


# --- the copies of a cell --------------------------------------------------------------------------------------------

SERIES = {"pinned": "latency_end_to_end", "pageable": "latency_end_to_end_pageable"}


def _copied(runs: Sequence[Record]) -> bool:
    """Whether every process measured its cell with copies of known sizes."""
    series = [(record.get("series") or {}).get(name) or {} for record in runs for name in SERIES.values()]
    return bool(runs) and all(one.get("copies") for one in series)


def _copies(runs: Sequence[Record], curves: Curves) -> dict[str, Any]:
    copies = runs[0]["series"][SERIES["pinned"]]["copies"]
    row: dict[str, Any] = {
        **{"copies_in": len(copies["h2d"]), "bytes_in": sum(copies["h2d"])},
        **{"copies_out": len(copies["d2h"]), "bytes_out": sum(copies["d2h"])},
    }
    for kind in KINDS:
        row[f"{kind}_most_us"] = expected_us(copies, curves, kind, "host_us")
        row[f"{kind}_least_us"] = expected_us(copies, curves, kind, "device_us") if kind == "pinned" else None
        added = difference_over_processes(
            [_median_us(record, SERIES[kind]) - _median_us(record, "latency") for record in runs]
        )
        known = math.isfinite(added.high)  # one process bounds nothing
        row |= {
            f"{kind}_added_us": added.estimate,
            f"{kind}_added_low_us": added.low if known else None,
            f"{kind}_added_high_us": added.high if known else None,
        }
    return row


def expected_us(copies: Mapping[str, Sequence[int]], curves: Curves, kind: str, clock: str) -> float | None:
    """What copies take by the curves of a device, one after the other; None where a curve is missing.

    Args:
        copies: Bytes of each copy, by direction.
        curves: Of the device.
        kind: Of the host's memory.
        clock: ``host_us``, each with the wait after it, or ``device_us``.
    """
    total = 0.0
    for direction, sizes in copies.items():
        points = curves.get(f"{direction}.{kind}")
        if points is None or len(points) < 2 or any(point[clock] is None for point in points):
            return None
        measured = [point["bytes"] for point in points], [point[clock]["median"] for point in points]
        total += sum(time_at(size, *measured) for size in sizes)
    return total


def _median_us(record: Record, series: str) -> float:
    return float(np.median(record["series"][series]["latency_ns"])) / 1e3
