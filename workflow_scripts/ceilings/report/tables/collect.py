"""Run records to tables: one row a planned cell, one a process, one an iteration.

Only what the plan names is read. A folder is never listed, so results of an earlier study cannot slip in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ceilings.errors import FAILURE_KINDS
from ceilings.report.tables.budget_rows import budget_row, kernel_rows, read_budget
from ceilings.report.tables.floor_rows import floor_table
from ceilings.report.tables.frames import BUDGET_COLUMNS, COLD_START, KERNEL_COLUMNS, KEY, PERCENTILES, Tables
from ceilings.report.tables.product_counts import PRODUCT_COLUMNS, product_columns
from ceilings.report.tables.records import read_record
from ceilings.statistics.intervals import mean_over_processes, median_over_processes, pooled_quantile
from ceilings.statistics.quantiles import Interval

Record = Mapping[str, Any]

NS_PER_MS = 1e6
BYTES_PER_MB = 1e6


def collect(plan: Record) -> Tables:
    """All tables of a study.

    Args:
        plan: Content of ``plan.json``.

    Raises:
        UserError: A run, a floor or an engine's record that the plan names is missing, damaged or of another cell.
    """
    cells: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    samples: list[pd.DataFrame] = []
    budgets: list[dict[str, Any]] = []
    kernels: list[dict[str, Any]] = []
    for cell in plan["cells"]:
        records = [read_run(path, cell) for path in cell["runs"]]
        cells.append(cell_row(cell, records) | _price(plan, cell))
        runs += [run_row(cell, record) for record in records]
        samples += [frame for record in records for frame in sample_frames(cell, record)]
        if path := cell.get("budget"):
            budget = read_budget(path, cell)
            row = budget_row(cell, cells[-1], budget)
            budgets += [row] if row else []
            kernels += kernel_rows(cell, budget)
    return Tables(
        cells=pd.DataFrame(cells, columns=CELL_COLUMNS).astype(dict.fromkeys(PRODUCT_COLUMNS, "Int64")),
        runs=pd.DataFrame(runs, columns=RUN_COLUMNS),
        samples=_samples(samples),
        floors=floor_table(plan["cells"], cells),
        budgets=pd.DataFrame(budgets, columns=BUDGET_COLUMNS),
        kernels=pd.DataFrame(kernels, columns=KERNEL_COLUMNS),
    )


def read_run(path: str | Path, cell: Record) -> dict[str, Any]:
    """One run record, checked against the planned cell."""

    def flaw(record: Record) -> str | None:
        ok = record["status"] == "ok"
        holds = record["series"]["latency"]["latency_ns"] if ok else record["failure"]["kind"]
        return None if holds else "it holds no latencies and no failure"

    return read_record(path, cell, "was measured for", flaw)


# --- rows ------------------------------------------------------------------------------------------------------------


def cell_row(cell: Record, records: Sequence[Record]) -> dict[str, Any]:
    """The row of one planned cell, whatever became of it."""
    row = {name: cell[name] for name in KEY} | {
        "twin_of": cell.get("twin_of"),
        "sweeps": ";".join(cell.get("sweeps") or []),
        "processes": len(records),
        "flags": _counted((flag for record in records for flag in record.get("flags", [])), len(records)),
    }
    row |= _parity(records)
    if not records:
        return row | {"status": "unavailable", "reason": cell["reason"], "remedy": cell["remedy"]}
    failed = [record for record in records if record["status"] != "ok"]
    if failed:
        return row | _failure(failed, len(records))
    row |= {"status": "ok"} | _latencies(records) | _throughput(cell, records)
    return row | _costs(records) | product_columns(cell, records)


def run_row(cell: Record, record: Record) -> dict[str, Any]:
    """The row of one process."""
    row = {name: cell[name] for name in KEY}
    row |= {name: record.get(name) for name in ("run", "status", "log")}
    failure = record.get("failure") or {}
    row |= {"failure_kind": failure.get("kind"), "failure_message": failure.get("message")}
    row |= {f"{stage}_ms": _ms(record.get("cold_start_ns", {}).get(stage)) for stage in COLD_START}
    row |= {
        # "cold", or "warm" and how warm; None of what does not compile.
        "compile_cache": str((record.get("runtime") or {}).get("compile_cache") or "").partition(":")[0] or None,
        "flags": "; ".join(record.get("flags", [])),
        "threads": _compact(record.get("threads")),
        "energy": _compact(record.get("energy")),
        "gpu": _compact(_gpu(record)),
        "environment": _compact(_environment(record)),
    }
    memory = record.get("memory") or {}
    row |= {"peak_rss_mb": _mb(memory.get("peak_rss_bytes")), "peak_device_mb": _mb(memory.get("peak_device_bytes"))}
    series = record.get("series") or {}
    latency = series.get("latency")
    if latency:
        values = np.asarray(latency["latency_ns"], dtype=np.float64) / NS_PER_MS
        row |= {
            "n": len(values),
            "p50_ms": float(np.median(values)),
            "mean_ms": float(values.mean()),
            "min_ms": float(values.min()),
            "max_ms": float(values.max()),
            "gpu_p50_ms": _median_ms([latency.get("gpu_ns")]),
            "enqueue_p50_ms": _median_ms([latency.get("enqueue_ns")]),
            "warmup_n": len(latency.get("warmup_ns") or []),
            "warmup_stable": latency.get("warmup_stable"),
            "stop_reason": latency.get("stop_reason"),
        }
    for name, column in OTHER_SERIES.items():
        row[column] = _median_ms([(series.get(name) or {}).get("latency_ns")])
    throughput = series.get("throughput") or {}
    row |= {"saturated_per_s": throughput.get("inferences_per_s"), "concurrency": throughput.get("concurrency")}
    return row


def sample_frames(cell: Record, record: Record) -> list[pd.DataFrame]:
    """The iterations of one process, in the order they were measured."""
    frames = []
    for name in ("latency", *OTHER_SERIES):
        values = ((record.get("series") or {}).get(name) or {}).get("latency_ns")
        if values:
            key = {column: cell[column] for column in KEY} | {"run": record["run"], "series": name}
            frames.append(pd.DataFrame(key | {"i": np.arange(len(values)), "latency_ns": np.asarray(values, np.int64)}))
    return frames


OTHER_SERIES = {
    "latency_end_to_end": "e2e_p50_ms",
    "latency_end_to_end_pageable": "e2e_pageable_p50_ms",
    "latency_cold": "cold_p50_ms",
}
"""Series beside the device-resident closed loop, and the column of each one's median."""


