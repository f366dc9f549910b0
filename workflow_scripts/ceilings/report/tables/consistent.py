"""Whether the tables of a study say one thing: what follows from the samples is what the other tables hold.

A digest vouches for each table (``tables.json``), and whoever edits a table can correct it. The numbers that a reader
sees first then still have to be those of the iterations.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ceilings import records
from ceilings.report.tables.keys import KEY, key_of
from ceilings.report.tables.quantities import PERCENTILES, QUANTITIES, ends
from ceilings.report.tables.served_columns import SERVED
from ceilings.schemas.run import ENERGY, GPU
from ceilings.schemas.terms import free
from ceilings.workload.shape import Shape

CLOSE = 1e-6
"""Relative difference of numbers that were computed from the same samples."""

BOUNDS = {"cosine": (-1, 1), "top1_agreement": (0, 1), "token_agreement": (0, 1), "real_share": (0, 1)}
"""Of columns that are not simply above zero and finite."""

NS_PER_MS = 1e6

PARTS = {"threads": free, "energy": ENERGY, "gpu": GPU, "environment": free}
"""Columns of ``runs`` with JSON, and what it must be."""

Groups = Mapping[Hashable, Mapping[int, NDArray[np.int64]]]
"""Latencies in ns by cell and by process."""


def flaw(cells: pd.DataFrame, runs: pd.DataFrame, samples: pd.DataFrame) -> str | None:
    """Why these cannot be the tables of one study, beginning with the name of a table; None where they can."""
    return next(_flaws(cells, runs, samples), None)


def _flaws(cells: pd.DataFrame, runs: pd.DataFrame, samples: pd.DataFrame) -> Iterator[str]:
    yield from _twice("cells", cells, KEY)
    yield from _twice("runs", runs, [*KEY, "run"])
    yield from _impossible("cells", cells)
    yield from _impossible("runs", runs)
    yield from _unreadable(runs)
    groups = _groups(samples)
    measured = {(*key, run) for key, processes in groups.items() for run in processes}  # type: ignore[misc]
    succeeded = {tuple(row) for row in runs.loc[runs["status"] == "ok", [*KEY, "run"]].itertuples(index=False)}
    if other := measured ^ succeeded:
        *key, run = sorted(other, key=str)[0]
        yield f"runs and samples differ in what was measured ({_named(key)} run {run})"
        return
    if unknown := groups.keys() - {key_of(row) for row in cells.to_dict("records")}:
        yield f"cells has no {_named(sorted(unknown, key=str)[0])}, and samples has iterations of it"
    for row in runs.loc[runs["status"] == "ok"].to_dict("records"):
        latencies = groups[key_of(row)][row["run"]] / NS_PER_MS
        yield from _differing("runs", row, {"n": len(latencies), "p50_ms": float(np.median(latencies))})
    for row in cells.to_dict("records"):
        if row["status"] != "ok":
            if pd.notna(row.get("p50_ms")):
                yield f"cells has a latency of {_named(key_of(row))}, whose status is {row['status']}"
        elif key_of(row) not in groups:
            yield f"cells has {_named(key_of(row))} with status ok, and samples has no iteration of it"
        else:
            yield from _differing("cells", row, _expected(row, list(groups[key_of(row)].values())))


def served_flaw(serving: pd.DataFrame, samples: pd.DataFrame) -> str | None:
    """Why these cannot be the tables of served models of one study; None where they can."""
    return next(_served_flaws(serving, samples), None)


def _served_flaws(serving: pd.DataFrame, samples: pd.DataFrame) -> Iterator[str]:
    key = [*SERVED, "load"]
    measured = serving[serving["status"] == "ok"]
    yield from _twice("serving", measured, key)
    groups: dict[Hashable, list[NDArray[np.int64]]] = {}
    for (*load, _), values in samples.groupby([*key, "run"], observed=True, sort=False)["latency_ns"]:
        groups.setdefault(tuple(load), []).append(values.to_numpy() / NS_PER_MS)
    rows = {tuple(row[name] for name in key): row for row in measured.to_dict("records")}
    if other := rows.keys() ^ groups.keys():
        yield f"serving and serving_samples differ in what was measured ({_named(sorted(other, key=str)[0])})"
        return
    for load, row in rows.items():
        pool = np.concatenate(groups[load])
        p50 = math.exp(np.median([math.log(np.median(one)) for one in groups[load]]))
        for column, follows in {"n": len(pool), "p50_ms": p50, "client_ms": float(pool.mean())}.items():
            if not math.isclose(row[column], follows, rel_tol=CLOSE):
                yield f"serving has {column} {row[column]:.6g} of {_named(load)}, and its samples give {follows:.6g}"


def _unreadable(runs: pd.DataFrame) -> Iterator[str]:
    """Of columns of ``runs`` that hold a part of the record as JSON."""
    for column, check in PARTS.items():
        for value in runs[column].dropna() if column in runs else ():
            try:
                part = records.parsed(value.encode())
            except (ValueError, AttributeError):
                part = value
            if problem := check(part):
                yield f"runs has {column} {problem.lstrip()}"


def _groups(samples: pd.DataFrame) -> dict[Hashable, dict[int, NDArray[np.int64]]]:
    latency = samples[samples["series"] == "latency"]
    groups: dict[Hashable, dict[int, NDArray[np.int64]]] = {}
    for key, values in latency.groupby([*KEY, "run"], observed=True, sort=False)["latency_ns"]:
        *cell, run = tuple(key)  # type: ignore[arg-type]
        groups.setdefault(tuple(cell), {})[run] = values.to_numpy()
    return groups


def _expected(row: Mapping[str, Any], processes: list[NDArray[np.int64]]) -> dict[str, float]:
    """What follows from a cell's iterations; of percentiles, those that its row has."""
    pool = np.concatenate(processes) / NS_PER_MS
    p50 = math.exp(np.median([math.log(np.median(one) / NS_PER_MS) for one in processes]))
    known = {f"{name}_ms": q for name, q in PERCENTILES.items() if pd.notna(row.get(f"{name}_ms"))}
    return {
        "processes": len(processes),
        "n": len(pool),
        "p50_ms": p50,
        "mean_ms": float(pool.mean()),
        "inferences_per_s": Shape.parse(row["shape"]).batch * 1e3 / p50,
        **dict(zip(known, np.quantile(pool, list(known.values())).tolist() if known else [], strict=True)),
    }


