"""Serving records to three tables: a row a load, a row a window, a row a request.

A run is a fresh server process. Its rounds are parts of it, as iterations are of a process: what differs between
servers is in every interval, and with one server nothing bounds anything.
"""

from __future__ import annotations

import collections
import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ceilings.failure_kinds import FAILURE_KINDS
from ceilings.graphs.parity import too_far
from ceilings.report.tables import failures, gates, served_windows
from ceilings.report.tables.keys import KEY
from ceilings.report.tables.planned_record import read_record
from ceilings.report.tables.quantities import interval_columns
from ceilings.report.tables.served_columns import CELL, SAMPLE_COLUMNS, SERVED, WINDOW_COLUMNS
from ceilings.report.tables.served_quantities import BY_COLUMN, SERVING_COLUMNS
from ceilings.report.tables.served_windows import MS, PARTS, STEADY
from ceilings.statistics.intervals import mean_over_processes, median_over_processes, pooled_quantile
from ceilings.workload.shape import Shape

Record = Mapping[str, Any]
Means = Mapping[tuple[Any, ...], float]
"""Mean latency in ms of each measured cell in a loop of its own, by the columns that name it."""

COVERED = 0.95
"""Of the requests, the share whose batch sizes were measured bare, from which on the bare mean is shown."""


@dataclass(frozen=True)
class Frames:
    """The three tables."""

    serving: pd.DataFrame
    windows: pd.DataFrame
    samples: pd.DataFrame


def served_tables(plan: Record, means: Means) -> Frames:
    """The tables of serving.

    Args:
        plan: Content of ``plan.json``; its ``serving`` lists the deployments, with the paths of their runs.
        means: Of the cells in loops of their own.

    Raises:
        UserError: A record that the plan names is missing, damaged or of another deployment, or its numbers cannot be.
    """
    rows: list[dict[str, Any]] = []
    windows: list[dict[str, Any]] = []
    samples: list[tuple[Record, int, Record]] = []
    for entry in plan.get("serving") or ():
        records = [read_serving(path, entry) for path in entry["runs"]]
        for cell in entry["cells"]:
            key, repeats = _key(entry, cell), {"aa_of": entry.get("aa_of")}
            if gone := _not_measured(plan, entry, cell, records):
                rows.append(key | repeats | gone)
                continue
            highest = 0.0
            for loaded in _by_load(cell, records):  # closed loops first
                answered = [(run, window) for run, window in loaded if _answers(window)]
                row = load_row(loaded, answered, records, means, key, highest) if answered else _unanswered(loaded)
                if row["kind"] == "closed" and answered:
                    highest = max(highest, row["answered_per_s"])
                rows.append(key | repeats | row | _setting(plan, entry, cell, records))
                windows += [key | window_row(run, window) for run, window in loaded]
                samples += [(key, run, window) for run, window in answered]
    return Frames(
        serving=_frame(rows, tuple(SERVING_COLUMNS)),
        windows=_frame(windows, tuple(WINDOW_COLUMNS)),
        samples=_samples(samples),
    )


def read_serving(path: str, entry: Record) -> dict[str, Any]:
    """One serving record, checked against the planned deployment."""
    return read_record(path, "serving", entry, "is of", gates.serving, key=("device", "deployment"))


# --- rows ------------------------------------------------------------------------------------------------------------

Loaded = Sequence[tuple[int, Record]]
"""The windows of one load, each with its run."""


def load_row(  # noqa: PLR0917 - all that one row is made of
    loaded: Loaded, answered: Loaded, records: Sequence[Record], means: Means, key: Record, highest: float
) -> dict[str, Any]:
    """What a load of a deployment showed, over all of its servers and rounds.

    Args:
        loaded: All of its windows.
        answered: Those in which a request was answered.
        highest: Throughput of the cell's closed loops, 1/s; 0 where there were none.
    """
    windows = [window for _, window in loaded]
    runs = _by_run(answered)
    groups = [_latencies(same) for same in runs]
    pool = np.concatenate(groups)
    row: dict[str, Any] = {
        **{"status": "ok", **load_of(windows)},
        **{"runs": len(runs), "windows": len(windows), "n": len(pool)},
        "failures": sum(sum(window["failed"].values()) for window in windows),
        **_queue(windows, highest),
        "client_ms": float(pool.mean()),
        "late_ms": float(np.concatenate([np.asarray(window["late_ns"], np.float64) for window in windows]).mean()) * MS,
        "client_busy": max(window["client_cores"] / window["client_cores_allowed"] for window in windows),
    }
    noticed = [served_windows.faults(window) for window in windows]
    row |= {"flagged": sum(map(bool, noticed)), "flags": _flags(noticed, records)}
    row |= interval_columns(BY_COLUMN["p50_ms"], median_over_processes(groups))
    for q in (90, 95, 99):
        row |= interval_columns(BY_COLUMN[f"p{q}_ms"], pooled_quantile(groups, q / 100))
    # Also of windows in which nobody came: they are part of a rate.
    rates = [
        sum(map(_answered, same)) / sum(map(_seconds, same)) for same in _by_run(loaded) if any(map(_answers, same))
    ]
    row |= interval_columns(BY_COLUMN["answered_per_s"], mean_over_processes(rates))
    return row | _account(windows, row["client_ms"]) | _formed(windows) | _bare(windows, means, key, records)


