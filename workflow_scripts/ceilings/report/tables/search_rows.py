"""Records of searches for the best batch to tables: a row a search, and a row a batch that it measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.tables import failures, gates
from ceilings.report.tables.planned_record import read_record
from ceilings.statistics import search_record
from ceilings.statistics.limit_search import Answer, Measured, answer
from ceilings.statistics.quantiles import Interval

Record = Mapping[str, Any]

SEARCH_KEY = ["device", "runtime", "model", "precision", "rest"]
"""The columns that name a search; ``rest`` is the shape without its batch."""

MB = 1e6


def _ends(name: str, unit: str) -> tuple[str, str, str]:
    """The columns of an interval."""
    return f"{name}_{unit}", f"{name}_low_{unit}", f"{name}_high_{unit}"


BEST_COLUMNS = [
    *(*SEARCH_KEY, "status", "reason", "remedy", "processes", "batches", "most", "multiple", "percentile"),
    *("limit_ms", "limit_times", "best", *_ends("p50", "ms"), *_ends("judged", "ms"), *_ends("inferences", "per_s")),
    *("gain", "gain_low", "gain_high", "smallest", "largest", "undecided_from", "undecided_to", "exceeds", "outliers"),
    *("level_from", "level_ms", "bounded_by", "bound_reason", "unseen"),
    *(*_ends("again", "ms"), "again_verdict", "flags", "path"),
]
"""One row a search.

