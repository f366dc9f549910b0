"""Records of searches for the best batch whose truth is known: the latency of each batch is planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from unit.planted_records import PROVENANCE
from unit.planted_shapes import PARITY, PROTOCOL

from ceilings import records
from ceilings.statistics import search_record
from ceilings.statistics.limit_search import answer, next_batch

CELL = {"device": "cpu-planted", "runtime": "onnxruntime-cpu", "model": "bert", "precision": "fp32", "rest": "s32"}
SEARCH = {"limit_ms": 20.0, "limit_times": None, "percentile": "p50", "most": 64, "multiple": 1, "processes": 3}


def affine(batch: int) -> float:
    """Of a limit of 20 ms batch 24 is the largest that keeps it, and larger ones have more throughput."""
    return 5.2 + 0.6 * batch


def record(
    curve: Callable[[int], float] = affine, *, fails_from: int = 0, later: float = 1.0, cell: Any = CELL, **search: Any
) -> dict[str, Any]:
    """A record of a search.

    Args:
        curve: Median latency in ms of a batch.
        fails_from: The smallest batch that runs out of memory; 0: none.
        later: The last measurement, of the best batch once more, takes so many times as long.
        search: What the search has otherwise than ``SEARCH``.
    """
    wanted = {**SEARCH, **search}
    steps: list[dict[str, Any]] = []
    bounds = wanted["most"], wanted["multiple"]

    seen: list[Any] = []
    while (batch := next_batch({one.batch: one.verdict for one in seen}, *bounds)) is not None:
        steps.append(_step(batch, curve(batch), wanted["processes"], fails=bool(fails_from) and batch >= fails_from))
        if steps[0]["status"] != "ok":
            failure = steps[0]["failure"]
            return _sealed(cell, wanted, steps, status="failed", failure=failure)
        seen.append(search_record.judged(wanted, steps[-1], search_record.limit_ms(wanted, steps)))
    if (best := answer(seen, *bounds).best) is not None:
        steps.append(_step(best, later * curve(best), wanted["processes"], again=True))
    return _sealed(cell, wanted, steps, status="ok", failure=None)


def write(folder: Path, name: str = "s32", **planted: Any) -> dict[str, Any]:
    """Write the record of a search below a folder; returns the search as the plan has it."""
    path = folder / f"{name}.json"
    made = record(**planted)
    records.write(path, "best-batch", {key: value for key, value in made.items() if key not in records.SEAL})
    return {**made["cell"], "available": True, "recorded": False, "reason": None, "remedy": None, "record": str(path)}


def _sealed(cell: Any, search: Any, steps: Any, **status: Any) -> dict[str, Any]:
    content = {"cell": cell, "log": None, "search": search, "protocol": PROTOCOL, "steps": steps, **status}
    return records.sealed("best-batch", json.loads(json.dumps(content | {"provenance": PROVENANCE})))


def _step(batch: int, median: float, processes: int, *, again: bool = False, fails: bool = False) -> dict[str, Any]:
    if fails:
        failure = {"kind": "out-of-memory", "message": "failed to allocate"}
        return {"batch": batch, "again": again, "status": "failed", "failure": failure, "runs": []}
    runs = [_run(median, seed=100 * batch + 50 * again + number) for number in range(processes)]
    return {"batch": batch, "again": again, "status": "ok", "failure": None, "runs": runs}


def _run(median: float, seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    values = median * np.exp(chance.normal(0, 0.002, 1) + chance.normal(0, 0.005, 300))
    latencies = (values * 1e6).astype(int).tolist()
    return {
        **{"latency_ns": latencies, "warmup_stable": True, "stop_reason": "precise"},
        # The planted protocol stops between 1 and 2 s: what is beside the iterations takes the rest.
        "elapsed_ns": max(sum(latencies), 1_000_000_000),
        "parity": PARITY,
        "memory": {"peak_rss_bytes": 200_000_000, "peak_device_bytes": None},
        "flags": [],
    }