# --- the parts of a cell's row ---------------------------------------------------------------------------------------


def _failure(failed: Sequence[Record], count: int) -> dict[str, Any]:
    failure = failed[0]["failure"]
    reason = f"{failure['kind']}: {failure['message']}"
    kinds = {record["failure"]["kind"] for record in failed}
    if len(failed) < count:
        reason = f"{len(failed)} of {count} processes failed, the others did not; {reason}"
    elif len(kinds) > 1:
        reason = f"the processes failed in different ways ({', '.join(sorted(kinds))}); {reason}"
    meaning = FAILURE_KINDS.get(failure["kind"], "unknown failure")
    return {
        "status": "failed",
        "failure_kind": failure["kind"],
        "reason": reason,
        "remedy": f"{meaning}: see the log, mend the cause, and delete the cell's run files",
        "log": failed[0].get("log"),
    }


def _latencies(records: Sequence[Record]) -> dict[str, Any]:
    latencies = [record["series"]["latency"] for record in records]
    groups = [np.asarray(latency["latency_ns"], dtype=np.float64) / NS_PER_MS for latency in latencies]
    pool = np.concatenate(groups)
    medians = [float(np.median(group)) for group in groups]
    row: dict[str, Any] = {
        "n": len(pool),
        "mean_ms": float(pool.mean()),
        "process_spread": max(medians) / min(medians) - 1,
    }
    row |= _columns("p50", "_ms", median_over_processes(groups))
    for name, q in PERCENTILES.items():
        row |= _columns(name, "_ms", pooled_quantile(groups, q))
    row |= {
        "gpu_p50_ms": _median_ms([latency.get("gpu_ns") for latency in latencies]),
        "enqueue_p50_ms": _median_ms([latency.get("enqueue_ns") for latency in latencies]),
        "warmup_stable": all(latency.get("warmup_stable", True) for latency in latencies),
        "stop_reasons": _counted((latency.get("stop_reason") for latency in latencies), len(latencies)),
    }
    for name, column in OTHER_SERIES.items():
        row[column] = _median_ms([(record["series"].get(name) or {}).get("latency_ns") for record in records])
    return row


def _throughput(cell: Record, records: Sequence[Record]) -> dict[str, Any]:
    median_ms = median_over_processes([record["series"]["latency"]["latency_ns"] for record in records]).estimate
    row: dict[str, Any] = {"inferences_per_s": cell["batch"] * 1e9 / median_ms}
    saturated: list[Any] = [(record["series"].get("throughput") or {}).get("inferences_per_s") for record in records]
    if all(saturated):
        row |= _columns("saturated", "_per_s", mean_over_processes(saturated))
    return row