def _differing(table: str, row: Mapping[str, Any], expected: Mapping[str, float]) -> Iterator[str]:
    for column, follows in expected.items():
        value = row.get(column, follows)  # tables may be older than a column
        if not isinstance(value, (int, float)) or not math.isclose(value, follows, rel_tol=CLOSE):
            shown = f"{value:.6g}" if isinstance(value, (int, float)) else ascii(value)[:40]
            yield f"{table} has {column} {shown} of {_named(key_of(row))}, and its samples give {follows:.6g}"


def _twice(table: str, frame: pd.DataFrame, key: list[str] | tuple[str, ...]) -> Iterator[str]:
    again = frame.loc[frame.duplicated(list(key)), list(key)]
    if len(again):
        yield f"{table} has {_named(again.iloc[0])} twice"


def _impossible(table: str, frame: pd.DataFrame) -> Iterator[str]:
    """Of quantities: none is below zero or infinite, and an estimate lies within its interval."""
    for one in QUANTITIES:
        if one.column not in frame or frame[one.column].dtype.kind not in "iuf":
            continue
        values = frame[one.column].astype(float)
        least, most = BOUNDS.get(one.column, (0, sys.float_info.max))
        wrong = values[(values < least - CLOSE) | (values > most + CLOSE)]
        for at in wrong.index[:1]:
            yield f"{table} has {one.column} {wrong[at]:g} of {_named(key_of(frame.loc[at]))}"
        low, high = ends(one)
        if not one.interval or low not in frame or high not in frame:
            continue
        slack = CLOSE * values.abs()
        outside = (frame[low].astype(float) > values + slack) | (frame[high].astype(float) < values - slack)
        if outside.any():
            yield f"{table} has {one.column} of {_named(key_of(frame[outside].iloc[0]))} outside of its interval"


def _named(key: Any) -> str:
    return " ".join(str(part)[:60] for part in key if part is not None)
