"""Records of changing shapes to tables: a row a cell, and of each cell a row a process, shape, transition, request."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ceilings.report.tables import gates
from ceilings.report.tables.keys import joined_levers
from ceilings.report.tables.padded_rows import BUCKET_COLUMNS, PADDED_COLUMNS, curve, padding, reason
from ceilings.report.tables.planned_record import read_record, unbelievable
from ceilings.statistics.quantiles import Interval
from ceilings.statistics.shape_costs import first_ms, growth_bytes, return_ms, rounds_of, steady_median_ms, steady_ms
from ceilings.statistics.shape_tax import change_cost, drift, excess, tax, transitions
from ceilings.workload.shape_order import Requests

Record = Mapping[str, Any]

CHANGING_KEY = ["device", "runtime", "model", "precision", "sequence"]
"""The columns that name a cell of changing shapes."""

MB = 1e6
NS_PER_MS = 1e6

CHANGING_COLUMNS = [
    *(*CHANGING_KEY, "levers", "status", "reason", "remedy", "processes", "requests", "shapes", "changes"),
    *("tax", "tax_low", "tax_high", "drift", "drift_low", "drift_high", "sequence_ms", "steady_ms"),
    *("change_cost", "change_cost_low", "change_cost_high"),
    *("first_ms", "worst_first_ms", "return_ratio", "growth_mb", "graphs", "eager_shapes"),
    *("worst_previous", "worst_shape", "worst_ratio"),
    *(*PADDED_COLUMNS, "flags", "path"),
]
"""One row a cell.

``levers``: what is done to the stack, as in the table of cells. ``tax``: mean latency over the sequence, over that of
the same requests at their steady latencies; ``low``, ``high`` of 95%. ``drift``: steady latencies after a pass over
those before it, weighted in the same way. ``sequence_ms``, ``steady_ms``: both means. ``change_cost``: latency of
requests after another shape, over that of the same after their shape, both in the sequence; empty where it does not
have both. ``first_ms``, ``worst_first_ms``: mean and largest latency of a first appearance, the first request of the
process apart. ``return_ratio``: median over the shapes of the first request after another shape, over the steady
latency. ``growth_mb``: memory that the shapes after the first one added. ``graphs``: those compiled. ``worst_*``: the
transition that costs most beside its shape's steady latency.
"""

RUN_COLUMNS = [*CHANGING_KEY, "run", "padded", "sequence_ms", "steady_ms"]
"""One row a process, with its requests padded or not: their mean in the sequence and at the steady latencies."""

SHAPE_COLUMNS = [
    *(*CHANGING_KEY, "shape", "requests", "steady_ms", "first_ms", "return_ms", "memory_mb", "compiled", "runs_at")
]
"""One row a shape of a cell; means, of returns and memory medians, over the processes."""

TRANSITION_COLUMNS = [
    *(*CHANGING_KEY, "previous", "shape", "count", "median_ms", "steady_ms", "ratio", "mean_ratio", "excess_ms")
]
"""One row a pair of shapes that follow each other: the median latency of the second one, and its steady median.

``ratio``: the first over the second, each of one process, the median of processes: these may differ in their speed.
``mean_ratio``: the same of means, which shows what only some of these requests pay. ``excess_ms``: what the pair adds
to the mean latency of a request of the sequence, beside the steady latencies.
"""

REQUEST_COLUMNS = [*CHANGING_KEY, "run", "part", "i", "shape", "latency_ms"]
"""One row a request of a cell's first process; ``part`` 0 is the pass from a cold start."""


@dataclasses.dataclass(frozen=True)
class ChangingTables:
    """The tables of changing shapes."""

    changing: pd.DataFrame
    changing_runs: pd.DataFrame
    changing_shapes: pd.DataFrame
    changing_buckets: pd.DataFrame
    transitions: pd.DataFrame
    changing_requests: pd.DataFrame


