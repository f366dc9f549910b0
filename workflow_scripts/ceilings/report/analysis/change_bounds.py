"""Bounds of what a change does to a cell's latency, from what is known of this cell alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.changes import (
    BATCH,
    PRECISION,
    SIZE,
    STACK,
    Change,
    Place,
    change_between,
    host_share,
)
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.runtimes.catalogue import COMPILATION, FUSION, GRAPH, IO_BINDING, ORT_CUDA, PYTORCH

LEAST = 0.02
"""No one change is expected to make anything faster than 50 times."""

SLOWER = 1.05
"""A lever that removes work costs no more than this."""

LOWER_SLOWER, QUANTISED_SLOWER = 1.2, 1.5
"""A lower precision has fewer good kernels, and nodes that quantise are work."""

FLOATS = (0.9, 6.0)
"""ONNX Runtime's CUDA provider multiplies in floats what a graph quantises: the nodes are added work."""

UNKNOWN_STACK = 10.0
"""Another stack may be slower: of a tiny model eager PyTorch took 5.3 times as long as ONNX Runtime."""

LARGER_SLOWER = {True: 1.05, False: 1.25}
"""An inference of a larger batch, on a GPU and on a CPU, whose caches it may leave."""

NARROW_ENDS = 0.8
"""What is computed beside the products, and products that were slow, may gain a little more than numbers shrink."""

HOST_LEFT = 0.75
"""Of the time for which the host submits, what is left at least if the device has less to do: hosts vary."""

NARROWEST = 1.3
"""No range is narrower: two cells of a study differ by so much with no cause that it could name."""

VARIES = 0.95
"""Two medians of the same work differ by so much."""


@dataclass(frozen=True)
class Bounds:
    """The least and the largest ratio after / before.

    Attributes:
        ground: ``budget`` where a capture gave the low end, ``neighbour`` where smaller batches of the cell did.
        because: Half a sentence with its number.
        cells: Cells that it rests on beside the base.
    """

    low: float
    high: float
    ground: Literal["bounds", "budget", "neighbour"]
    because: str
    cells: tuple[Cell, ...] = ()


def bounds(measured: Measured, base: Cell, target: Place, change: Change) -> Bounds:
    """What a change can do at most and at least, whatever it did elsewhere."""
    floor = _floor(measured, base, target)
    p50 = base.p50.estimate
    by_floor = floor / p50 if floor else 0.0
    why = f"the hardware floor is {text.number(floor)} ms, the latency {text.number(p50)} ms" if floor else ""
    wide = Bounds(by_floor, SLOWER, "bounds", why)
    if change.kind == BATCH:
        limits = _of_batch(measured, base, change, by_floor)
    elif change.kind == PRECISION:
        limits = _of_precision(measured, base, change, wide)
    elif change.kind == GRAPH:
        limits = _of_graph(measured, base, wide)
    elif change.kind in {COMPILATION, FUSION}:
        limits = _of_fewer_kernels(measured, base, wide)
    elif change.kind == STACK:
        limits = Bounds(by_floor, UNKNOWN_STACK, "bounds", why)
    else:
        limits = wide
    low = max(limits.low, LEAST)
    because = limits.because or "nothing in this study bounds it"
    return dataclasses.replace(limits, low=low, high=max(limits.high, NARROWEST * low), because=because)


def _of_batch(measured: Measured, base: Cell, change: Change, by_floor: float) -> Bounds:
    """At best the inputs that are added take no time; and no less each than those that were added last."""
    times, p50 = float(change.after), base.p50.estimate
    high = LARGER_SLOWER[host_share(base) is not None]
    low, why = by_floor / times, f"at best {change.after} times the inputs take the time of one"
    if base.batch > 1:
        why = f"at best {change.after} times the inputs take the same time"
    smaller = _next_smaller(measured, base)
    each = (p50 - smaller.p50.estimate) / (base.batch - smaller.batch) if smaller else 0.0
    if smaller is None or each <= 0:
        why += f" (medians of equal work differ by {1 - VARIES:.0%})" if low < VARIES / times else ""
        return Bounds(max(low, VARIES / times), high, "bounds", why)
    grown = p50 + each * base.batch * (times - 1)
    why = f"from batch {smaller.batch} to {base.batch} each further input took {text.number(each)} ms"
    return Bounds(max(low, VARIES * grown / p50 / times), high, "neighbour", why, (smaller,))


