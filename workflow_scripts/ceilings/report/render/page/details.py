"""What opens when a reader asks for one cell: facts as text, the shape of its samples, its budget."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ceilings import records as sealed
from ceilings.quantity import Quantity
from ceilings.report import text
from ceilings.report.analysis.measured import group_by
from ceilings.report.render.budget_sentences import count
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import KEY, key_of, parsed_levers
from ceilings.report.tables.product_counts import counted
from ceilings.report.tables.quantities import (
    CELL,
    FLOORS,
    IDENTITY,
    QUANTILES,
    QUANTITIES,
    known,
    of_tokens,
    show_interval,
)
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES
from ceilings.workload.generation import is_request
from ceilings.workload.shape import Shape

Row = dict[str, Any]
Pairs = list[tuple[str, str]]
"""Terms and what is known of them."""

NS_PER_US = 1e3

KERNELS_SHOWN = 20

SHARES = [0.0, 0.01, 0.025, *(i / 20 for i in range(1, 20)), 0.975, 0.98, 0.99, 0.995, 0.999, 1.0]
"""Points of a process's distribution: denser where the tail bends."""

MOST_STRETCHES = 40
"""A process's iterations in order are cut into at most so many, each shown by its median and its maximum."""


def facts(row: Row) -> list[tuple[str, Pairs]]:
    """All of a cell's row, by group; terms without a value left out, and groups without a term."""
    if row["status"] != "ok":
        return [("Not measured", [(name, str(row[name])) for name in ("reason", "remedy", "log") if name in row])]
    values = {
        one: _value(one, row) for one in (*QUANTITIES, *FLOORS) if one not in IDENTITY or one.column in DESCRIBING
    }
    groups = group_by((one for one, value in values.items() if value), lambda one: one.group)
    groups |= {CELL: groups.pop(CELL)}  # what it is stands behind what was measured of it
    called = of_tokens if is_request(Shape.parse(row["shape"])) else dataclasses.replace
    return [(group, [(called(one).label, values[one]) for one in same]) for group, same in groups.items()]


DESCRIBING = {"stack", "levers", "artifact", "lengths", "processes", "n"}
"""What names a cell and is not in its title."""


def _value(one: Quantity, row: Row) -> str:
    """With its unit and its interval; empty where it is not known."""
    if one.column == "quantized_products":
        return counted(row)
    if one.column == "levers":
        return ", ".join(sorted(parsed_levers(row.get("levers"))))
    return show_interval(one, row, unit=True) if known(one, row) or one.column in QUANTILES else ""


def budget(row: Row) -> dict[str, Any] | None:
    """Where the captured iteration's time goes, on the host's side and on the device's; None without a capture."""
    if "iteration_ms" not in row:
        return None
    host = {part: f"host_{part}_ms" for part in HOST_PARTS} | {"residual": "host_residual_ms"}
    device = {kind: f"gpu_{kind}_ms" for kind in KERNEL_CLASSES}
    device |= {f"idle: {cause}": f"idle_{cause}_ms" for cause in IDLE_CAUSES} | {"residual": "gpu_residual_ms"}
    shown = {
        "iteration": unit(row, "iteration_ms", "ms"),
        "verdict": row.get("verdict", ""),
        "captured by": row.get("source", ""),
        "captured over untraced": unit(row, "tracing_ratio", "×"),
        "replayed": unit(row, "replayed_ms", "ms"),
        "without the device's work": unit(row, "no_work_ms", "ms"),
        "without the host's time": unit(row, "no_host_ms", "ms"),
        "launches": unit(row, "launches"),
        "kernels": unit(row, "kernels"),
        "mean kernel": unit(row, "kernel_mean_us", "µs"),
        "launch to start": unit(row, "launch_to_start_us", "µs"),
        "residual of the host's side": unit(row, "host_residual_ms", "ms"),
        "residual of the device's side": unit(row, "gpu_residual_ms", "ms"),
    }
    return {
        "ms": _short(row["iteration_ms"]),
        "parts": [
            {"side": side, "part": part, "ms": _short(row[column])}
            for side, parts in (("host", host), ("device", device))
            for part, column in parts.items()
            if row.get(column, 0) > 0  # a negative residual has no length; the facts show it
        ],
        "facts": [(term, value) for term, value in shown.items() if value],
    }


