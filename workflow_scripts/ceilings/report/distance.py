"""The summary's section on how far the cells are from what their device allows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.measured import Cell, Measured, group_by
from ceilings.report.tables import FLOOR_CLASSES, KEY, Tables

MOST_ROWS = 60
"""Longer tables show the common shape only; the CSV holds all."""

LIMITED_BY = {
    "compute": "the matrix rate",
    "dram": "device memory",
    "l2": "the L2 cache's bandwidth",
    "launch": "one graph launch",
}
"""What sets a floor, as the sentences call it."""

Floor = dict[str, Any]


def distance(tables: Tables, measured: Measured) -> str:
    """Floors, gaps and MFU, and what the products alone take; nothing where no device has measured limits."""
    rows = {tuple(row[name] for name in KEY): row for row in tables.floors.to_dict("records")}
    bounded = [(cell, rows[key]) for cell in measured.cells if (key := _key(cell)) in rows]
    if not bounded:
        return ""
    budgets = {tuple(row[name] for name in KEY): row for row in tables.budgets.to_dict("records")}
    lines = [
        "## How far from the hardware",
        "The floor is the least latency that the device's measured limits allow for the model's work: its matrix "
        "products at the highest measured rate, its bytes at the measured bandwidth (what L2 can hold from one "
        "inference to the next counts as held), one graph launch; whichever is longest. Gap: latency over floor. MFU: "
        "share of the highest measured matrix rate. `docs/floors.md` says what is counted.",
    ]
    for (device, model), own in group_by(bounded, lambda pair: (pair[0].device, pair[0].model)).items():
        shown = own
        if len(own) > MOST_ROWS:
            shown = [pair for pair in own if pair[0].shape == measured.common_shape]
        sentences = [*beaten(own), nearest(own), *own_sizes(own), *caches(own), *classes(own, budgets)]
        lines += [f"### {model} on `{device}`", "\n".join(f"- {one}" for one in sentences), _table(shown)]
        if len(shown) < len(own):
            lines.append(f"The common shape only; all {len(own)} are in `tables/floors.csv`.")
    if without := [cell for cell in measured.cells if _key(cell) not in rows and pd.notna(cell.row["enqueue_p50_ms"])]:
        told = text.cut(f"{cell.label} b{cell.batch}-s{cell.sequence}" for cell in without)
        lines.append(f"No floor: {told}. The records below `results/floors/` say why.")
    return "\n\n".join(lines)


def beaten(own: list[tuple[Cell, Floor]]) -> list[str]:
    """Floors that a cell went below: then a limit was measured too low, or work was counted that nobody does."""
    told = [
        f"{cell.label} b{cell.batch}-s{cell.sequence} ({_times(floor['gap'])})"
        for cell, floor in own
        if floor["gap"] < 1
    ]
    if not told:
        return []
    return [f"**Below its floor: {text.cut(told)}.** Measure the device's limits anew; until then read no gap here."]


def nearest(own: list[tuple[Cell, Floor]]) -> str:
    """The cell with the smallest gap."""
    cell, floor = min(own, key=lambda pair: pair[1]["gap"])
    return (
        f"Nearest to its floor is **{cell.label}** at batch {cell.batch}, sequence {cell.sequence}: "
        f"{text.number(cell.p50.estimate)} ms, {_times(floor['gap'])} the {text.number(floor['floor_ms'])} ms that "
        f"{LIMITED_BY[floor['limited_by']]} allows."
    )


def own_sizes(own: list[tuple[Cell, Floor]]) -> list[str]:
    """What the vendor's library takes for the products alone, at the sizes that the model has: part of the gap."""
    told = []
    for (batch, sequence, precision), same in group_by(
        own, lambda pair: (pair[0].batch, pair[0].sequence, pair[0].precision)
    ).items():
        cell, floor = min(same, key=lambda pair: pair[0].p50.estimate)
        if pd.isna(floor["gemm_library_ms"]):
            continue
        told.append(
            f"{precision} at b{batch}-s{sequence} {text.number(floor['gemm_library_ms'])} ms, of "
            f"{text.number(cell.p50.estimate)} ms of the fastest ({cell.label})"
        )
    if not told:
        return []
    return [
        "The products with weights alone, one after the other at the model's own sizes (Q, K and V apart), as the "
        f"library multiplies them that the limits were measured with: {'; '.join(told)}. Only merged products (fusion "
        "makes one of Q, K and V) or faster ones lead below these times."
    ]


def caches(own: list[tuple[Cell, Floor]]) -> list[str]:
    """Whether a floor rests on what L2 can hold."""
    told = {}
    for cell, floor in own:
        cold = max(floor["cold_memory_floor_ms"], floor["floor_ms"])
        if cold > floor["floor_ms"] * 1.05:
            told[cell.precision, cell.shape, floor["floor_ms"]] = (
                f"{cell.precision} at b{cell.batch}-s{cell.sequence} {text.number(cold)} instead of "
                f"{text.number(floor['floor_ms'])} ms"
            )
    if not told:
        return []
    return [f"With nothing held in L2, memory would set these floors higher: {'; '.join(told.values())}."]


def classes(own: list[tuple[Cell, Floor]], budgets: dict[tuple[Any, ...], dict[str, Any]]) -> list[str]:
    """Measured kernel time by class against one kernel for each operator at the limits."""
    told = []
    for cell, floor in own:
        budget = budgets.get(_key(cell))
        if budget is None:
            continue
        parts = [
            f"{kind} {text.number(took)} ms against {text.number(alone)}"
            for kind in FLOOR_CLASSES
            if (took := budget[f"gpu_{kind}_ms"]) and pd.notna(took) and (alone := floor[f"{kind}_unfused_ms"])
        ]
        if parts:
            told.append(
                f"Kernels of {cell.label} b{cell.batch}-s{cell.sequence}, against the time of one kernel for each "
                f"operator at the limits (less than that is fusion): {', '.join(parts)}."
            )
    return told


def _table(pairs: list[tuple[Cell, Floor]]) -> str:
    headers = ["configuration", "batch", "seq.", "p50 (ms)", "floor (ms)", "gap", "MFU", "floor set by"]
    rows, before = [], ""
    for cell, floor in pairs:
        rows.append(
            [
                cell.label if cell.label != before else "",
                cell.batch,
                cell.sequence,
                text.number(cell.p50.estimate),
                text.number(floor["floor_ms"]),
                _times(floor["gap"]),
                text.percent(floor["mfu"]),
                floor["limited_by"],
            ]
        )
        before = cell.label
    return text.table(rows, headers, "lrrrrrrl")


def _times(gap: float) -> str:
    return f"{text.number(gap)}×"


def _key(cell: Cell) -> tuple[Any, ...]:
    return tuple(getattr(cell, name) for name in KEY)
