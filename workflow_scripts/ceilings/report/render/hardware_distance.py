"""The summary's section on how far the cells are from what their device allows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import named
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.render.axes import axis_cells, axis_headers
from ceilings.taxonomy import KERNEL_CLASSES, OPERATOR_CLASSES

MOST_ROWS = 60
"""Longer tables show the common shape only; the CSV holds all."""

ATTENTION_APART = ("gemm", "attention", "normalization")
"""Where no one kernel computes attention, its products are kernels of the first class, its softmax of the last."""

Floor = dict[str, Any]
Budget = dict[str, Any]


def distance(measured: Measured) -> str:
    """Floors, gaps and MFU, and what the products alone take; nothing where no device has measured limits."""
    bounded = [(cell, floor) for cell in measured.cells if (floor := measured.hardware_floor(cell))]
    if not bounded:
        return ""
    lines = [
        "## How far from the hardware",
        "The floor is the least latency that the measured limits of the device allow. It is the longest of three: the "
        "matrix products at the highest measured rate; the bytes at the measured bandwidth (L2 keeps what it can "
        "hold); one graph launch. Gap: latency over floor. MFU: share of the highest measured matrix rate. "
        "`docs/floors.md` says what is counted.",
    ]
    for (device, model), members in group_by(bounded, lambda pair: (pair[0].device, pair[0].model)).items():
        sentences = [*beaten(members), nearest(members), *library_times(members), *caches(members)]
        lines += [f"### {model} on `{device}`", "\n".join(f"- {one}" for one in sentences)]
        shown = _shown(members, measured)
        lines.append(_table(shown))
        if len(shown) < len(members):
            lines.append(f"The common shape only; all {len(members)} are in `tables/floors.csv`.")
        captured = [pair for pair in members if measured.budget(pair[0])]
        if not captured:
            continue
        shown = _shown(captured, measured)
        lines += [
            "Time of the kernels of each class. The factor compares it with one kernel an operator at the limits; "
            "below 1× there is fusion. A kernel that does the work of several classes counts as one of them. Without "
            "an attention kernel, its products are in gemm and its softmax in normalization; the three share a factor.",
            classes([(cell, floor, measured.budget(cell) or {}) for cell, floor in shown]),
        ]
        if len(shown) < len(captured):
            lines.append(
                f"The common shape only; all {len(captured)} captured are in `tables/budgets.csv`, the times at the "
                "limits in `tables/floors.csv`."
            )
    if without := [cell for cell in measured.cells if not measured.hardware_floor(cell) and _on_device(cell)]:
        names = text.cut(named(measured, cell) for cell in without)
        lines.append(f"No floor: {names}. The records below `results/floors/` say why.")
    return "\n\n".join(lines)


def beaten(members: list[tuple[Cell, Floor]]) -> list[str]:
    """Floors that a cell went below: then a limit was measured too low, or work was counted that nobody does."""
    below = [f"{cell.label} {cell.shape} ({_times(floor['gap'])})" for cell, floor in members if floor["gap"] < 1]
    if not below:
        return []
    peaks = f"results/hosts/{members[0][0].device}/peaks.json"
    return [
        f"**Below its floor: {text.cut(below)}.** A limit was measured too low: delete `{peaks}` and run again; until "
        "then read no gap here."
    ]


def nearest(members: list[tuple[Cell, Floor]]) -> str:
    """The cell with the smallest gap."""
    cell, floor = min(members, key=lambda pair: pair[1]["gap"])
    return (
        f"**{cell.label}** at {text.sizes(cell.shape)} has the smallest gap: {text.number(cell.p50.estimate)} ms, "
        f"{_times(floor['gap'])} the floor of {text.number(floor['floor_ms'])} ms (set by "
        f"{text.LIMITED_BY[floor['limited_by']]})."
    )


def library_times(members: list[tuple[Cell, Floor]]) -> list[str]:
    """What the vendor's library takes for the products alone, at the sizes that the model has: part of the gap."""
    sentences = []
    for (shape, precision), same in group_by(members, lambda pair: (pair[0].shape, pair[0].precision)).items():
        cell, floor = min(same, key=lambda pair: pair[0].p50.estimate)
        if pd.isna(floor["gemm_library_ms"]):
            continue
        sentences.append(
            f"{precision} at {shape} {text.number(floor['gemm_library_ms'])} ms, of "
            f"{text.number(cell.p50.estimate)} ms of the fastest ({cell.label})"
        )
    if not sentences:
        return []
    return [
        "Time of the vendor's library for the products with weights, one after the other (Q, K and V apart): "
        f"{'; '.join(sentences)}. Only merged products (fusion) or faster ones take less."
    ]


