"""Records of co-locations to tables: a row a co-location, a row an instance of it, a row a pair of neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ceilings.measure.colocation import CARDS
from ceilings.report import text
from ceilings.report.tables import failures, gates
from ceilings.report.tables.planned_record import read_record, refuse_repeated
from ceilings.statistics.interference import (
    Floats,
    log_gains,
    log_slowdowns,
    noise,
    paces,
    references,
)
from ceilings.statistics.intervals import paired_over_processes, pooled_quantile
from ceilings.statistics.quantiles import Interval
from ceilings.statistics.separate_cards import checked

Record = Mapping[str, Any]

COLOCATION_KEY = ["device", "group", "how", "cores"]
"""The columns that name a co-location."""

NS_PER_MS = 1e6

SM, KERNEL, CORE = "SMs busy", "time with a kernel", "cores busy"
"""What use is the share of: of the multiprocessors by hardware counters; of time; of the machine's cores."""

COLOCATION_COLUMNS = [
    *(*COLOCATION_KEY, "status", "reason", "remedy", "log", "processes", "instances", "members"),
    *("gain", "gain_low", "gain_high", "noise", "together_per_s", "turns_per_s"),
    *("use_of", "use_alone", "use_together", "use_others", "side_by_side", "flags", "path"),
]
"""One row a co-location.

``members``: the cell of each instance. ``gain``: the sum over the instances of throughput in company over throughput
alone on the whole device; taking turns gives 1; ``low``, ``high`` of 95%. ``noise``: by what fraction a reference that
the gain is held against may differ from the one before it. ``together_per_s``: inferences a second of all instances at
once; ``turns_per_s``: if each had the device for an equal part of the time. ``use_of`` says what is used;
``use_alone``: its share while one instance is at work, the mean over them; ``use_together``: while all are;
``use_others``: of a CPU, what processes that do not belong to it used meanwhile. ``side_by_side``: on separate cards,
whether cells of them may be timed at once.
"""

INSTANCE_COLUMNS = [
    *(*COLOCATION_KEY, "instance", "runtime", "model", "precision", "shape", "threads"),
    *("whole_per_s", "alone_per_s", "together_per_s", "slowdown", "slowdown_low", "slowdown_high", "noise"),
    *("whole_p50_ms", "alone_p50_ms", "together_p50_ms", "alone_p99_ms", "together_p99_ms"),
    *("use_alone", "relative_l2", "answers"),
]
"""One row an instance.

``whole``: its cell alone with the whole device; ``alone``: this instance alone, with the cores that it has: the same
unless cores are split. ``slowdown``: mean time of a request in company over that alone. ``answers``: how many were held
against the FP32 reference while all were at work, the farthest at ``relative_l2``.
"""

PAIR_COLUMNS = [*COLOCATION_KEY, "slowed", "neighbour", "slowdown", "slowdown_low", "slowdown_high", "noise"]
"""One row a pair of cells that were at work at once: how many times as long a request of ``slowed`` takes."""


@dataclasses.dataclass(frozen=True)
class ColocationTables:
    """The tables of co-locations."""

    colocation: pd.DataFrame
    colocated: pd.DataFrame
    interference: pd.DataFrame


def colocation_tables(plan: Record) -> ColocationTables:
    """The tables of all co-locations that a plan has.

    Raises:
        UserError: A record that the plan names is missing, damaged, of another co-location or there twice.
    """
    groups, instances, pairs = [], [], []
    seen: dict[Hashable, str] = {}
    for planned in plan.get("colocation", []):
        records: list[Record] = []
        for path in planned["runs"]:
            records.append(_read(path, planned, plan, records))
            refuse_repeated(path, gates.colocated_samples(records[-1]), seen)
        key = {name: planned[name] for name in COLOCATION_KEY}
        row = {**key, "processes": len(records), "members": ", ".join(planned["cells"])}
        row |= {"instances": len(planned["cells"]), "path": planned["runs"][0] if records else None}
        if records:
            row["flags"] = "; ".join(_flags(records))
        if lacking := failures.without_numbers(planned, records):
            groups.append({**row, **lacking})
            continue
        members = [at for at, one in enumerate(records[0]["instances"]) if one["member"]]
        rows = [_instance(records, members, at) for at in members]
        groups.append({**row, "status": "ok", **_group(records, members, rows)})
        instances += [{**key, **one} for one in rows]
        pairs += [{**key, **one} for one in _pairs(records)]
    return ColocationTables(
        pd.DataFrame(groups, columns=COLOCATION_COLUMNS),
        pd.DataFrame(instances, columns=INSTANCE_COLUMNS),
        pd.DataFrame(pairs, columns=PAIR_COLUMNS),
    )


def _read(path: str, planned: Record, plan: Record, before: Sequence[Record]) -> dict[str, Any]:
    def flaw(record: Record) -> str | None:
        return gates.colocation(record, planned, plan, path, [one for one in before if one["status"] == "ok"])

    return read_record(path, "colocation", planned, "was measured for", flaw, key=COLOCATION_KEY)


def _flags(records: Sequence[Record]) -> list[str]:
    """Every kind of flag once: the first of it, and how many runs have it."""
    kinds: dict[str, dict[int, str]] = {}
    for record in records:
        for flag in record["flags"]:
            kinds.setdefault(text.kind(flag), {}).setdefault(record["run"], flag)
    return [f"{text.example(list(same.values()))} ({len(same)} of {len(records)} runs)" for same in kinds.values()]