def _queue(windows: list[Record], highest: float) -> dict[str, Any]:
    """Whether an open loop came to a steady state; a closed loop always does."""
    if windows[0]["kind"] == "closed":
        return {"share": None, "growing": 0, "state": STEADY}
    share = load_of(windows)["rate_per_s"] / highest if highest else None
    grown = sum(map(served_windows.growing, windows))
    return {"share": share, "growing": grown, "state": served_windows.state(windows, share)}


def _unanswered(loaded: Loaded) -> dict[str, Any]:
    """A load of which no request was answered."""
    failed: Counter[str] = Counter()
    for _, window in loaded:
        failed.update(window["failed"])
    window = loaded[0][1]
    nobody = f"nobody came in windows of {_seconds(window):g} s; lengthen protocol.serving.window_seconds"
    why = failed.most_common(1)[0][0] if failed else nobody
    return {
        **{"status": "failed", **load_of([window for _, window in loaded])},
        **{"runs": len(_by_run(loaded)), "windows": len(loaded), "n": 0, "failures": sum(failed.values())},
        "reason": f"runtime-error: no request was answered: {why}",
    }


def _account(windows: list[Record], client_ms: float) -> dict[str, Any]:
    """The server's parts of a request, and what lies beyond; the parts add up to the client's mean."""
    row = {column: served_windows.over_windows(windows, counter) for column, counter in PARTS.items()}
    row["request_ms"] = request = served_windows.over_windows(windows, "request_ns")
    if request is None:
        return row
    row["beyond_ms"] = client_ms - request
    known = [value for column in PARTS if (value := row[column]) is not None]
    if len(known) == len(PARTS):
        row["rest_ms"] = request - sum(known)
    return row


def _formed(windows: list[Record]) -> dict[str, Any]:
    counted = served_windows.sizes(windows)
    executions = [window["server"].get("executions") for window in windows]
    inferences = [window["server"].get("inferences") for window in windows]
    row: dict[str, Any] = {"batch_sizes": None, "batch_mean": None}
    if counted:
        whole = sum(counted.values())
        row["batch_sizes"] = json.dumps({str(size): round(n / whole, 4) for size, n in counted.items()})
    if None not in executions and None not in inferences and sum(executions):
        row["batch_mean"] = sum(inferences) / sum(executions)
    elif counted:
        row["batch_mean"] = sum(size * n for size, n in counted.items()) / sum(counted.values())
    return row


def _bare(windows: list[Record], means: Means, key: Record, records: Sequence[Record]) -> dict[str, Any]:
    """The bare runtime at the sizes that were executed. A request waits for the whole batch that it is in, so a batch
    counts as often as it has inputs."""
    shape = Shape.parse(key["shape"])
    counted = served_windows.sizes(windows)
    if not counted:
        return {}
    weights: dict[int, int] = collections.Counter()
    for size, n in counted.items():
        weights[_executed(size, records[0]["server"].get("batching"))] += size * n
    known = {size: mean for size in weights if (mean := means.get(_at(key, shape, size))) is not None}
    covered = sum(weights[size] for size in known)
    if not covered or covered < COVERED * sum(weights.values()):
        return {}
    bare = sum(weights[size] * mean for size, mean in known.items()) / covered
    infer = served_windows.over_windows(windows, PARTS["infer_ms"])
    return {"bare_ms": bare, "added_ms": None if infer is None else infer - bare}


def _executed(formed: int, batching: Record | None) -> int:
    """The size that is executed for a batch of so many inputs: where batches are filled up, the next that is prepared.

    >>> pads = {"largest": 8, "preferred": [4], "pad": True}
    >>> [_executed(3, one) for one in (pads, {**pads, "pad": False}, None)], _executed(5, pads)
    ([4, 3, 3], 8)
    """
    if not batching or not batching.get("pad"):
        return formed
    prepared = sorted([*batching.get("preferred", ()), batching["largest"]])
    return next((size for size in prepared if size >= formed), formed)


def _at(key: Record, shape: Shape, size: int) -> tuple[Any, ...]:
    return (*(key[name] for name in KEY[:-1]), str(shape.with_sizes(batch=size)))