``best``: the batch of the highest throughput among those measured that keep the limit; ``p50_ms``, ``judged_ms``,
``inferences_per_s``: its median latency, the percentile that is held against the limit, batch over median latency.
``gain``: that throughput over the one of the smallest batch, ``smallest``. ``largest``: the largest batch that keeps
the limit; ``undecided_from``, ``undecided_to``: first and last batch above it that are undecided or were not measured;
``exceeds``: the smallest above them that does not keep it. ``outliers``: smaller ones than ``largest`` that do not.
``level_from``, ``level_ms``: the smallest batch whose throughput is not decided to be lower, and its median latency.
``bounded_by``, ``bound_reason``: what keeps the throughput from growing; of a failure its message. ``unseen``: no batch
up to ``largest`` that was not measured has more than so many times the best's throughput, if no larger batch takes less
time. ``again_ms``: the best batch measured once more at the end, and what it then does with the limit.
"""

BATCH_COLUMNS = [
    *(*SEARCH_KEY, "step", "batch", "again", "verdict", "reason"),
    *(*_ends("p50", "ms"), *_ends("judged", "ms"), *_ends("inferences", "per_s"), "peak_mb"),
]
"""One row a batch that was measured, in its order. ``peak_mb``: memory, of the device where it has its own."""


@dataclasses.dataclass(frozen=True)
class SearchTables:
    """The tables of searches for the best batch."""

    best_batches: pd.DataFrame
    searched_batches: pd.DataFrame


def search_tables(plan: Record) -> SearchTables:
    """The tables of all searches that a plan has.

    Raises:
        UserError: A record that the plan names is missing, damaged or of another search.
    """
    searches, batches = [], []
    for one in plan.get("best_batch", []):
        key = {name: one[name] for name in SEARCH_KEY}
        if one["record"] is None:
            searches.append({**key, "status": "unavailable", "reason": one["reason"], "remedy": one["remedy"]})
            continue
        record = _read(one, plan)
        measured = search_record.measured(record["search"], record["steps"])
        batches += [
            {**key, "step": number, **_batch(step, each)}
            for number, (step, each) in enumerate(zip(record["steps"], measured, strict=True), 1)
        ]
        searches.append({**key, "path": one["record"], **_search(record, measured)})
    return SearchTables(pd.DataFrame(searches, columns=BEST_COLUMNS), pd.DataFrame(batches, columns=BATCH_COLUMNS))


def interval_of(row: Record, column: str, unit: str) -> Interval:
    """The interval that a row of these tables has of a column; one that nothing bounds reaches from 0 to infinity."""
    value, low, high = (row[name] for name in _ends(column, unit))
    return Interval(0.0, value, math.inf) if pd.isna(low) else Interval(low, value, high)


def _read(one: Record, plan: Record) -> dict[str, Any]:
    def flaw(record: Record) -> str | None:
        return gates.best_batch(record, plan)

    return read_record(one["record"], "best-batch", one, "was searched for", flaw, key=SEARCH_KEY)


def _search(record: Record, measured: Sequence[Measured]) -> dict[str, Any]:
    search, steps = record["search"], record["steps"]
    row = {name: search[name] for name in ("most", "multiple", "percentile", "processes", "limit_times")}
    row |= {"limit_ms": search["limit_ms"], "batches": len(steps), "flags": "; ".join(_flags(steps))}
    if record["status"] != "ok":
        return {**row, "status": "failed", "reason": failures.reason(record["failure"])}
    once = [one for one, step in zip(measured, steps, strict=True) if not step["again"]]
    by_batch = {one.batch: one for one in once}
    answered = answer(once, search["most"], search["multiple"])
    smallest = min(by_batch)
    failed = {step["batch"]: failures.reason(step["failure"]) for step in steps if step["status"] != "ok"}
    row |= {
        "status": "ok",
        "limit_ms": search_record.limit_ms(search, steps),
        "smallest": smallest,
        "largest": answered.largest or None,
        "undecided_from": answered.undecided and answered.undecided[0],
        "undecided_to": answered.undecided and answered.undecided[1],
        "exceeds": answered.exceeds,
        "outliers": ", ".join(map(str, answered.outliers)),
        "bounded_by": answered.bounded_by,
        "bound_reason": failed.get(answered.exceeds or 0),
    }
    if answered.best is None:
        return row | _interval("p50", "ms", by_batch[smallest].latency)
    return row | _best(answered, by_batch, smallest) | _again(measured[-1] if steps[-1]["again"] else None)


def _best(answered: Answer, by_batch: Mapping[int, Measured], smallest: int) -> dict[str, Any]:
    assert answered.best is not None and answered.level_from is not None
    best, first, level = by_batch[answered.best], by_batch[smallest].throughput, by_batch[answered.level_from].latency
    rate = best.throughput
    # Of two intervals, not of their processes: wider than a paired ratio, never narrower.
    gain = Interval(rate.low / first.high, rate.estimate / first.estimate, rate.high / first.low)
    return {
        "best": answered.best,
        **_batch_intervals(best),
        **dict(zip(("gain", "gain_low", "gain_high"), (gain.estimate, gain.low, gain.high), strict=True)),
        "level_from": answered.level_from,
        "level_ms": level.estimate if level else None,
        "unseen": answered.unseen,
    }


def _again(one: Measured | None) -> dict[str, Any]:
    if one is None:
        return {}
    return {**_interval("again", "ms", one.latency), "again_verdict": one.verdict}


def _batch(step: Record, one: Measured) -> dict[str, Any]:
    row = {
        **{"batch": one.batch, "again": step["again"], "verdict": one.verdict},
        "reason": None if step["status"] == "ok" else failures.reason(step["failure"]),
    }
    if one.latency is None:
        return row
    peaks = [run["memory"]["peak_device_bytes"] or run["memory"]["peak_rss_bytes"] for run in step["runs"]]
    return row | _batch_intervals(one) | {"peak_mb": max(peaks) / MB}


def _batch_intervals(one: Measured) -> dict[str, Any]:
    return {
        **_interval("p50", "ms", one.latency),
        **_interval("judged", "ms", one.judged),
        **_interval("inferences", "per_s", one.throughput),
    }


def _interval(name: str, unit: str, interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {}
    ends = (interval.low, interval.high) if interval.bounded else (None, None)
    return dict(zip(_ends(name, unit), (interval.estimate, *ends), strict=True))


def _flags(steps: Sequence[Record]) -> list[str]:
    """Every kind of flag once, with the batches that have it."""
    kinds: dict[str, dict[str, set[int]]] = {}
    for step in steps:
        for run in step["runs"] if step["status"] == "ok" else ():
            for flag in run["flags"]:
                kinds.setdefault(text.kind(flag), {}).setdefault(flag, set()).add(step["batch"])
    return [
        f"batch {', '.join(map(str, sorted(set().union(*same.values()))))}: {text.example(list(same))}"
        for same in kinds.values()
    ]