def _group(records: Sequence[Record], members: Sequence[int], rows: Sequence[Record]) -> dict[str, Any]:
    gain = paired_over_processes([log_gains(record, members, _whole(record, members)) for record in records])
    uses = [row["use_alone"] for row in rows if row["use_alone"] is not None]
    return {
        **_interval("gain", gain),
        "noise": noise(records, list(_whole(records[0], members).values())),
        "together_per_s": sum(row["together_per_s"] for row in rows),
        "turns_per_s": sum(row["whole_per_s"] for row in rows) / len(rows),
        "use_of": _use_of(records[0]),
        "use_alone": float(np.mean(uses)) if len(uses) == len(rows) else None,
        "use_together": _use(records, members, reference=False),
        "use_others": _use_of_others(records),
        "side_by_side": checked(records).verdict if records[0]["how"] == CARDS else None,
    }


def _instance(records: Sequence[Record], members: Sequence[int], at: int) -> dict[str, Any]:
    one = records[0]["instances"][at]
    whole = _whole(records[0], members)[at]
    batch = one["batch"]
    parities = [record["instances"][at] for record in records]
    return {
        "instance": at + 1,
        **{name: one["cell"][name] for name in ("runtime", "model", "precision", "shape")},
        "threads": one["threads"],
        "whole_per_s": _mean([references(record, whole) for record in records]) * batch,
        "alone_per_s": _mean([references(record, at) for record in records]) * batch,
        "together_per_s": _mean([paces(record, members, at) for record in records]) * batch,
        **_interval("slowdown", paired_over_processes([log_slowdowns(record, members, at) for record in records])),
        "noise": noise(records, [at]),
        "whole_p50_ms": _quantile(records, [whole], whole, 0.5, reference=True),
        "alone_p50_ms": _quantile(records, [at], at, 0.5, reference=True),
        "together_p50_ms": _quantile(records, members, at, 0.5, reference=False),
        "alone_p99_ms": _quantile(records, [at], at, 0.99, reference=True),
        "together_p99_ms": _quantile(records, members, at, 0.99, reference=False),
        "use_alone": _use(records, [whole], reference=True),
        "relative_l2": max(each["parity"]["relative_l2"] or 0.0 for each in parities),
        "answers": sum(each["answers"] for each in parities),
    }


def _pairs(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Of each pair of cells that were at work at once, what each does to the other; of two instances of one, both."""
    cells = ["/".join(one["cell"].values()) for one in records[0]["instances"]]
    companies = {tuple(w["instances"]) for w in records[0]["windows"] if not w["reference"]}
    seen: dict[tuple[str, str], list[tuple[tuple[int, ...], int]]] = {}
    for group in sorted(each for each in companies if len(each) == 2):
        for slowed, neighbour in (group, group[::-1]):
            seen.setdefault((cells[slowed], cells[neighbour]), []).append((group, slowed))
    return [
        {
            "slowed": slowed,
            "neighbour": neighbour,
            **_interval(
                "slowdown",
                paired_over_processes(
                    [np.mean([log_slowdowns(record, group, at) for group, at in each], axis=0) for record in records]
                ),
            ),
            "noise": noise(records, [at for _, at in each]),
        }
        for (slowed, neighbour), each in seen.items()
    ]


def _whole(record: Record, members: Sequence[int]) -> dict[int, int]:
    """By member the instance that runs its cell with the whole device: itself, unless cores are split."""
    every = list(enumerate(record["instances"]))
    apart = {tuple(one["cell"].items()): at for at, one in every if not one["member"]}
    return {at: apart.get(tuple(record["instances"][at]["cell"].items()), at) for at in members}


def _mean(values: Sequence[Floats]) -> float:
    """Geometric mean of all windows of all processes."""
    return float(np.exp(np.mean(np.log(np.concatenate(values)))))


def _windows(record: Record, group: Sequence[int], *, reference: bool) -> list[Record]:
    return [w for w in record["windows"] if w["reference"] == reference and w["instances"] == list(group)]


def _quantile(records: Sequence[Record], group: Sequence[int], at: int, q: float, *, reference: bool) -> float | None:
    """A quantile of the latencies of one instance in ms; None where there are too few for it."""
    groups = [
        np.concatenate([w["answers"][str(at)]["latency_ns"] for w in _windows(record, group, reference=reference)])
        for record in records
    ]
    quantile = pooled_quantile(groups, q)
    return None if quantile is None else quantile.estimate / NS_PER_MS


def _use_of(record: Record) -> str:
    gpu = record["windows"][0]["gpu"]
    if gpu is None:
        return CORE
    return SM if (gpu["activity"] or {}).get("sm") is not None else KERNEL


def _use(records: Sequence[Record], group: Sequence[int], *, reference: bool) -> float | None:
    """Mean share of the device that is in use in windows; None where nothing says it."""
    windows = [(record, w) for record in records for w in _windows(record, group, reference=reference)]
    kind = _use_of(records[0])
    shares = [
        w["cores_busy"] / record["physical_cores"]
        if kind == CORE
        else (w["gpu"]["activity"] or {}).get("sm")
        if kind == SM
        else (w["gpu"]["utilisation"] or {}).get("median")
        for record, w in windows
    ]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known and len(known) == len(shares) else None


def _use_of_others(records: Sequence[Record]) -> float | None:
    """Share of the cores that others kept busy, in the mean of the runs; None of a GPU."""
    used = [record["neighbours"].get("others_cores") for record in records]
    if _use_of(records[0]) != CORE or None in used:
        return None
    return float(np.mean([each / record["physical_cores"] for each, record in zip(used, records, strict=True)]))


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    bounded = interval.bounded
    return {
        name: interval.estimate,
        f"{name}_low": interval.low if bounded else None,
        f"{name}_high": interval.high if bounded else None,
    }