def kernels(rows: list[Row]) -> list[dict[str, str]]:
    """The kernels of an iteration that take most, as texts."""
    return [
        {
            "kernel": row["kernel"],
            "class": row["class"],
            "times": count(row["count"]),
            "each, µs": text.number(row["us"] / row["count"]),
            "together, µs": text.number(row["us"]),
        }
        for row in rows[:KERNELS_SHOWN]
    ]


def timeline(row: Row) -> dict[str, Any] | None:
    """One captured iteration in µs from its start: what the host called, what ran on the device, what launched what.

    Returns:
        ``length``, ``spans`` (side, part, begin, end) and ``launches`` (begin of the call, start of the first thing
        that it launched); None without a capture.
    """
    if "path" not in row:
        return None
    record = sealed.read(row["path"], "budget").get("timeline")
    if not record:
        return None
    spans = [("host", part, begin, end) for begin, end, part in record["calls"]]
    spans += [("device", part, begin, end) for begin, end, part, _, _ in record["operations"]]
    first: dict[int, int] = {}
    for start, _, _, _, call in record["operations"]:
        if call is not None:
            first[call] = min(start, first.get(call, start))
    return {
        "length": record["length"] / NS_PER_US,
        "spans": [(side, part, begin / NS_PER_US, end / NS_PER_US) for side, part, begin, end in spans],
        "launches": [(call / NS_PER_US, start / NS_PER_US) for call, start in first.items()],
    }


def processes(tables: Tables) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """What each process of each cell did: a row to show, and the shape of its samples."""
    latencies = tables.samples[tables.samples["series"] == "latency"]
    samples = {
        tuple(key): values.to_numpy() / 1e6  # type: ignore[arg-type]
        for key, values in latencies.groupby([*KEY, "run"], observed=True, sort=False)["latency_ns"]
    }
    by_cell: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in records(tables.runs):
        key = key_of(row)
        process: dict[str, Any] = {"shown": _process(row)}
        values = samples.get((*key, row["run"]))
        if values is not None:
            name = {"process": str(row["run"])}
            process["quantiles"] = name | {"ms": _shorts(np.quantile(values, SHARES, method="inverted_cdf"))}
            process["stretches"] = name | {"n": len(values), **_stretches(values)}
        by_cell.setdefault(key, []).append(process)
    return by_cell


def _process(row: Row) -> dict[str, str]:
    return {
        "process": str(row["run"]),
        "status": row.get("failure_kind", row["status"]),
        "iterations": f"{int(row['n']):,}" if "n" in row else "",
        "p50, ms": unit(row, "p50_ms"),
        "min, ms": unit(row, "min_ms"),
        "max, ms": unit(row, "max_ms"),
        "stopped": row.get("stop_reason", ""),
        "flags": row.get("flags", ""),
        "versions": _versions(row["environment"]) if "environment" in row else "",
    }


def _versions(environment: str) -> str:
    record = json.loads(environment)
    versions = {
        "Python": record.get("python"),
        **(record.get("packages") or {}),
        "revision": record.get("project_revision"),
    }
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _stretches(values: NDArray[np.float64]) -> dict[str, list[float]]:
    parts = [part.tolist() for part in np.array_split(values, min(MOST_STRETCHES, len(values)))]
    return {"median": _shorts(map(statistics.median, parts)), "max": _shorts(map(max, parts))}


# --- small things ----------------------------------------------------------------------------------------------------


def unit(row: Row, name: str, symbol: str = "") -> str:
    """A value with its unit; empty where there is none."""
    return f"{text.number(row[name])} {symbol}".strip() if name in row else ""


def _short(value: float) -> float:
    """Four digits: what a chart can show."""
    return float(f"{value:.4g}")


def _shorts(values: Iterable[float]) -> list[float]:
    return [_short(value) for value in values]


def records(frame: pd.DataFrame) -> list[Row]:
    """Rows as plain values, without those that are missing."""
    rows = frame.to_dict("records")
    return [
        {str(name): _plain(value) for name, value in row.items() if pd.notna(value) and value != ""} for row in rows
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