def _costs(records: Sequence[Record]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for stage in COLD_START:
        values = [record.get("cold_start_ns", {}).get(stage) for record in records]
        row[f"{stage}_ms"] = _ms(float(np.median(values))) if None not in values else None
    for name in ("rss", "device"):
        values = [(record.get("memory") or {}).get(f"peak_{name}_bytes") for record in records]
        row[f"peak_{name}_mb"] = _mb(max(values)) if None not in values else None
    return row


def _parity(records: Sequence[Record]) -> dict[str, Any]:
    """The worst over the processes."""
    found = [record["parity"] for record in records if record.get("parity")]
    row = {}
    for name, worst in (("relative_l2", max), ("cosine", min), ("top1_agreement", min)):
        values = [parity[name] for parity in found if parity.get(name) is not None]
        row[name] = worst(values) if values else None
    return row


def _environment(record: Record) -> dict[str, Any]:
    """What a reader needs to judge or repeat the run; the digests of its sources stay in the record."""
    provenance, gpu = record.get("provenance") or {}, record.get("gpu") or {}
    return {name: value for name, value in provenance.items() if name != "sources"} | {
        "gpu": {name: gpu[name] for name in ("name", "driver") if gpu.get(name)},
        "host": record.get("host") or {},
        "threads": record.get("threads") or {},
        "protocol": record.get("protocol") or {},
    }


def _price(plan: Record, cell: Record) -> dict[str, Any]:
    return {"price_per_hour": (plan.get("price_per_hour") or {}).get(cell["device"])}


def _gpu(record: Record) -> dict[str, Any] | None:
    """Clocks, power and throttling beside the measured series; what identifies the card stays in the record."""
    gpu = record.get("gpu") or {}
    shown = ("latency", "throughput", "max_sm_mhz", "power_limit_w")
    return {name: gpu[name] for name in shown if gpu.get(name) is not None} or None


def _columns(name: str, unit: str, interval: Interval | None) -> dict[str, float | None]:
    """Three columns; the ends stay empty where nothing bounds the estimate."""
    if interval is None:
        return {f"{name}{unit}": None, f"{name}_low{unit}": None, f"{name}_high{unit}": None}
    ends = (interval.low, interval.high) if interval.bounded else (None, None)
    return {f"{name}{unit}": interval.estimate, f"{name}_low{unit}": ends[0], f"{name}_high{unit}": ends[1]}


def _median_ms(groups: Iterable[Sequence[int] | None]) -> float | None:
    """Median over processes of their medians, in logarithms as the p50's; None where a process has no such series."""
    medians = [float(np.median(group)) if group else None for group in groups]
    return None if None in medians else float(np.exp(np.median(np.log(np.array(medians, np.float64))))) / NS_PER_MS


def _ms(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / NS_PER_MS


def _mb(value_bytes: float | None) -> float | None:
    return None if value_bytes is None else value_bytes / BYTES_PER_MB


def _counted(values: Iterable[str | None], of: int) -> str:
    return "; ".join(f"{value} ({count} of {of} runs)" for value, count in Counter(values).items() if value)


def _compact(value: object) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))


# --- columns ---------------------------------------------------------------------------------------------------------


def _triple(name: str, unit: str) -> list[str]:
    return [f"{name}{unit}", f"{name}_low{unit}", f"{name}_high{unit}"]


CELL_COLUMNS = [
    *("device", "runtime", "twin_of", "model", "precision", "batch", "sequence", "sweeps"),
    *("status", "reason", "remedy", "failure_kind", "log", "processes", "n"),
    *_triple("p50", "_ms"),
    *(column for name in PERCENTILES for column in _triple(name, "_ms")),
    *("mean_ms", "gpu_p50_ms", "enqueue_p50_ms", *OTHER_SERIES.values(), "process_spread"),
    *("inferences_per_s", *_triple("saturated", "_per_s"), "price_per_hour"),
    *(f"{stage}_ms" for stage in COLD_START),
    *("relative_l2", "cosine", "top1_agreement", *PRODUCT_COLUMNS, "peak_rss_mb", "peak_device_mb"),
    *("warmup_stable", "stop_reasons", "flags"),
]

RUN_COLUMNS = [
    *(*KEY, "run", "status", "failure_kind", "failure_message", "log", "n"),
    *("p50_ms", "mean_ms", "min_ms", "max_ms", "gpu_p50_ms", "enqueue_p50_ms", *OTHER_SERIES.values()),
    *("warmup_n", "warmup_stable", "stop_reason", "saturated_per_s", "concurrency"),
    *(f"{stage}_ms" for stage in COLD_START),
    *("compile_cache", "peak_rss_mb", "peak_device_mb", "threads", "energy", "gpu", "flags", "environment"),
]

SAMPLE_COLUMNS = [*KEY, "run", "series", "i", "latency_ns"]


def _samples(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if not frames:
        return pd.DataFrame(columns=SAMPLE_COLUMNS)
    samples = pd.concat(frames, ignore_index=True)[SAMPLE_COLUMNS]
    # The key repeats a million times: as categories it costs a byte or two a row, in memory and in the file.
    return samples.astype(dict.fromkeys(("device", "runtime", "model", "precision", "series"), "category"))
