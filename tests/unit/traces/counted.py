"""Tables of Nsight Compute as it prints them, of kernels that are made up: names, units and layout are real ones."""

from __future__ import annotations

import csv
import io
from typing import Any

from ceilings.traces.counters import METRICS

HEAD = ("ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream", "Block Size", "Grid Size")
UNITS = {
    "duration_ns": "ns",
    "sm_hz": "hz",
    "dram_read_bytes": "byte",
    "dram_write_bytes": "byte",
    "shared_static_bytes": "byte/block",
    "shared_dynamic_bytes": "byte/block",
    "l2_sectors": "sector",
    "registers": "register/thread",
}
"""Units of --print-units=base; of the others ``%``, ``inst``, ``warp`` or none, which count for nothing."""

QUIET: dict[str, float] = {
    **dict.fromkeys(METRICS, 0.0),
    "duration_ns": 4000,
    "sm_hz": 1.7e9,
    "multiprocessors": 132,
    "registers": 32,
    "waves": 1.0,
    "theoretical_occupancy_pct": 100,
    "occupancy_pct": 70,
    "limit_blocks": 32,
    "limit_registers": 8,
    "limit_shared_mem": 16,
    "limit_warps": 8,
    "warps": 8,
    "eligible_warps": 0.3,
    "stall_selected": 1,
    "stall_long_scoreboard": 5,
    "stall_wait": 2,
}
"""A kernel that keeps no unit busy."""


def kernel(name: str, grid: tuple[int, int, int] = (132, 1, 1), **counters: float | None) -> dict[str, Any]:
    """As :func:`ceilings.traces.counters.kernels` reads it."""
    return {"name": name, "grid": list(grid), "block": [256, 1, 1], "counters": {**QUIET, **counters}}


def product(m: int, n: int, k: int, duration_ns: float, **counters: float | None) -> dict[str, Any]:
    """A product in FP16 that reads its weights from DRAM once and all operands through L2 and shared memory."""
    operations, weights = 2 * m * n * k, 2 * n * k
    moved = 2 * (m * k + n * k + m * n)
    return kernel(
        f"nvjet_hsh_{m}x{n}_{k}",
        (max(1, m // 64) * (n // 64), 1, 1),
        **{
            "duration_ns": duration_ns,
            "tensor_fp16": operations,
            "tensor_pct": operations / duration_ns / 989.5e3 * 100,
            "dram_read_bytes": weights,
            "l2_sectors": moved / 32,
            "shared_dynamic_bytes": 98304,
            "shared_wavefronts": 4 * moved / 128,
            **counters,
        },
    )


def table(kernels: list[dict[str, Any]], units: dict[str, str] | None = None, noise: str = "") -> str:
    """The same as CSV, as ``ncu --import --csv --page=raw`` prints it.

    Args:
        units: Of quantities that come in another unit than the base one; their numbers stay as they are.
        noise: Lines that come before.
    """
    units = {**UNITS, **(units or {})}
    written = io.StringIO()
    write = csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow
    write([*HEAD, "Device", "CC", *METRICS.values()])
    write([""] * (len(HEAD) + 2) + [units.get(name, "") for name in METRICS])
    for number, one in enumerate(kernels):
        block, grid = (f"({', '.join(map(str, one[which]))})" for which in ("block", "grid"))
        head = [str(number), "4711", "python3.12", "somebodys-host", one["name"], "1", "7", block, grid, "0", "9.0"]
        write([*head, *("" if value is None else f"{value:g}" for value in one["counters"].values())])
    return noise + written.getvalue()
