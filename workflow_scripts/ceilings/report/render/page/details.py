"""What opens when a reader asks for one cell: facts as text, the shape of its samples, its budget."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ceilings.files import read_json
from ceilings.report import text
from ceilings.report.render.budget_sentences import count
from ceilings.report.render.summary import error
from ceilings.report.tables.frames import COLD_START, KEY, PERCENTILES, Tables
from ceilings.report.tables.product_counts import counted
from ceilings.statistics.quantiles import Interval
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES

Row = dict[str, Any]
Pairs = list[tuple[str, str]]
"""Terms and what is known of them."""

NS_PER_US = 1e3

KERNELS_SHOWN = 20

QUANTILES = [0.0, 0.01, 0.025, *(i / 20 for i in range(1, 20)), 0.975, 0.98, 0.99, 0.995, 0.999, 1.0]
"""Points of a process's distribution: denser where the tail bends."""

MOST_STRETCHES = 40
"""A process's iterations in order are cut into at most so many, each shown by its median and its maximum."""


def facts(row: Row) -> list[tuple[str, Pairs]]:
    """All of a cell's row, by group; terms without a value left out, and groups without a term."""
    if row["status"] != "ok":
        return [("Not measured", [(name, str(row[name])) for name in ("reason", "remedy", "log") if name in row])]
    groups = {
        "Latency": _latency(row),
        "Throughput, inferences/s": [
            ("closed loop", unit(row, "inferences_per_s")),
            ("saturated", _interval(row, "saturated", "_per_s") or unit(row, "saturated_per_s")),
        ],
        "How far from the hardware": [
            ("floor", unit(row, "floor_ms", "ms")),
            ("of computing", unit(row, "compute_floor_ms", "ms")),
            ("of moving bytes", unit(row, "memory_floor_ms", "ms")),
            ("limited by", row.get("limited_by", "")),
            ("latency over floor", unit(row, "gap", "×")),
            ("of the matrix rate", text.percent(row["mfu"]) if "mfu" in row else ""),
        ],
        "Matrix products": [
            ("in INT8 or FP8", counted(row)),
            ("Q/DQ nodes", str(row.get("quantize_nodes", ""))),
        ],
        "Exactness": [
            ("relative L2 error", error(row["relative_l2"]) if "relative_l2" in row else ""),
            ("cosine", f"{row['cosine']:.6f}" if "cosine" in row else ""),
            ("same top class", text.percent(row["top1_agreement"]) if "top1_agreement" in row else ""),
        ],
        "Before the steady state": [(stage.replace("_", " "), unit(row, f"{stage}_ms", "ms")) for stage in COLD_START],
        "Peak memory": [("process", unit(row, "peak_rss_mb", "MB")), ("device", unit(row, "peak_device_mb", "MB"))],
    }
    known = ((title, [(term, told) for term, told in pairs if told]) for title, pairs in groups.items())
    return [(title, pairs) for title, pairs in known if pairs]


def _latency(row: Row) -> Pairs:
    tails = [
        (name.replace("_", "."), _interval(row, name, "_ms") or text.percentile(row.get(f"{name}_ms"), row["n"], q))
        for name, q in PERCENTILES.items()
    ]
    return [
        ("p50 [95%], ms", p50(row)),
        ("mean, ms", unit(row, "mean_ms")),
        *((f"{name}, ms", told) for name, told in tails),
        ("iterations", f"{int(row['n']):,} in {text.plural(row['processes'], 'process')}"),
        ("stopped", row.get("stop_reasons", "")),
        ("processes differ by", text.percent(row["process_spread"])),
        ("GPU p50, ms", unit(row, "gpu_p50_ms")),
        ("enqueue p50, ms", unit(row, "enqueue_p50_ms")),
        ("end to end p50, ms", unit(row, "e2e_p50_ms")),
        ("p50 with L2 overwritten, ms", unit(row, "cold_p50_ms")),
        ("flags", row.get("flags", "")),
    ]


def budget(row: Row) -> dict[str, Any] | None:
    """Where the captured iteration's time goes, on the host's side and on the device's; None without a capture."""
    if "iteration_ms" not in row:
        return None
    host = {part: f"host_{part}_ms" for part in HOST_PARTS} | {"residual": "host_residual_ms"}
    device = {kind: f"gpu_{kind}_ms" for kind in KERNEL_CLASSES}
    device |= {f"idle: {cause}": f"idle_{cause}_ms" for cause in IDLE_CAUSES} | {"residual": "gpu_residual_ms"}
    told = {
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
            if row.get(column, 0) > 0  # a negative residual has no length; the facts tell it
        ],
        "facts": [(term, value) for term, value in told.items() if value],
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
    record = read_json(row["path"]).get("timeline")
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
    own = tables.samples[tables.samples["series"] == "latency"]
    samples = {
        tuple(key): values.to_numpy() / 1e6  # type: ignore[arg-type]
        for key, values in own.groupby([*KEY, "run"], observed=True, sort=False)["latency_ns"]
    }
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in records(tables.runs):
        key = tuple(row[name] for name in KEY)
        process: dict[str, Any] = {"shown": _process(row)}
        values = samples.get((*key, row["run"]))
        if values is not None:
            name = {"process": str(row["run"])}
            process["quantiles"] = name | {"ms": _shorts(np.quantile(values, QUANTILES, method="inverted_cdf"))}
            process["stretches"] = name | {"n": len(values), **_stretches(values)}
        found.setdefault(key, []).append(process)
    return found


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
    told = {
        "Python": record.get("python"),
        **(record.get("packages") or {}),
        "revision": record.get("project_revision"),
    }
    return ", ".join(f"{name} {version}" for name, version in told.items() if version)


def _stretches(values: NDArray[np.float64]) -> dict[str, list[float]]:
    parts = [part.tolist() for part in np.array_split(values, min(MOST_STRETCHES, len(values)))]
    return {"median": _shorts(map(statistics.median, parts)), "max": _shorts(map(max, parts))}


# --- small things ----------------------------------------------------------------------------------------------------


def p50(row: Row) -> str:
    """The median with its interval, in ms; empty for a cell without one."""
    if "p50_ms" not in row:
        return ""
    return _interval(row, "p50", "_ms") or text.interval(Interval(0.0, row["p50_ms"], math.inf))


def unit(row: Row, name: str, of: str = "") -> str:
    """A value with its unit; empty where there is none."""
    return f"{text.number(row[name])} {of}".strip() if name in row else ""


def _interval(row: Row, name: str, suffix: str) -> str:
    """Three columns as one text; empty where one has no value."""
    low, estimate, high = (row.get(f"{name}{end}{suffix}") for end in ("_low", "", "_high"))
    return "" if low is None or estimate is None or high is None else text.interval(Interval(low, estimate, high))


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
