"""Records of copies beside compute to a table: a row a schedule of a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ceilings.measure.schedules import THREE
from ceilings.report.tables import failures, gates
from ceilings.report.tables.keys import KEY
from ceilings.report.tables.planned_record import read_record
from ceilings.statistics.interference import largest_factor
from ceilings.statistics.intervals import paired_over_processes, pooled_quantile
from ceilings.statistics.pipelining import REFERENCE, Parts, log_gains, log_repeats, paces, parts
from ceilings.statistics.quantiles import Interval

Record = Mapping[str, Any]

OVERLAP_KEY = [*KEY, "schedule"]
"""The columns that name a row."""

NS_PER_MS = 1e6

OVERLAP_COLUMNS = [
    *(*OVERLAP_KEY, "status", "reason", "remedy", "log", "processes"),
    *("batch", "bytes_in", "bytes_out", "streams", "buffers", "in_flight", "pinned"),
    *("per_s", "p50_ms", "p99_ms", "gain", "gain_low", "gain_high", "noise", "predicted", "bound"),
    *("copy_in_ms", "compute_ms", "copy_out_ms", "host_ms"),
    *("hidden_share", "captured_copies_ms", "captured_compute_ms", "captured_period_ms", "source"),
    *("sm_busy", "checked", "flags", "path", "hidden"),
]
"""One row a schedule of a cell; one alone, without a schedule, of a cell that was not measured.

``gain``: requests a second over those of one stream, ``low``, ``high`` of 95%; ``noise``: by what fraction one stream
may differ from itself in a round. ``predicted``: of three streams, the gain by ``copy_in_ms``, ``compute_ms``,
``copy_out_ms`` (spans of requests on one stream) and ``host_ms`` (the calls that submit one); ``bound``: the longest of
them. ``hidden_share``: of the time of copies, what lies under kernels of other requests, in the capture that ``hidden``
accounts for; empty without one, and ``captured`` times too. ``sm_busy``: the share of multiprocessors that are busy, by
NVML's hardware counters.
"""


def overlap_table(plan: Record) -> pd.DataFrame:
    """The table of all cells of a plan whose copies are run beside their compute.

    Raises:
        UserError: A record that the plan names is missing, damaged or of another cell.
    """
    rows: list[dict[str, Any]] = []
    for planned in plan.get("overlap", []):
        records = [_read(path, planned, plan) for path in planned["runs"]]
        key = {name: planned[name] for name in KEY}
        row = {**key, "processes": len(records), "path": planned["runs"][0] if records else None}
        if records:
            row["flags"] = "; ".join(_flags(records))
        if lacking := failures.without_numbers(planned, records):
            rows.append({**row, **lacking})
            continue
        captured = _captured(planned)
        rows += [
            {
                **row,
                "status": "ok",
                "hidden": planned["hidden"] if captured else None,
                **_schedule(records, at, captured),
            }
            for at in range(len(records[0]["schedules"]))
        ]
    return pd.DataFrame(rows, columns=OVERLAP_COLUMNS)


def read_hidden(path: str, planned: Record) -> dict[str, Any]:
    """The account of a cell's capture.

    Raises:
        UserError: It is missing, damaged or of another cell.
    """
    return read_record(path, "hidden-copies", planned, "was captured for", lambda record: None)


def _read(path: str, planned: Record, plan: Record) -> dict[str, Any]:
    return read_record(path, "overlap", planned, "was measured for", lambda record: gates.overlap(record, plan, path))


def _captured(planned: Record) -> dict[str, Any]:
    """What a capture says of each schedule, by its name; empty where there is none, or it failed."""
    if not planned["hidden"]:
        return {}
    record = read_hidden(planned["hidden"], planned)
    if record["status"] != "ok":
        return {}
    return {one["name"]: {**one, "source": record["source"]} for one in record["schedules"]}


def _flags(records: Sequence[Record]) -> list[str]:
    counted = {flag: sum(flag in record["flags"] for record in records) for each in records for flag in each["flags"]}
    return [f"{flag} ({count} of {len(records)} runs)" for flag, count in counted.items()]


def _schedule(records: Sequence[Record], at: int, captured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first, schedule = records[0], records[0]["schedules"][at]
    name = schedule["name"]
    row = {
        "schedule": name,
        **{key: first[key] for key in ("batch", "bytes_in", "bytes_out")},
        **{key: schedule[key] for key in ("streams", "buffers", "in_flight", "pinned")},
        "checked": sum(record["checked"] for record in records),
        "per_s": float(np.exp(np.mean([np.log(paces(record, name)).mean() for record in records]))) * first["batch"],
        "p50_ms": _quantile(records, name, 0.5),
        "p99_ms": _quantile(records, name, 0.99),
        "noise": _noise(records),
    }
    each_run = [parts(record) for record in records]
    mean = Parts(**{part: float(np.mean([getattr(one, part) for one in each_run])) for part in _PARTS})
    row |= {f"{part}_ms": getattr(mean, part) / NS_PER_MS for part in _PARTS}
    row["sm_busy"] = _busy(records, name)
    if name != REFERENCE:
        row |= _interval("gain", paired_over_processes([log_gains(record, name) for record in records]))
    if name == THREE:
        row |= {"predicted": mean.gain, "bound": mean.bound}
    if one := captured.get(name):
        row |= {
            "hidden_share": one["hidden_share"],
            "captured_copies_ms": (one["copy_in_ns"] + one["copy_out_ns"]) / NS_PER_MS,
            "captured_compute_ms": one["compute_ns"] / NS_PER_MS,
            "captured_period_ms": one["period_ns"] / NS_PER_MS,
            "source": one["source"],
        }
    return row


_PARTS = ("copy_in", "compute", "copy_out", "host")


def _quantile(records: Sequence[Record], name: str, q: float) -> float | None:
    """A quantile of the latencies of a schedule in ms; None where there are too few for it."""
    groups = [
        np.concatenate([window["latency_ns"] for window in record["windows"] if window["schedule"] == name])
        for record in records
    ]
    quantile = pooled_quantile(groups, q)
    return None if quantile is None else quantile.estimate / NS_PER_MS


def _busy(records: Sequence[Record], name: str) -> float | None:
    """Mean share of the multiprocessors that are busy in the windows of a schedule; None where NVML does not say."""
    windows = [one for record in records for one in record["windows"] if one["schedule"] == name]
    shares = [share for one in windows if (share := (one["activity"] or {}).get("sm")) is not None]
    return float(np.mean(shares)) if len(shares) == len(windows) else None


def _noise(records: Sequence[Record]) -> float | None:
    """By what fraction one stream differs from itself in a round; None of one process."""
    if len(records) < 2:
        return None
    repeats = paired_over_processes([log_repeats(record) for record in records])
    return largest_factor(repeats.low, repeats.high)


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    bounded = interval.bounded
    return {
        name: interval.estimate,
        f"{name}_low": interval.low if bounded else None,
        f"{name}_high": interval.high if bounded else None,
    }