def window_row(run: int, window: Record) -> dict[str, Any]:
    """One window."""
    latencies = np.asarray(window["latency_ns"], np.float64) * MS
    late = np.asarray(window["late_ns"], np.float64) * MS
    counted, server = served_windows.sizes([window]), window["server"]
    return {
        **load_of([window]),
        **{"run": run, "round": window["round"], "n": len(latencies), "failures": sum(window["failed"].values())},
        **{"seconds": _seconds(window), "answered_per_s": _answered(window) / _seconds(window)},
        "p50_ms": float(np.median(latencies)) if len(latencies) else None,
        "client_ms": float(latencies.mean()) if len(latencies) else None,
        "late_ms": float(late.mean()) if len(late) else None,
        **{name: server.get(name) for name in ("requests", "executions", "inferences")},
        "request_ms": served_windows.mean_ms(window, "request_ns"),
        **{column: served_windows.mean_ms(window, counter) for column, counter in PARTS.items()},
        "batch_sizes": json.dumps({str(size): n for size, n in counted.items()}) if counted else None,
        "client_busy": window["client_cores"] / window["client_cores_allowed"],
        "growing": served_windows.growing(window),
        "flags": "; ".join(served_windows.faults(window)),
    }


def load_of(windows: Sequence[Record]) -> dict[str, Any]:
    """What a load is: of an open loop that was asked for as a share of the highest throughput, the rates' mean."""
    first = windows[0]
    if first["kind"] == "closed":
        clients = first["concurrency"]
        load = f"{clients} client{'s' if clients > 1 else ''}"
        return {"load": load, "kind": "closed", "concurrency": clients, "asked": None, "rate_per_s": None}
    asked = str(first.get("asked") or f"{first['rate']:g}")
    rate = float(np.mean([window["rate"] for window in windows]))
    return {
        "load": asked if _relative(asked) else f"{asked}/s",
        "kind": "open",
        "concurrency": None,
        "asked": asked,
        "rate_per_s": rate,
    }


# --- the parts -------------------------------------------------------------------------------------------------------


def _key(entry: Record, cell: str) -> dict[str, Any]:
    return {name: entry[name] for name in ("device", "deployment")} | dict(zip(CELL, cell.split("/"), strict=True))


def _not_measured(plan: Record, entry: Record, cell: str, records: Sequence[Record]) -> dict[str, Any] | None:
    """The columns of a cell that has no numbers: of the whole deployment, or because its answers are wrong."""
    if not records:
        return {"status": "unavailable", "reason": entry.get("reason"), "remedy": entry.get("remedy")}
    failed = [record for record in records if record["status"] != "ok"]
    again = f"see the log, mend the cause, then `rm -r results/serving/{entry['device']}/{entry['deployment']}`"
    if failed:
        failure = failed[0]["failure"]
        few = (
            f"{len(failed)} of {len(records)} servers failed, the others did not; "
            if len(failed) < len(records)
            else ""
        )
        return {
            "status": "failed",
            "reason": f"{few}{failures.reason(failure)}",
            "remedy": f"{FAILURE_KINDS.get(failure['kind'], 'unknown failure')}: {again}",
            "log": failed[0].get("log"),
        }
    tolerance = plan["tolerances"][_key(entry, cell)["precision"]]
    for record in records:
        if wrong := too_far(record["cells"][cell]["parity"], tolerance):
            remedy = f"{FAILURE_KINDS['parity']}: {again}"
            return {"status": "failed", "reason": f"parity: {wrong}", "remedy": remedy, "log": record.get("log")}
    if not any(window["cell"] == cell for record in records for window in record["windows"]):
        return {"status": "failed", "reason": "runtime-error: no load was measured", "remedy": again}
    return None


def _setting(plan: Record, entry: Record, cell: str, records: Sequence[Record]) -> dict[str, Any]:
    """What the deployment is, by its records."""
    server, client = records[0]["server"], records[0]["client"]
    batching = server.get("batching")
    row = {
        "server": server["kind"],
        "server_version": server.get("version"),
        "backend": server.get("backend"),
        "instances": server.get("instances"),
        "batching": json.dumps(batching, sort_keys=True) if batching else "",
        **{name: client[name] for name in ("transport", "shared_memory", "round_trip_ms")},
        "served": " ".join(entry["cells"]),
        "threads": (server.get("threads") or {}).get(cell),
        "limit_ms": (plan["protocol"].get("serving") or {}).get("limit_ms"),
        "server_cores": _cores(server.get("cores")),
        "client_cores": _cores(client.get("cores")),
    }
    for column, name in (("first_ready_ms", "first_start_ns"), ("warm_ready_ms", "warm_start_ns")):
        took = [(record["server"].get(name) or {}).get("ready") for record in records]
        if all(took):
            row |= interval_columns(BY_COLUMN[column], mean_over_processes(np.array(took, np.float64) * MS))
    return row


