"""A cell's counted kernels against what its device was measured to reach and what its graph must do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.limits.kernel_verdict import ARITHMETIC, Use, verdict
from ceilings.limits.roofline import Limits
from ceilings.taxonomy import MEMORY_LEVELS
from ceilings.traces.counters import LIMITERS, SECTOR, STALLS, TENSOR_TYPES, WAVEFRONT
from ceilings.traces.kernel_classes import kernel_class, short

TOP_STALLS = 3

Counters = Mapping[str, float | None]


def judged(counted: Mapping[str, Any], limits: Limits, floor: Mapping[str, Any] | None) -> dict[str, Any]:
    """The kernels of a cell, each with its rates, its place below the ceilings, and what limits it.

    Args:
        counted: A record of kind ``counters`` that is ``ok``.
        limits: What the device reaches.
        floor: The record of the cell's floor, if it has one; its counts are held against the hardware's.

    Returns:
        ``ceilings``, ``kernels``, ``verdicts`` (ns by verdict) and ``checks``.
    """
    kernels = [_kernel(kernel, limits) for kernel in counted["kernels"]]
    verdicts: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        verdicts[kernel["verdict"]] += kernel["duration_ns"] or 0
    return {
        "ceilings": ceilings(counted["kernels"], limits),
        "kernels": kernels,
        "verdicts": dict(sorted(verdicts.items(), key=lambda item: -item[1])),
        "checks": _checks(counted, floor),
    }


def ceilings(kernels: Sequence[Mapping[str, Any]], limits: Limits) -> dict[str, Any]:
    """Bytes a second of each level, and operations a second of each type that occurs.

    DRAM, L2 and products are as measured. Shared memory is by design, at the highest clock seen: 128 bytes a cycle and
    multiprocessor.
    """
    shared = [rate for kernel in kernels if (rate := _shared_most(kernel["counters"]))]
    types = [kind for kind in (*TENSOR_TYPES, "fp32") if any(_operations(k["counters"]).get(kind) for k in kernels)]
    return {
        "bytes_per_s": {"dram": limits.dram, "l2": limits.l2, "shared": max(shared, default=None)},
        "operations_per_s": {kind: limits.rate(kind) for kind in types},
    }


def _kernel(kernel: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    values: Counters = kernel["counters"]
    duration = values["duration_ns"]
    operations = _operations(values)
    levels = _levels(values, limits)
    stalls = _stalls(values)
    pipe, rated = _part(values["tensor_pct"]), _of_products(operations, limits, duration)
    shares = {
        **{name: levels[name]["share"] for name in ("dram", "l2")},
        **{name: _part(values[f"{name}_pct"]) for name in ("l1", *ARITHMETIC)},
        "tensor": pipe if pipe is None or rated is None else max(pipe, rated),
    }
    use = Use(
        shares=shares,
        waves=values["waves"],
        theoretical=_part(values["theoretical_occupancy_pct"]),
        limiters=_limiters(values),
        eligible=values["eligible_warps"],
        stall=next(iter(stalls.items()), None),
    )
    name, why = verdict(use)
    return {
        "name": kernel["name"],
        "short": short(kernel["name"]),
        "class": kernel_class(kernel["name"]),
        "grid": kernel["grid"],
        "block": kernel["block"],
        "duration_ns": duration,
        "registers": values["registers"],
        "shared_memory_bytes": _total(values["shared_static_bytes"], values["shared_dynamic_bytes"]),
        "operations": operations,
        "operations_per_s": _rate(sum(operations.values()), duration),
        "levels": levels,
        "shares": shares,
        "tensor_pipe": pipe,
        "bank_conflicts": values["shared_conflicts"],
        "sectors_per_load": values["sectors_per_load"],
        "occupancy": {"achieved": _part(values["occupancy_pct"]), "theoretical": use.theoretical},
        "limiters": list(use.limiters),
        "waves": values["waves"],
        "eligible_warps": values["eligible_warps"],
        "stalls": dict(list(stalls.items())[:TOP_STALLS]),
        "verdict": name,
        "why": why,
    }


def _operations(values: Counters) -> dict[str, float]:
    """Operations by type: of the tensor cores by their operands, of the vector units in FP32; a fused one is two."""
    counted = {kind: _of_type(values, kind) for kind in (*TENSOR_TYPES, "fp32")}
    return {kind: value for kind, value in counted.items() if value}


def _of_products(operations: Mapping[str, float], limits: Limits, duration: float | None) -> float | None:
    """Part of the rate that products were measured to reach on the tensor cores; None where a type was not measured."""
    parts = {kind: limits.rate(kind) for kind in operations if kind in TENSOR_TYPES}
    seconds = [operations[kind] / rate for kind, rate in parts.items() if rate]
    return sum(seconds) / duration * 1e9 if duration and len(seconds) == len(parts) else None


def _levels(values: Counters, limits: Limits) -> dict[str, dict[str, float | None]]:
    """Bytes, rate and part of the most of each level; None of shared memory where the kernel has none."""
    has_shared = _total(values["shared_static_bytes"], values["shared_dynamic_bytes"])
    moved = {
        "dram": _total(values["dram_read_bytes"], values["dram_write_bytes"]),
        "l2": _times(values["l2_sectors"], SECTOR),
        "shared": _times(values["shared_wavefronts"], WAVEFRONT) if has_shared else None,
    }
    most = {"dram": limits.dram, "l2": limits.l2, "shared": _shared_most(values)}
    # Where a limit was not measured, what the hardware says of its design.
    design = {"dram": _part(values["dram_pct"]), "l2": _part(values["l2_pct"]), "shared": None}
    levels = {}
    for name in MEMORY_LEVELS:
        rate, peak = _rate(moved[name], values["duration_ns"]), most[name]
        share = rate / peak if rate is not None and peak else design[name]
        levels[name] = {"bytes": moved[name], "bytes_per_s": rate, "share": share}
    return levels


def _shared_most(values: Counters) -> float | None:
    """Bytes a second that shared memory moves by design, at the clock of this kernel."""
    clock, count = values["sm_hz"], values["multiprocessors"]
    return clock * count * WAVEFRONT if clock and count else None


def _limiters(values: Counters) -> tuple[str, ...]:
    """What limits how many blocks a multiprocessor holds, all that do."""
    limits = {name: limit for name in LIMITERS if (limit := values[f"limit_{name}"]) is not None}
    least = min(limits.values(), default=None)
    return tuple(name for name, limit in limits.items() if limit == least)


def _stalls(values: Counters) -> dict[str, float]:
    """Parts of the warps' time by what they wait for, the longest first; issuing is no wait."""
    known = {name: value for name in STALLS if (value := values[f"stall_{name}"]) is not None}
    whole = sum(known.values())
    parts = {name: value / whole for name, value in known.items() if name != "selected" and value} if whole else {}
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


