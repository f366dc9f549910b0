"""Budget records to the budgets table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.report.records import read_record
from ceilings.report.tables import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, KEY

Record = Mapping[str, Any]

NS_PER_MS, NS_PER_US = 1e6, 1e3


def read_budget(path: Path | str, cell: Record) -> dict[str, Any]:
    """One budget record, checked against the planned cell.

    Raises:
        UserError: It is missing, damaged, or of another cell.
    """

    def flaw(record: Record) -> str | None:
        if record["status"] == "ok":
            record["iteration_ns"]["median"], record["verdict"]["name"]
        return None

    return read_record(path, cell, "was captured for", flaw)


def budget_row(cell: Record, untraced_p50_ms: float | None, path: str) -> dict[str, Any] | None:
    """The row of a captured cell; None for one that could not run.

    Args:
        untraced_p50_ms: The cell's median latency as measured, if it was.
    """
    record = read_budget(path, cell)
    if record["status"] != "ok":
        return None
    iteration = {name: _ms(record["iteration_ns"][name]) for name in ("median", "low", "high")}
    device = record["device_ns"]
    mean, start = record["kernel_mean_ns"], record["launch_to_start_ns"]
    return {
        **{name: cell[name] for name in KEY},
        "source": record["source"],
        "iterations": record["iterations"],
        "iteration_ms": iteration["median"],
        "iteration_low_ms": iteration["low"],
        "iteration_high_ms": iteration["high"],
        "untraced_p50_ms": untraced_p50_ms,
        "tracing_ratio": iteration["median"] / untraced_p50_ms if untraced_p50_ms and iteration["median"] else None,
        **{f"host_{part}_ms": _ms(record["host_ns"][part]["median"]) for part in HOST_PARTS},
        "host_residual_ms": _ms(record["residual_ns"]["host"]),
        "gpu_busy_ms": _ms(device["busy"]["median"]),
        **{f"gpu_{kind}_ms": _ms(device["classes"][kind]["median"]) for kind in KERNEL_CLASSES},
        **{f"idle_{cause}_ms": _ms(device["idle"][cause]["median"]) for cause in IDLE_CAUSES},
        "gpu_residual_ms": _ms(record["residual_ns"]["device"]),
        "launches": record["counts"]["launches"],
        "kernels": record["counts"]["kernels"],
        "kernel_mean_us": None if mean is None else mean / NS_PER_US,
        "launch_to_start_us": None if start is None else start / NS_PER_US,
        "verdict": record["verdict"]["name"],
        "path": path,
    }


def _ms(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / NS_PER_MS