def caches(members: list[tuple[Cell, Floor]]) -> list[str]:
    """Whether a floor rests on what L2 can hold."""
    colder = {}
    for cell, floor in members:
        cold = max(floor["cold_memory_floor_ms"], floor["floor_ms"])
        if cold > floor["floor_ms"] * 1.05:
            colder[cell.precision, cell.shape, floor["floor_ms"]] = (
                f"{cell.precision} at {cell.shape} {text.number(cold)} instead of {text.number(floor['floor_ms'])} ms"
            )
    if not colder:
        return []
    return [f"With a cold L2 cache the floors would be higher: {'; '.join(colder.values())}."]


def classes(captured: list[tuple[Cell, Floor, Budget]]) -> str:
    """A row a captured cell, a column a class of kernels that ran in one of them."""
    entries = [_against(floor, budget) for _, floor, budget in captured]
    kinds = [kind for kind in KERNEL_CLASSES if any(kind in members for members in entries)]
    rows = [[members.get(kind, "") for kind in kinds] for members in entries]
    return _cells_table([cell for cell, *_ in captured], rows, kinds, "r" * len(kinds))


def _against(floor: Floor, budget: Budget) -> dict[str, str]:
    """``203 µs, 14.2×`` by class; the time alone where no operator of the class is counted."""
    took = {kind: budget[f"gpu_{kind}_ms"] for kind in KERNEL_CLASSES}
    alone = {kind: floor[f"{kind}_unfused_ms"] for kind in OPERATOR_CLASSES}
    together = ATTENTION_APART if alone["attention"] > 0 and not took["attention"] > 0 else ()
    entries = {
        kind: f"{text.number(ms * 1e3)} µs"
        + (f", {_times(ms / alone[kind])}" if alone.get(kind, 0) > 0 and kind not in together else "")
        for kind, ms in took.items()
        if ms > 0
    }
    if together:
        factor = sum(took[kind] for kind in together) / sum(alone[kind] for kind in together)
        entries["attention"] = f"← together {_times(factor)} →"
    return entries


def _table(pairs: list[tuple[Cell, Floor]]) -> str:
    rows = [
        [
            text.number(cell.p50.estimate),
            text.number(floor["floor_ms"]),
            _times(floor["gap"]),
            text.percent(floor["mfu"]),
            floor["limited_by"],
        ]
        for cell, floor in pairs
    ]
    headers = ["p50 (ms)", "floor (ms)", "gap", "MFU", "floor set by"]
    return _cells_table([cell for cell, _ in pairs], rows, headers, "rrrrl")


def _cells_table(cells: list[Cell], rows: list[list[str]], headers: list[str], align: str) -> str:
    """The rows behind their cells, each configuration named once."""
    labels, axes = [cell.label for cell in cells], axis_headers(cell.shape for cell in cells)
    named = [
        [label if label != before else "", *axis_cells(cell.shape, axes), *row]
        for cell, label, before, row in zip(cells, labels, ["", *labels], rows, strict=False)
    ]
    return text.table(named, ["configuration", *axes, *headers], "l" + "r" * len(axes) + align)


def _shown(pairs: list[tuple[Cell, Floor]], measured: Measured) -> list[tuple[Cell, Floor]]:
    """All, or of many those at the common shape, if there are any."""
    common = [pair for pair in pairs if measured.is_common(pair[0])]
    return common if len(pairs) > MOST_ROWS and common else pairs


def _on_device(cell: Cell) -> bool:
    return bool(pd.notna(cell.row["enqueue_p50_ms"]))


def _times(gap: float) -> str:
    return f"{text.number(gap)}×"