def changing_tables(plan: Record) -> ChangingTables:
    """The tables of all cells of changing shapes that a plan has.

    Raises:
        UserError: A record that the plan names is missing, damaged, of another cell or of other requests than the rest
            of its sequence.
    """
    asked: dict[tuple[str, str], tuple[str, Record]] = {}
    cells, runs, shapes, buckets, pairs, requests = [], [], [], [], [], []
    for cell in plan.get("changing", []):
        records = [_read(path, cell, plan, padded=False) for path in cell["runs"]]
        padded = [_read(path, cell, plan, padded=True) for path in cell["padded"]]
        chosen = _read_buckets(cell["buckets"], cell) if cell["buckets"] else None
        key = {name: cell[name] for name in CHANGING_KEY}
        row = {
            **key,
            "levers": joined_levers(cell.get("levers") or ()),
            "processes": len(records),
            "path": str(cell["runs"][0]) if records else None,
        }
        if not records:
            cells.append({**row, "status": "unavailable", "reason": cell["reason"], "remedy": cell["remedy"]})
            continue
        row |= _of_requests(records[0]["requests"]) | {"flags": "; ".join(_flags(records))}
        if any(record["status"] != "ok" for record in records):
            cells.append({**row, "status": "failed", **_failure(cell, records)})
            continue
        first = asked.setdefault((cell["model"], cell["sequence"]), (cell["runs"][0], records[0]["requests"]))
        _hold_requests(cell, "runs", records, *first)
        if chosen and chosen["status"] == "ok":
            _hold_padded(cell, padded, chosen, records[0]["requests"])
        every = _transitions(records)
        whole = bool(padded) and all(record["status"] == "ok" for record in padded)
        cells.append({**row, "status": "ok", **_costs(records), **_worst(every)})
        cells[-1] |= padding(chosen, padded, _means(padded)["sequence_ms"] if whole else None)
        runs += [{**key, **_run(one)} for one in (*records, *(padded if whole else ()))]
        shapes += [{**key, **one} for one in _shapes(records, chosen)]
        buckets += [{**key, **one} for one in curve(chosen)]
        pairs += [{**key, **one} for one in every]
        requests += [{**key, **one} for one in _requests(records[0])]
    return ChangingTables(
        pd.DataFrame(cells, columns=CHANGING_COLUMNS),
        pd.DataFrame(runs, columns=RUN_COLUMNS),
        pd.DataFrame(shapes, columns=SHAPE_COLUMNS),
        pd.DataFrame(buckets, columns=[*CHANGING_KEY, *BUCKET_COLUMNS]),
        pd.DataFrame(pairs, columns=TRANSITION_COLUMNS),
        pd.DataFrame(requests, columns=REQUEST_COLUMNS),
    )


def _read(path: str, cell: Record, plan: Record, *, padded: bool) -> dict[str, Any]:
    def flaw(record: Record) -> str | None:
        return gates.changing(record, plan, path, padded=padded)

    record = read_record(path, "changing", cell, "was measured for", flaw, key=CHANGING_KEY)
    if record["status"] == "ok" and (wrong := gates.changing_parity(record, plan)):
        return record | {"status": "failed", "failure": {"kind": "parity", "message": wrong}}
    return record


def _hold_requests(cell: Record, which: str, records: Sequence[Record], source: str, requests: Record) -> None:
    """Refuse a measured process of other requests than ``source`` has, and one that is there twice."""
    measured = [(path, one) for path, one in zip(cell[which], records, strict=True) if one["status"] == "ok"]
    for i, (path, one) in enumerate(measured):
        if problem := gates.changing_requests(one, requests, [each for _, each in measured[:i]]):
            raise unbelievable(path, cell, f"{problem}; held against {source}")


def _hold_padded(cell: Record, padded: Sequence[Record], chosen: Record, requests: Record) -> None:
    """Refuse padded processes that did not run the cell's requests at its buckets."""
    if missing := set(requests["shapes"]) - set(chosen["runs_at"]):
        raise unbelievable(cell["buckets"], cell, f"{min(missing)} has no bucket")
    at_buckets = Requests.from_json(requests).padded(chosen["runs_at"]).to_json()
    _hold_requests(cell, "padded", padded, cell["buckets"], at_buckets)


def _read_buckets(path: str, cell: Record) -> dict[str, Any]:
    return read_record(path, "buckets", cell, "was chosen for", lambda _: None, key=CHANGING_KEY)


def _of_requests(requests: Record) -> dict[str, Any]:
    order = requests["order"]
    return {
        "requests": len(order),
        "shapes": len(requests["shapes"]),
        "changes": sum(a != b for a, b in itertools.pairwise(order)),
    }


def _flags(records: Sequence[Record]) -> list[str]:
    counted = {flag: sum(flag in record["flags"] for record in records) for each in records for flag in each["flags"]}
    flags = [f"{flag} ({count} of {len(records)} runs)" for flag, count in counted.items()]
    ran, logged = len(records[0]["requests"]["order"]), records[0]["requests"]["logged"]
    if logged and logged > ran:
        flags.append(f"the log has {logged} requests, and the first {ran} by arrival ran (requests sets how many)")
    return flags


def _failure(cell: Record, records: Sequence[Record]) -> dict[str, Any]:
    """Why a cell of which any process failed has no numbers, and what to do about it."""
    failed = [record for record in records if record["status"] != "ok"]
    part = f"{len(failed)} of {len(records)} processes failed, the others did not; "
    first = failed[0]
    mend = f"see {first['log']}, mend the cause" if first.get("log") else "mend the cause"
    where = " where it was measured" if cell.get("recorded") else ""
    return {
        "reason": f"{part if len(failed) < len(records) else ''}{reason(first)}",
        "remedy": f"{mend}, then `rm -r {Path(cell['runs'][0]).parent}` and run again{where}",
    }


def _run(record: Record) -> dict[str, Any]:
    return {"run": record["run"], "padded": record["padded"], **_means([record])}


