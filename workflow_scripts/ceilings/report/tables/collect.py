"""Run records to tables: one row a planned cell, one a process, one an iteration.

Only what the plan names is read. A folder is never listed, so results of an earlier study cannot slip in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ceilings import records as written
from ceilings.errors import UserError
from ceilings.failure_kinds import FAILURE_KINDS
from ceilings.report.tables import failures, gates, text_verdicts
from ceilings.report.tables.budget_rows import budget_row, kernel_rows, read_budget
from ceilings.report.tables.change_cost_rows import change_tables
from ceilings.report.tables.changing_rows import changing_tables
from ceilings.report.tables.colocation_rows import colocation_tables
from ceilings.report.tables.counted_rows import COUNTED_COLUMNS, counted_rows, read_counted
from ceilings.report.tables.floor_rows import floor_table
from ceilings.report.tables.frames import BUDGET_COLUMNS, KERNEL_COLUMNS, Tables
from ceilings.report.tables.keys import KEY, ONNX_FILE, joined_levers, with_axes
from ceilings.report.tables.overlap_rows import overlap_table
from ceilings.report.tables.planned_record import read_record, refuse_repeated
from ceilings.report.tables.product_counts import product_columns
from ceilings.report.tables.quality_rows import quality_table
from ceilings.report.tables.quantities import (
    BY_COLUMN,
    CELL_COLUMNS,
    PERCENTILES,
    PRODUCT_COLUMNS,
    SOURCED,
    interval_columns,
    of_cell,
    of_process,
)
from ceilings.report.tables.search_rows import search_tables
from ceilings.report.tables.served_rows import served_tables
from ceilings.report.tables.transfer_rows import Transfers
from ceilings.runtimes.catalogue import GRAPH
from ceilings.statistics.intervals import mean_over_processes, median_over_processes, pooled_quantile
from ceilings.workload.shape import Shape

Record = Mapping[str, Any]
Sampled = tuple[dict[str, Any], np.ndarray]
"""What identifies a series, and its iterations in ns."""

NS_PER_MS = 1e6

END_TO_END = "latency_end_to_end"
"""The series of samples with the copies of inputs and outputs."""

OF_REQUESTS = ("request", "first_token", "token", "per_token")
"""Series of samples that come from requests: end to end, first token, gaps between tokens, and their mean a request."""


def collect(plan: Record) -> Tables:
    """All tables of a study.

    Args:
        plan: Content of ``plan.json``.

    Raises:
        UserError: A run, a floor, a record of quality or of an engine that the plan names is missing, damaged or of
            another cell, or its numbers cannot be.
    """
    cells: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    samples: list[Sampled] = []
    budgets: list[dict[str, Any]] = []
    kernels: list[dict[str, Any]] = []
    counted: list[dict[str, Any]] = []
    seen: dict[Hashable, str] = {}
    transfers = Transfers(plan)
    for cell in plan["cells"]:
        records = [read_run(path, cell, plan) for path in cell["runs"]]
        for path, record in zip(cell["runs"], records, strict=True):
            refuse_repeated(path, gates.samples(record), seen)
        transfers.add(cell, records)
        cells.append(cell_row(cell, records) | _price(plan, cell) | _source(plan, cell))
        runs += [run_row(cell, record) for record in records]
        samples += [series for record in records for series in sampled(cell, record)]
        if path := cell.get("budget"):
            budget = read_budget(path, cell)
            row = budget_row(cell, cells[-1], budget)
            budgets += [row] if row else []
            kernels += kernel_rows(cell, budget)
        if path := cell.get("counters"):
            counted += counted_rows(cell, read_counted(path, cell))
    every = _samples(samples)
    served = served_tables(plan, bare_means(every) if plan.get("serving") else {})
    return Tables(
        cells=with_axes(pd.DataFrame(cells, columns=CELL_COLUMNS).astype(dict.fromkeys(PRODUCT_COLUMNS, "Int64"))),
        runs=with_axes(pd.DataFrame(runs, columns=RUN_COLUMNS)),
        samples=every,
        floors=floor_table(plan["cells"], cells),
        budgets=with_axes(pd.DataFrame(budgets, columns=BUDGET_COLUMNS)),
        kernels=with_axes(pd.DataFrame(kernels, columns=KERNEL_COLUMNS)),
        counted_kernels=with_axes(pd.DataFrame(counted, columns=COUNTED_COLUMNS)),
        quality=quality_table(plan["cells"]),
        **vars(changing_tables(plan)),
        **vars(change_tables(plan)),
        **vars(search_tables(plan)),
        **vars(colocation_tables(plan)),
        overlap=overlap_table(plan),
        **vars(transfers.tables()),
        serving=served.serving,
        serving_windows=served.windows,
        serving_samples=served.samples,
    )


def read_run(path: str | Path, cell: Record, plan: Record) -> dict[str, Any]:
    """One run record, checked against the planned cell; failed where its outputs are wrong by the study's tolerance.

    Of generated text, the verdict that the plan names decides too.
    """
    record = read_record(path, "run", cell, "was measured for", lambda record: gates.run(record, plan, path))
    if flaw := gates.quantities(record):
        raise UserError(f"{path} is damaged ({flaw}); {written.anew(path)}")
    record = text_verdicts.judged(record, cell)
    if record["status"] == "ok" and (reason := gates.parity(record, plan)):
        return record | {"status": "failed", "failure": {"kind": "parity", "message": reason}, "series": {}}
    return record


# --- rows ------------------------------------------------------------------------------------------------------------


def cell_row(cell: Record, records: Sequence[Record]) -> dict[str, Any]:
    """The row of one planned cell, whatever became of it."""
    row = {name: cell[name] for name in KEY} | {
        **{name: cell.get(name) for name in ("aa_of", "stack", "artifact")},
        "lengths": cell.get("lengths") or "",
        "levers": joined_levers(_levers(cell, records)),
        "sweeps": ";".join(cell.get("sweeps") or []),
        "processes": len(records),
        "flags": _counted((flag for record in records for flag in record.get("flags", [])), len(records)),
    }
    row |= _parity(records)
    if not records:
        return row | {"status": "unavailable", "reason": cell["reason"], "remedy": cell["remedy"]}
    failed = [record for record in records if record["status"] != "ok"]
    if failed:
        return row | _failure(cell, failed, len(records))
    row |= {"status": "ok"} | _latencies(records) | _throughput(cell, records)
    for one in SOURCED:
        row |= of_cell(one, records)
    return row | _requests(cell, records, row) | product_columns(cell, records)


def run_row(cell: Record, record: Record) -> dict[str, Any]:
    """The row of one process."""
    row = {name: cell[name] for name in KEY}
    row |= {name: record.get(name) for name in ("run", "status", "log")}
    failure = record.get("failure") or {}
    row |= {"failure_kind": failure.get("kind"), "failure_message": failure.get("message")}
    row |= {one.column: of_process(one, record) for one in SOURCED}
    row |= {
        # "cold", or "warm" and how warm; None of what does not compile.
        "compile_cache": str((record.get("runtime") or {}).get("compile_cache") or "").partition(":")[0] or None,
        "flags": "; ".join(record.get("flags", [])),
        "threads": _compact(record.get("threads")),
        "energy": _compact(record.get("energy")),
        "gpu": _compact(_gpu(record)),
        "environment": _compact(_environment(record)),
    }
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
            "warmup_n": len(latency.get("warmup_ns") or []),
            "warmup_stable": latency.get("warmup_stable"),
            "stop_reason": latency.get("stop_reason"),
            "host_us": float(np.median(latency["host_ns"])) / 1e3 if latency.get("host_ns") else None,
        }
    throughput = series.get("throughput") or {}
    row |= {"saturated_per_s": throughput.get("inferences_per_s"), "concurrency": throughput.get("concurrency")}
    return row


def sampled(cell: Record, record: Record) -> list[Sampled]:
    """The series of one process, each in the order it was measured; of requests what their readers waited for."""
    every = {name: (series or {}).get("latency_ns") for name, series in (record.get("series") or {}).items()}
    requests = (record.get("series") or {}).get("requests") or {}
    every |= {name: requests.get(f"{name}_ns") for name in OF_REQUESTS}
    key = {column: cell[column] for column in KEY} | {"run": record["run"]}
    return [(key | {"series": name}, np.asarray(values, np.int64)) for name, values in every.items() if values]


# --- the parts of a cell's row ---------------------------------------------------------------------------------------


def _failure(cell: Record, failed: Sequence[Record], count: int) -> dict[str, Any]:
    failure = failed[0]["failure"]
    reason = failures.reason(failure)
    kinds = {record["failure"]["kind"] for record in failed}
    if len(failed) < count:
        reason = f"{len(failed)} of {count} processes failed, the others did not; {reason}"
    elif len(kinds) > 1:
        reason = f"the processes failed in different ways ({', '.join(sorted(kinds))}); {reason}"
    meaning = FAILURE_KINDS.get(failure["kind"], "unknown failure")
    remedy = f"see the log, mend the cause, then `rm -r {Path(cell['runs'][0]).parent}` and run again"
    if failure["kind"] == text_verdicts.UNREAD:
        remedy = text_verdicts.remedy(cell)
    elif cell.get("recorded"):
        remedy += " where it was measured"
    return {
        "status": "failed",
        "failure_kind": failure["kind"],
        "reason": reason,
        "remedy": f"{meaning}: {remedy}",
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
    row |= interval_columns(BY_COLUMN["p50_ms"], median_over_processes(groups))
    for name, q in PERCENTILES.items():
        row |= interval_columns(BY_COLUMN[f"{name}_ms"], pooled_quantile(groups, q))
    return row | {
        "warmup_stable": all(latency.get("warmup_stable", True) for latency in latencies),
        "stop_reasons": _counted((latency.get("stop_reason") for latency in latencies), len(latencies)),
    }


def _throughput(cell: Record, records: Sequence[Record]) -> dict[str, Any]:
    median_ms = median_over_processes([record["series"]["latency"]["latency_ns"] for record in records]).estimate
    row: dict[str, Any] = {"inferences_per_s": Shape.parse(cell["shape"]).batch * 1e9 / median_ms}
    saturated: list[Any] = [(record["series"].get("throughput") or {}).get("inferences_per_s") for record in records]
    if all(saturated):
        row |= interval_columns(BY_COLUMN["saturated_per_s"], mean_over_processes(saturated))
    return row


def _requests(cell: Record, records: Sequence[Record], row: Record) -> dict[str, Any]:
    """What follows from the requests of a model that generates; nothing unless every process has them.

    Args:
        row: The cell's, with what its records hold.
    """
    series: list[Any] = [record["series"].get("requests") for record in records]
    if not all(series):
        return {}
    shape = Shape.parse(cell["shape"])
    rate = shape["generated"] * 1e3 / row["request_p50_ms"]
    made: dict[str, Any] = {"tokens_per_s": rate, "total_tokens_per_s": rate * shape.batch}
    gaps = [np.asarray(one["token_ns"], np.float64) / NS_PER_MS for one in series]
    if all(map(len, gaps)):
        made |= interval_columns(BY_COLUMN["token_p99_ms"], pooled_quantile(gaps, 0.99))
    if row["token_j"]:
        made["tokens_per_j"] = 1 / row["token_j"]
    if row["peak_device_mb"] is not None and row["cache_mb"] is not None:
        made["peak_without_cache_mb"] = max(0.0, row["peak_device_mb"] - row["cache_mb"])
    return made


def _levers(cell: Record, records: Sequence[Record]) -> set[str]:
    """What is done to the stack, less the CUDA graphs that no iteration runs in: a step may be larger than each."""
    levers = set(cell.get("levers") or ())
    replayed = [(record.get("runtime") or {}).get("graph_replayed") for record in records]
    return levers - {GRAPH} if replayed and all(one is False for one in replayed) else levers


def _parity(records: Sequence[Record]) -> dict[str, Any]:
    """The worst over the processes."""
    compared = [record["parity"] for record in records if record.get("parity")]
    row = {}
    for name, worst in (("relative_l2", max), ("cosine", min), ("top1_agreement", min), ("token_agreement", min)):
        values = [parity[name] for parity in compared if parity.get(name) is not None]
        row[name] = worst(values) if values else None
    return row


def _environment(record: Record) -> dict[str, Any]:
    """What a reader needs to judge or repeat the run; digests and files stay in the record."""
    provenance, gpu = record.get("provenance") or {}, record.get("gpu") or {}
    return {name: value for name, value in provenance.items() if name not in ("sources", "modules")} | {
        "gpu": {name: gpu[name] for name in ("name", "driver") if gpu.get(name)},
        "host": record.get("host") or {},
        "threads": record.get("threads") or {},
        "protocol": record.get("protocol") or {},
    }


def _price(plan: Record, cell: Record) -> dict[str, Any]:
    return {"price_per_hour": (plan.get("price_per_hour") or {}).get(cell["device"])}


def _source(plan: Record, cell: Record) -> dict[str, Any]:
    weights = ((plan.get("models") or {}).get(cell["model"]) or {}).get("weights")
    return {"model_source": ONNX_FILE if isinstance(weights, Mapping) and "onnx" in weights else "weights"}


def _gpu(record: Record) -> dict[str, Any] | None:
    """Clocks, power and throttling beside the measured series; what identifies the card stays in the record."""
    gpu = record.get("gpu") or {}
    shown = ("latency", "throughput", "max_sm_mhz", "power_limit_w")
    return {name: gpu[name] for name in shown if gpu.get(name) is not None} or None


def _counted(values: Iterable[str | None], runs: int) -> str:
    return "; ".join(f"{value} ({count} of {runs} runs)" for value, count in Counter(values).items() if value)


def _compact(value: object) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))


# --- columns ---------------------------------------------------------------------------------------------------------


RUN_COLUMNS = [
    *(*KEY, "run", "status", "failure_kind", "failure_message", "log", "n"),
    *("p50_ms", "mean_ms", "min_ms", "max_ms", "warmup_n", "warmup_stable", "stop_reason", "host_us"),
    *("saturated_per_s", "concurrency"),
    *(one.column for one in SOURCED),
    *("compile_cache", "threads", "energy", "gpu", "flags", "environment"),
]

SAMPLE_COLUMNS = [*KEY, "run", "series", "i", "latency_ns"]


def _samples(every: Sequence[Sampled]) -> pd.DataFrame:
    if not every:
        return pd.DataFrame(columns=SAMPLE_COLUMNS)
    # The key repeats a million times: as categories it costs a byte or two a row, in memory and in the file.
    # It is repeated as codes: a frame for each series costs far more than its iterations.
    keys = pd.DataFrame([key for key, _ in every]).astype(dict.fromkeys((*KEY, "series"), "category"))
    counts = [len(values) for _, values in every]
    samples = keys.take(np.repeat(np.arange(len(every)), counts)).reset_index(drop=True)
    samples["i"] = np.concatenate([np.arange(count) for count in counts])
    samples["latency_ns"] = np.concatenate([values for _, values in every])
    return samples[SAMPLE_COLUMNS]


def bare_means(samples: pd.DataFrame) -> dict[tuple[Any, ...], float]:
    """Mean latency of each cell in ms: end to end where measured, since a server gets its inputs from a client."""
    means: dict[tuple[Any, ...], float] = {}
    for series in ("latency", END_TO_END):
        chosen = samples[samples["series"] == series]
        for key, mean in chosen.groupby(KEY, observed=True, sort=False)["latency_ns"].mean().items():
            means[tuple(key)] = mean / NS_PER_MS  # type: ignore[arg-type]
    return means
