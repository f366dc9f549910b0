"""The hardware counters that are read of each kernel, by the names of Nsight Compute, and its table of them.

Names and meanings are those of GH100 (compute capability 9.0) in Nsight Compute 2024.2; a chip that lacks one of them
leaves it out.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection
from typing import Any

from ceilings.errors import CellFailure

SECTOR = 32
"""Bytes of a sector: what an L2 cache is asked for at once."""

WAVEFRONT = 128
"""Bytes that shared memory moves in a cycle at most: 32 banks of 4."""

TENSOR_TYPES = {
    "fp16": "sm__ops_path_tensor_src_fp16",
    "bf16": "sm__ops_path_tensor_src_bf16_dst_fp32",
    "tf32": "sm__ops_path_tensor_src_tf32_dst_fp32",
    "fp8": "sm__ops_path_tensor_src_fp8",
    "int8": "sm__ops_path_tensor_src_int8",
    "fp64": "sm__ops_path_tensor_src_fp64",
}
"""Operations of the tensor cores by the type of the operands; a multiplication and an addition are two."""

STALLS = (
    *("barrier", "branch_resolving", "dispatch_stall", "drain", "gmma", "imc_miss", "lg_throttle", "long_scoreboard"),
    *("math_pipe_throttle", "membar", "mio_throttle", "misc", "no_instruction", "not_selected", "selected"),
    *("short_scoreboard", "sleeping", "tex_throttle", "wait"),
)
"""What a warp waits for, cycle by cycle; ``selected`` is a warp that issues."""

PIPES = ("fma", "alu", "fp64")
"""Pipes of arithmetic whose active cycles are counted, beside the tensor cores."""

LIMITERS = ("blocks", "registers", "shared_mem", "warps")
"""What limits how many blocks a multiprocessor holds."""

LAUNCH = {
    "registers": "launch__registers_per_thread",
    "shared_static_bytes": "launch__shared_mem_per_block_static",
    "shared_dynamic_bytes": "launch__shared_mem_per_block_dynamic",
    "waves": "launch__waves_per_multiprocessor",
    "multiprocessors": "device__attribute_multiprocessor_count",
    "theoretical_occupancy_pct": "sm__maximum_warps_per_active_cycle_pct",
    **{f"limit_{name}": f"launch__occupancy_limit_{name}" for name in LIMITERS},
}
"""What follows from the launch and the device, and takes no counter."""

COUNTERS = {
    "duration_ns": "gpu__time_duration.sum",
    "sm_hz": "sm__cycles_elapsed.avg.per_second",
    "dram_read_bytes": "dram__bytes_read.sum",
    "dram_write_bytes": "dram__bytes_write.sum",
    "dram_pct": "dram__bytes.sum.pct_of_peak_sustained_elapsed",
    "l2_sectors": "lts__t_sectors_srcunit_tex.sum",
    "l2_pct": "lts__t_sectors.avg.pct_of_peak_sustained_elapsed",
    "l2_hit_pct": "lts__t_sector_hit_rate.pct",
    "shared_wavefronts": "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "shared_conflicts": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "l1_pct": "l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed",
    "sectors_per_load": "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio",
    "tensor_pct": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    **{f"{pipe}_pct": f"sm__pipe_{pipe}_cycles_active.avg.pct_of_peak_sustained_elapsed" for pipe in PIPES},
    "xu_pct": "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_elapsed",
    "issue_pct": "sm__issue_active.avg.pct_of_peak_sustained_elapsed",
    "occupancy_pct": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "warps": "smsp__warps_active.avg.per_cycle_active",
    "eligible_warps": "smsp__warps_eligible.avg.per_cycle_active",
    **{f"fp32_{name}": f"smsp__sass_thread_inst_executed_op_f{name}_pred_on.sum" for name in ("add", "mul", "fma")},
    **{f"tensor_{kind}": f"{metric}.sum" for kind, metric in TENSOR_TYPES.items()},
    **{f"stall_{name}": f"smsp__average_warps_issue_stalled_{name}_per_issue_active.ratio" for name in STALLS},
}
"""What the hardware counts. ``l2_sectors`` is what multiprocessors ask of L2, ``l2_pct`` is of all that it handles."""

METRICS = {**LAUNCH, **COUNTERS}
"""Metric of Nsight Compute by the name that records use."""

UNITS = {
    **{f"{letter}{unit}": scale for letter, scale in (("n", 1), ("u", 1e3), ("m", 1e6)) for unit in ("s", "second")},
    **{"s": 1e9, "second": 1e9, "hz": 1, "Khz": 1e3, "Mhz": 1e6, "Ghz": 1e9, "cycle/second": 1, "cycle/nsecond": 1e9},
    **{f"{size}byte{of}": 1000**n for n, size in enumerate(("", "K", "M", "G")) for of in ("", "/block")},
}
"""Scale of each unit that a time (ns), a clock (Hz) or a number of bytes may come in."""

SCALED = ("_ns", "_hz", "_bytes")
"""Ends of the names of quantities whose unit counts."""


def wanted(offered: Collection[str]) -> tuple[list[str], list[str]]:
    """Metrics to ask for on a device, and those that it lacks.

    Args:
        offered: Its counters, without suffixes.
    """
    lacking = [metric for metric in COUNTERS.values() if metric.split(".")[0] not in offered]
    return [metric for metric in METRICS.values() if metric not in lacking], lacking


def kernels(table: str) -> list[dict[str, Any]]:
    """The kernels of a table in the order of their launches.

    Args:
        table: CSV of :func:`ceilings.traces.ncu.table`. Names of hosts and processes in it stay behind.

    Returns:
        Of each ``name``, ``grid`` and ``block`` (three sizes each), and ``counters``: a number (bytes, ns, Hz) or None
        by each name of ``METRICS``.

    Raises:
        CellFailure: It is no such table, or a unit in it is unknown.
    """
    # A program may print before ncu does; its lines are no rows.
    lines = table.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith('"ID",')), len(lines))
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[first:]))))
    if len(rows) < 2 or {"Kernel Name", "Grid Size", "Block Size"} - rows[0].keys():
        raise CellFailure("runtime-error", "ncu counted no kernel between cudaProfilerStart and cudaProfilerStop")
    units, counted = rows[0], rows[1:]
    return [
        {
            "name": row["Kernel Name"],
            "grid": _sizes(row["Grid Size"]),
            "block": _sizes(row["Block Size"]),
            "counters": {name: _value(row, units, name, metric) for name, metric in METRICS.items()},
        }
        for row in counted
    ]


def _sizes(text: str) -> list[int]:
    """
    >>> _sizes("(256, 1, 2)")
    [256, 1, 2]
    """
    return [int(size) for size in re.findall(r"\d+", text)]


def _value(row: dict[str, str], units: dict[str, str], name: str, metric: str) -> float | None:
    """One number in its base unit; None where there is none."""
    try:
        value = float((row.get(metric) or "").replace(",", ""))
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    if not name.endswith(SCALED):
        return value
    unit = units[metric]
    if unit not in UNITS:
        raise CellFailure("runtime-error", f"ncu gives {metric} in {unit!r}, a unit that is not known here")
    return value * UNITS[unit]
