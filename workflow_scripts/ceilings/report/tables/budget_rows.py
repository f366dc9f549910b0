"""Budget records to the budgets table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ceilings.report.tables import gates
from ceilings.report.tables.keys import KEY
from ceilings.report.tables.planned_record import read_record
from ceilings.taxonomy import HOST_PARTS, IDLE_CAUSES, KERNEL_CLASSES, PATH_SHARES
from ceilings.traces.verdict import UNEXPLAINED, verdict

Record = Mapping[str, Any]

NS_PER_MS, NS_PER_US = 1e6, 1e3


def read_budget(path: Path | str, cell: Record) -> dict[str, Any]:
    """One budget record, checked against the planned cell.

    Raises:
        UserError: It is missing, damaged, or of another cell, or its parts do not add up.
    """
    return read_record(path, "budget", cell, "was captured for", gates.budget)


UNSTEADY_COLUMNS = ("irregular", "irregular_host_ms", "irregular_gpu_ms")

NONE = {"median": 0.0}
"""A class that a budget does not have."""

REPRODUCED = 0.1
"""An iteration, replayed or recorded, explains a latency if it differs from it by no more than this."""

WAITED = 0.1
"""A submitting call that waits for the device for more than this part of its time hides how fast the host is."""


def budget_row(cell: Record, measured: Record, record: Record) -> dict[str, Any] | None:
    """The row of a captured cell; None for one that could not run.

    Args:
        measured: The cell's row in the cells table, so with its latency untraced, if it was measured.
        record: Its budget.
    """
    if record["status"] != "ok":
        return None
    middle = record["iteration_ns"]["median"] / NS_PER_MS
    device, untraced = record["device_ns"], measured.get("p50_ms")
    replay = replayed(record, measured.get("enqueue_p50_ms"), untraced)
    length = replay["length_ms"] if replay else middle
    explained = not untraced or explains(length, untraced)
    explaining = replay if explained else None
    shares = explaining["shares"] if explaining else record["shares"]
    mean, start = record["kernel_mean_ns"], record["launch_to_start_ns"]
    return {
        **{name: cell[name] for name in KEY},
        "source": record["source"],
        "iterations": record["iterations"],
        "iteration_ms": middle,
        **{f"iteration_{end}_ms": _ms(record["iteration_ns"][end]) for end in ("low", "high")},
        **{f"untraced_{name}_ms": measured.get(f"{name}_ms") for name in ("p50", "p50_low", "p50_high")},
        "untraced_enqueue_ms": measured.get("enqueue_p50_ms"),
        "tracing_ratio": middle / untraced if untraced else None,
        **{f"host_{part}_ms": _ms(record["host_ns"][part]["median"]) for part in HOST_PARTS},
        "host_residual_ms": _ms(record["residual_ns"]["host"]),
        "gpu_busy_ms": _ms(device["busy"]["median"]),
        **{f"gpu_{kind}_ms": _ms(device["classes"].get(kind, NONE)["median"]) for kind in KERNEL_CLASSES},
        **{f"idle_{cause}_ms": _ms(device["idle"][cause]["median"]) for cause in IDLE_CAUSES},
        "gpu_residual_ms": _ms(record["residual_ns"]["device"]),
        "launches": record["counts"]["launches"],
        "kernels": record["counts"]["kernels"],
        "kernel_mean_us": None if mean is None else mean / NS_PER_US,
        "launch_to_start_us": None if start is None else start / NS_PER_US,
        "no_work_ms": explaining["no_work_ms"] if explaining else None,
        "no_host_ms": min(explaining["no_host_ms"], untraced) if explaining else None,
        "replayed_ms": replay["length_ms"] if replay else None,
        **{f"path_{share}": shares[share] for share in PATH_SHARES},
        "node_gap_us": replay["node_gap_us"] if replay else None,
        "verdict": verdict(shares) if explained else UNEXPLAINED,
        **_unsteady(record),
        "path": cell["budget"],
    }


def _unsteady(record: Record) -> dict[str, float | None]:
    """How many kernels, copies and calls the iterations do not have alike; their time, a mean over all iterations.

    None of records older than the check.
    """
    if "irregular" not in record:
        return dict.fromkeys(UNSTEADY_COLUMNS)
    every = [(one["what"] == "call", one["ns"] * one["iterations"] / one["of"]) for one in record["irregular"]]
    host, device = (sum(ns for called, ns in every if called == side) / NS_PER_MS for side in (True, False))
    return dict(zip(UNSTEADY_COLUMNS, (len(every), host, device), strict=True))


def explains(length_ms: float, latency_ms: float) -> bool:
    """Whether an iteration is as long as the latency, so that its critical path is the latency's."""
    return abs(length_ms / latency_ms - 1) <= REPRODUCED


def kernel_rows(cell: Record, record: Record) -> list[dict[str, Any]]:
    """The rows of a captured cell's kernels; none for one that could not run."""
    key = {name: cell[name] for name in KEY}
    return [
        key
        | {name: kernel[name] for name in ("class", "count", "name")}
        | {"kernel": kernel["short"], "us": kernel["ns"] / NS_PER_US}
        for kernel in record.get("kernels", [])
    ]


def replayed(record: Record, enqueue_ms: float | None, latency_ms: float | None = None) -> dict[str, Any] | None:
    """The iteration with a host as fast as untraced: submitting everything takes what a benchmark saw it take.

    A recorder of single nodes draws those of a CUDA graph apart. Where the iteration as recorded is too long for the
    latency for that reason, it is the one with its nodes as close together as unrecorded.

    Args:
        latency_ms: What the iteration is held against.

    Returns:
        ``length_ms``, ``no_work_ms`` if besides no work of the device took time, ``no_host_ms`` if instead the host
        took none, ``shares`` of the critical path, ``node_gap_us``: the most that lies between nodes, where that is
        not as recorded; None where the benchmark's submitting does not tell how fast its host was: it was slower than
        all replays, or waited for the device itself.
    """
    replays = record.get("replays")
    if not replays or enqueue_ms is None or pd.isna(enqueue_ms):
        return None
    recorded = _at_speed(replays, enqueue_ms)
    closer = replays.get("closer")
    if (
        recorded
        and closer
        and latency_ms
        and recorded["length_ms"] > latency_ms
        and not explains(recorded["length_ms"], latency_ms)
    ):
        near = _at_speed(closer, enqueue_ms)
        if near and explains(near["length_ms"], latency_ms):
            return near | {"node_gap_us": closer["node_gap_ns"] / NS_PER_US}
    return recorded


def _at_speed(replays: Mapping[str, Any], enqueue_ms: float) -> dict[str, Any] | None:
    """Where submitting takes so long; None where no replay does."""
    submitted = np.array(replays["submitted_ns"]) / NS_PER_MS
    if not submitted[0] / WAITED <= enqueue_ms <= submitted[-1]:
        return None

    def at(values: list[float]) -> float:
        return float(np.interp(enqueue_ms, submitted, values))

    return {
        "length_ms": at(replays["length_ns"]) / NS_PER_MS,
        "no_work_ms": at(replays["no_work_ns"]) / NS_PER_MS,
        "no_host_ms": replays["length_ns"][0] / NS_PER_MS,
        "shares": {share: at(values) for share, values in replays["shares"].items()},
        "node_gap_us": None,
    }


def _ms(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / NS_PER_MS
