"""Records of transfers with known truth: each way has a floor and a rate, each allocator its costs."""

from __future__ import annotations

from pathlib import Path

from unit.planted_records import PROVENANCE

from ceilings import records

SIZES = [4**power for power in range(1, 15)]
WAYS = {
    "h2d.pageable": (9.0, 11.0),
    "h2d.pinned": (8.0, 55.0),
    "h2d.mapped": (12.0, 40.0),
    "h2d.managed": (40.0, 9.0),
    "h2d.managed-prefetch": (60.0, 45.0),
    "d2h.pageable": (9.0, 8.0),
    "d2h.pinned": (8.5, 50.0),
    "d2d.kernel": (7.0, 1500.0),
}
"""Floor in us and rate in 10^9 bytes a second, by way."""

COSTS = {
    "cuda": (90.0, 88.0, 120.0, 240.0, 11.0),
    "pool": (95.0, 1.5, 1.2, 14.0, 11.0),
    "torch": (300.0, 2.5, 1.0, 15.0, 11.0),
}
"""First, allocate, free, loop and kept in us, by allocator; of every size."""

GRAPH = {"capture": 3.0, "instantiate": 1.5, "first": 0.9, "again": 0.6}
"""us a kernel."""

TIMES = ("first", "allocate", "free", "loop", "kept")


def around(value, spread=0.02):
    return {"median": value, "low": value * (1 - spread), "high": value * (1 + spread)}


def curve(floor, rate, spread=0.02, sizes=SIZES):
    """The points of a way; its device has a quarter of the floor."""
    return {
        **{"method": "planted", "device_method": "planted", "rounds": 5},
        "points": [
            {
                "bytes": size,
                "transfers": 10,
                "host_us": around(floor + size / rate / 1e3, spread),
                "device_us": around(floor / 4 + size / rate / 1e3, spread),
            }
            for size in sizes
        ],
    }


def write(root: Path, device: str, ways=None, costs=None, spread=0.02, **unavailable) -> str:
    """The record of a device below a root, as the pipeline would write it; its path.

    Args:
        ways, costs: In place of those above.
        spread: Of the rounds, in parts of the median.
        unavailable: Ways, ``_`` for ``.``, and why they could not be had.
    """
    path = root / "results/hosts" / device / "transfers.json"
    planted = {name: curve(*truth, spread) for name, truth in (WAYS if ways is None else ways).items()}
    lacking = {name.replace("_", "."): {"unavailable": why} for name, why in unavailable.items()}
    allocations = {
        name: {
            **{"method": f"planted {name}", "rounds": 5},
            "points": [
                {"bytes": size, **{f"{k}_us": around(v, spread) for k, v in zip(TIMES, truth, strict=True)}}
                for size in (4096, 1 << 20)
            ],
        }
        for name, truth in (COSTS if costs is None else costs).items()
    }
    content = {
        **{"device": device, "curves": planted | lacking, "allocations": allocations},
        "graphs": {
            **{"method": "planted graphs", "rounds": 5},
            "points": [
                {"nodes": n, **{f"{k}_us": around(n * v) for k, v in GRAPH.items()}, "device_bytes": 1024 * n}
                for n in (1, 100)
            ],
        },
        **{"attributes": {"ManagedMemory": 1}, "flags": [], "provenance": PROVENANCE},
    }
    records.write(path, "transfers", content)
    return str(path)