def _next_smaller(measured: Measured, base: Cell) -> Cell | None:
    """The measured cell that differs in a smaller batch alone; of several, the largest."""
    panel = measured.panels.get((base.device, base.model), [])
    same = [cell for cell in panel if (change := change_between(cell, base)) and change.kind == BATCH]
    return max(same, key=lambda cell: cell.batch, default=None)


def _of_precision(measured: Measured, base: Cell, change: Change, wide: Bounds) -> Bounds:
    """The host's part stays, and of the device's at most as much goes as numbers shrink or the floor does."""
    quantised = change.after in {"int8", "fp8"}
    if quantised and base.stack == ORT_CUDA:
        return Bounds(*FLOATS, "bounds", "ONNX Runtime's CUDA provider multiplies quantised products in floats")
    host, budget, high = host_share(base), measured.budget(base), QUANTISED_SLOWER if quantised else LOWER_SLOWER
    if host is None:
        size = SIZE[change.after] / SIZE[change.before]
        return Bounds(NARROW_ENDS * size, high, "bounds", f"its numbers are {1 / size:g} times smaller")
    if budget and pd.notna(budget["no_work_ms"]):
        left = float(budget["no_work_ms"])
        return Bounds(max(wide.low, VARIES * left / base.p50.estimate), high, "budget", _left(base, left, "kernels"))
    if GRAPH not in base.levers and (IO_BINDING in base.levers or base.stack == PYTORCH):
        return Bounds(max(wide.low, HOST_LEFT * host), high, "bounds", _submits(base))
    return Bounds(wide.low, high, "bounds", wide.because)


def _of_graph(measured: Measured, base: Cell, wide: Bounds) -> Bounds:
    """The kernels stay, and their time; the host's goes."""
    p50, budget, host = base.p50.estimate, measured.budget(base), host_share(base)
    if budget and budget["gpu_busy_ms"] > 0:
        why = f"the device works for {text.number(budget['gpu_busy_ms'])} of {text.number(p50)} ms"
        high = wide.high
        if pd.notna(budget["no_host_ms"]):
            high = min(high, SLOWER * float(budget["no_host_ms"]) / p50)
            why += f"; {_left(base, budget['no_host_ms'], 'the host')}"
        return Bounds(max(wide.low, VARIES * budget["gpu_busy_ms"] / p50), high, "budget", why)
    if host is not None:
        return Bounds(max(wide.low, VARIES * (1 - host)), wide.high, "bounds", _submits(base))
    return wide


def _of_fewer_kernels(measured: Measured, base: Cell, wide: Bounds) -> Bounds:
    """The products stay, though merged ones may take half the time."""
    budget = measured.budget(base)
    if not budget:
        return wide
    products = budget["gpu_gemm_ms"] + budget["gpu_attention_ms"]
    why = f"products and attention take {text.number(products)} of {text.number(base.p50.estimate)} ms"
    return Bounds(max(wide.low, products / 2 / base.p50.estimate), wide.high, "budget", why)


def _submits(base: Cell) -> str:
    return f"the host submits for {text.number(base.row['enqueue_p50_ms'])} of {text.number(base.p50.estimate)} ms"


def _left(base: Cell, left_ms: Any, what: str) -> str:
    return f"{text.number(left_ms)} of {text.number(base.p50.estimate)} ms would be left if {what} took no time"


def _floor(measured: Measured, base: Cell, target: Place) -> float | None:
    """The floor of the target in ms, whichever runtime it was counted for; else that of a launch, or None."""
    floors = measured.tables.floors
    here = floors[(floors["device"] == base.device) & (floors["model"] == base.model)]
    same = here[(here["precision"] == target.precision) & (here["shape"] == str(target.shape.full))]
    if not same.empty:
        return float(same["floor_ms"].min())
    return float(here["launch_floor_ms"].min()) if not here.empty else None