def _cores(cores: Sequence[int] | None) -> str | None:
    return None if cores is None else ",".join(map(str, cores))


def _by_load(cell: str, records: Sequence[Record]) -> list[Loaded]:
    """The windows of each load, in the order in which loads first come: rounds are shuffled, so sorted."""
    loads: dict[tuple[Any, ...], list[tuple[int, Record]]] = {}
    for record in records:
        for window in record["windows"]:
            if window["cell"] == cell:
                loads.setdefault(_load_key(window), []).append((record["run"], window))
    return [loads[key] for key in sorted(loads)]


def _load_key(window: Record) -> tuple[Any, ...]:
    if window["kind"] == "closed":
        return 0, window["concurrency"], 0.0, ""
    asked = window.get("asked")
    return (2, 0, float(asked[:-1]), asked) if _relative(asked) else (1, 0, window["rate"], "")


def _relative(asked: Any) -> TypeGuard[str]:
    """Whether a rate is a share of the highest throughput: ``0.8x``."""
    return isinstance(asked, str) and asked.endswith("x")


def _by_run(loaded: Loaded) -> list[list[Record]]:
    runs: dict[int, list[Record]] = {}
    for run, window in loaded:
        runs.setdefault(run, []).append(window)
    return list(runs.values())


def _latencies(windows: Iterable[Record]) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(window["latency_ns"], np.float64) * MS for window in windows])


def _answers(window: Record) -> bool:
    """Whether any request was answered, be it after the window."""
    return bool(window["latency_ns"])


def _answered(window: Record) -> float:
    """Requests that were answered within the window: what drains after it, of an overload, is no throughput."""
    return float(window["answered_inside"])


def _seconds(window: Record) -> float:
    return float(window["ended_ns"] - window["began_ns"]) / 1e9


def _flags(noticed: Sequence[Sequence[str]], records: Sequence[Record]) -> str:
    """What windows and runs noticed, each once, with how often."""
    of_windows = Counter(flag for flags in noticed for flag in flags)
    # A semicolon ends a flag, so none may hold one.
    of_runs = Counter(flag.replace("; ", ", ") for record in records for flag in record.get("flags", []))
    lines = [f"{flag} ({count} of {len(noticed)} windows)" for flag, count in of_windows.items()]
    return "; ".join([*lines, *(f"{flag} ({count} of {len(records)} servers)" for flag, count in of_runs.items())])


def _samples(windows: Sequence[tuple[Record, int, Record]]) -> pd.DataFrame:
    """Every answered request, of windows with what names their cell and their run.

    The key repeats with every request: as categories it costs a byte or two a row, in memory and in the file.
    """
    if not windows:
        return pd.DataFrame(columns=SAMPLE_COLUMNS)
    counts = [len(window["latency_ns"]) for *_, window in windows]
    keys = [{**key, "load": load_of([window])["load"]} for key, _, window in windows]
    columns: dict[str, Any] = {}
    for name in (*SERVED, "load"):
        values = [key[name] for key in keys]
        kinds = {value: code for code, value in enumerate(dict.fromkeys(values))}
        codes = np.repeat(np.array([kinds[value] for value in values], np.int32), counts)
        columns[name] = pd.Categorical.from_codes(codes, list(kinds))
    columns["run"] = np.repeat([run for _, run, _ in windows], counts)
    columns["round"] = np.repeat([window["round"] for *_, window in windows], counts)
    latencies = [np.asarray(window["latency_ns"], np.int64) for *_, window in windows]
    return pd.DataFrame({**columns, "latency_ns": np.concatenate(latencies)})[SAMPLE_COLUMNS]


COUNTS = {
    *("concurrency", "runs", "windows", "n", "failures", "flagged", "growing", "instances"),
    *("requests", "executions", "inferences", "threads"),
}


def _frame(rows: Sequence[Record], columns: tuple[str, ...]) -> pd.DataFrame:
    """Rows as a table; of most studies, without servers, the empty one, whose many types are set once."""
    return _typed(rows, columns) if rows else _without_rows(columns).copy()


def _typed(rows: Sequence[Record], columns: tuple[str, ...]) -> pd.DataFrame:
    types = dict.fromkeys((name for name in columns if name in COUNTS and name != "growing"), "Int64")
    return pd.DataFrame(rows, columns=columns).astype(types)


@functools.cache
def _without_rows(columns: tuple[str, ...]) -> pd.DataFrame:
    return _typed((), columns)