def _costs(records: Sequence[Record]) -> dict[str, Any]:
    rounds = [rounds_of(record) for record in records]
    row = _interval("tax", tax(rounds)) | _interval("drift", drift(rounds))
    row |= _means(records)
    if cost := change_cost(rounds):
        row |= _interval("change_cost", cost)
    several = len(records[0]["requests"]["shapes"]) > 1
    returned = [np.divide(return_ms(record), steady_median_ms(record)) for record in records] if several else []
    first = np.array([first_ms(record)[1:] for record in records])
    growth = [sum(growth_bytes(record)[1:]) for record in records]
    graphs = [record["graphs"] for record in records]
    eager = [sum(not one for one in record["compiled"]) for record in records if record["compiled"] is not None]
    return row | {
        "first_ms": float(first.mean()) if several else None,
        "worst_first_ms": float(first.max()) if several else None,
        "return_ratio": float(np.median(np.median(returned, axis=0))) if returned else None,
        "growth_mb": float(np.median(growth)) / MB,
        "graphs": None if graphs[0] is None else max(graphs),
        "eager_shapes": max(eager) if eager else None,
    }


def _means(records: Sequence[Record]) -> dict[str, Any]:
    """Mean latency of a request in the sequence, and at the steady latencies."""
    rounds = [each for record in records for each in rounds_of(record)]
    order = rounds[0].order[1:]
    at_steady = [np.mean([steady[shape] for shape in order]) for steady in (each.steady() for each in rounds)]
    return {
        "sequence_ms": float(np.mean([np.mean(each.latency[1:]) for each in rounds])),
        "steady_ms": float(np.mean(at_steady)),
    }


def _transitions(records: Sequence[Record]) -> list[dict[str, Any]]:
    names = records[0]["requests"]["shapes"]
    steady = np.median([steady_median_ms(record) for record in records], axis=0)
    rounds = [each for record in records for each in rounds_of(record)]
    grouped, added = transitions(rounds), excess(rounds)
    requests = sum(len(each.order) - 1 for each in rounds)
    ratios = [_ratios(record) for record in records]
    rows = []
    for (previous, shape), latencies in sorted(grouped.items()):
        rows.append(
            {
                "previous": names[previous],
                "shape": names[shape],
                "count": len(latencies),
                "median_ms": float(np.median(latencies)),
                "steady_ms": float(steady[shape]),
                "ratio": float(np.median([each[previous, shape] for each in ratios])),
                "mean_ratio": float(np.sum(latencies)) / (float(np.sum(latencies)) - requests * added[previous, shape]),
                "excess_ms": added[previous, shape],
            }
        )
    return rows


def _ratios(record: Record) -> dict[tuple[int, int], float]:
    """Of one process the median latency of each pair of shapes over the second one's steady median."""
    steady = steady_median_ms(record)
    pairs = transitions(list(rounds_of(record)))
    return {pair: float(np.median(latencies)) / float(steady[pair[1]]) for pair, latencies in pairs.items()}


def _worst(pairs: Sequence[Record]) -> dict[str, Any]:
    changes = [pair for pair in pairs if pair["previous"] != pair["shape"]]
    if not changes:
        return {}
    worst = max(changes, key=lambda pair: pair["ratio"])
    return {"worst_previous": worst["previous"], "worst_shape": worst["shape"], "worst_ratio": worst["ratio"]}


def _shapes(records: Sequence[Record], chosen: Record | None) -> list[dict[str, Any]]:
    names, order = records[0]["requests"]["shapes"], records[0]["requests"]["order"]
    counts = np.bincount(order)
    steady = np.mean([steady_ms(record) for record in records], axis=0)
    first = np.mean([first_ms(record) for record in records], axis=0)
    returns = np.median([return_ms(record) for record in records], axis=0)
    memory = np.median([growth_bytes(record) for record in records], axis=0) / MB
    compiled = [record["compiled"] for record in records]
    runs_at = chosen["runs_at"] if chosen and chosen["status"] == "ok" else {}
    return [
        {
            "shape": name,
            "requests": int(counts[index]),
            "steady_ms": float(steady[index]),
            "first_ms": float(first[index]),
            "return_ms": float(returns[index]) if len(names) > 1 else None,
            "memory_mb": float(memory[index]) if index else None,  # of the first one it is the process's
            "compiled": None if compiled[0] is None else all(each[index] for each in compiled),
            "runs_at": runs_at.get(name),
        }
        for index, name in enumerate(names)
    ]


def _requests(record: Record) -> list[dict[str, Any]]:
    names, order = record["requests"]["shapes"], record["requests"]["order"]
    parts = [record["cold"]["latency_ns"], *record["sequence_ns"]]
    return [
        {"run": record["run"], "part": part, "i": i, "shape": names[order[i]], "latency_ms": latency / NS_PER_MS}
        for part, latencies in enumerate(parts)
        for i, latency in enumerate(latencies)
    ]


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    bounded = interval.bounded
    return {
        name: interval.estimate,
        f"{name}_low": interval.low if bounded else None,
        f"{name}_high": interval.high if bounded else None,
    }
