"""Records of changing shapes whose truth is known: the shape tax, first appearances, drift and padding are planted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from unit.planted_records import PROVENANCE

from ceilings import records
from ceilings.workload.padded import choice_record
from ceilings.workload.shape import Shape
from ceilings.workload.shape_order import Requests

CELL = {
    "device": "cpu-planted",
    "runtime": "onnxruntime-cpu",
    "model": "bert",
    "precision": "fp32",
    "sequence": "mixed",
}
SHAPES = ("b1-s16", "b1-s32", "b1-s64")
STEADY_MS = {"b1-s16": 1.0, "b1-s32": 2.0, "b1-s64": 4.0}
ORDER = ("b1-s16", "b1-s32", "b1-s16", "b1-s64", "b1-s16", "b1-s16") * 10
LIMITS = {"axis": "sequence", "most": 2, "memory_mb": None}
PROTOCOL = {
    **{"min_iterations": 5, "concurrency": 1, "time_limit_seconds": 600, "precision": 0.01},
    **{"warmup_seconds": 0.1, "warmup_max_seconds": 1, "min_seconds": 1, "max_seconds": 2, "saturated_seconds": 1},
}
PARITY = {
    **{"finite": True, "max_abs": 0.0, "max_rel": 0.0, "relative_l2": 0.0, "cosine": 1.0, "top1_agreement": 1.0},
    **{"rows": 2, "spread_l2": 0.5, "row_l2": 0.0, "problem": None, "tolerance": 0.001},
}


def run(
    number: int = 1,
    *,
    cell: Mapping[str, str] = CELL,
    steady: Mapping[str, float] = STEADY_MS,
    change: float = 1.0,
    slower: float = 1.0,
    requests: dict[str, Any] | None = None,
    eager: bool = False,
    padded: bool = False,
    speed: float = 1.0,
) -> dict[str, Any]:
    """A record of one process.

    Args:
        steady: Latencies in ms by shape.
        change: A request of another shape than the one before takes so many times its steady latency.
        slower: The whole process drifts by this factor from one reference to the next.
        eager: Whether the last shape runs eagerly.
        speed: Of the padded requests, for a prediction that is wrong.
    """
    requests = requests or Requests.of(map(Shape.parse, ORDER)).to_json()
    names, order = requests["shapes"], requests["order"]
    chance = np.random.default_rng(number)

    def sampled(name: str, size: int, factor: float) -> list[int]:
        values = steady[name] * speed * factor * np.exp(chance.normal(0, 0.01, size))
        return (values * 1e6).astype(int).tolist()

    def one_pass(factor: float) -> list[int]:
        changed = [before != after for before, after in zip([None, *order], order, strict=False)]
        return [
            sampled(names[shape], 1, factor * (change if new else 1))[0]
            for shape, new in zip(order, changed, strict=True)
        ]

    count = len(names)
    content = {
        "cell": dict(cell),
        "run": number,
        "log": None,
        "padded": padded,
        "requests": requests,
        "protocol": PROTOCOL,
        "flags": [],
        "status": "ok",
        "failure": None,
        "cold": {
            "latency_ns": one_pass(10),
            "rss_bytes": [100_000_000 + 10_000_000 * known for known in range(count + 1)],
            "device_bytes": None,
            "graphs": [min(i, count) for i in range(len(order) + 1)] if eager else None,
        },
        "sequence_ns": [one_pass((slower**i + slower ** (i + 1)) / 2) for i in range(3)],
        "steady_ns": [[sampled(name, 20, slower**i) for name in names] for i in range(4)],
        "return_ns": [[sampled(name, 1, change)[0] for name in names] for _ in range(4)],
        "compiled": [True] * (count - 1) + [False] if eager else None,
        "graphs": count if eager else None,
        "parity": dict.fromkeys(names, PARITY),
        "provenance": PROVENANCE,
    }
    return records.sealed("changing", content)


def buckets(cell: Mapping[str, str] = CELL, steady: Mapping[str, float] = STEADY_MS) -> dict[str, Any]:
    """The best two buckets of the planted shapes."""
    requests = Requests.of(map(Shape.parse, ORDER)).to_json()
    latency = [steady[name] for name in requests["shapes"]]
    chosen = choice_record(requests, latency, [0.0, 1e7, 1e7], LIMITS)
    return records.sealed("buckets", {"cell": dict(cell), "limits": LIMITS, "status": "ok", **chosen})


def write(
    folder: Path,
    processes: int = 3,
    speed: float = 1.0,
    cell: Mapping[str, str] = CELL,
    steady: Mapping[str, float] = STEADY_MS,
    **planted: Any,
) -> dict[str, Any]:
    """Write all records of a cell below a folder; returns the cell as the plan has it."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = buckets(cell, steady)
    records.write(folder / "buckets.json", "buckets", chosen)
    again = Requests.of(map(Shape.parse, ORDER)).padded(chosen["runs_at"]).to_json()
    runs, padded = [], []
    for number in range(1, processes + 1):
        runs.append(str(folder / f"run{number}.json"))
        records.write(runs[-1], "changing", run(number, cell=cell, steady=steady, **planted))
        padded.append(str(folder / f"padded{number}.json"))
        made = run(number + 10, cell=cell, steady=steady, requests=again, padded=True, speed=speed)
        records.write(padded[-1], "changing", made | {"run": number})
    return {
        **cell,
        "available": True,
        "reason": None,
        "remedy": None,
        "runs": runs,
        "buckets": str(folder / "buckets.json"),
        "padded": padded,
    }