# --- against our counts ----------------------------------------------------------------------------------------------


def _checks(counted: Mapping[str, Any], floor: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What the hardware counted an iteration against what the graph must do; none without a floor's counts."""
    if floor is None or "work" not in floor:
        return []
    work, count = floor["work"], counted["iterations"]
    computed_in = {"fp32": "tf32"} if floor["precision"] == "tf32" else {}
    expected: dict[str, float] = defaultdict(float)
    for kind, flops in work["flops_by_precision"].items():
        expected[computed_in.get(kind, kind)] += flops
    pairs = [
        (f"{kind} operations", [_of_type(kernel["counters"], kind) for kernel in counted["kernels"]], flops)
        for kind, flops in expected.items()
    ]
    read = [kernel["counters"]["dram_read_bytes"] for kernel in counted["kernels"]]
    pairs.append(("bytes read from DRAM over the weights'", read, work["weight_bytes"]))
    return [
        {"what": what, "counted": whole / count, "expected": least, "ratio": whole / count / least}
        for what, values, least in pairs
        if least and (whole := _total(*values)) is not None
    ]


def _of_type(values: Counters, kind: str) -> float | None:
    """Operations of one type; None where its counter is missing."""
    if kind in TENSOR_TYPES:
        return values[f"tensor_{kind}"]
    return _total(values["fp32_add"], values["fp32_mul"], _times(values["fp32_fma"], 2)) if kind == "fp32" else None


def _total(*values: float | None) -> float | None:
    """A sum; None where a part of it is."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _part(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _rate(amount: float | None, duration_ns: float | None) -> float | None:
    return amount / duration_ns * 1e9 if amount is not None and duration_ns else None
