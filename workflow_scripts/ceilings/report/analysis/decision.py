"""What to deploy: the best cells of each device and model, what bounds them, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.doubts import Doubt, doubt_of, loses_quality
from ceilings.report.analysis.findings.operating import as_high, cost_per_million, saturated
from ceilings.report.analysis.limiter import Limiter, limiter
from ceilings.report.analysis.measured import Cell, Measured, without_axis

Level = Literal["high", "medium", "low", "none"]

ENOUGH_PROCESSES = 3
"""Fewer processes a cell say little about the spread between them."""


@dataclass(frozen=True)
class Confidence:
    """How sure it is that the fastest cell is the fastest.

    Attributes:
        short: Why, in a few words for a table.
    """

    level: Level
    short: str
    why: str


@dataclass(frozen=True)
class Decision:
    """The best cells of a device and model, at the common size of an input.

    Attributes:
        throughput: The cell with the highest throughput.
        as_high: Cells whose throughput may be as high.
        within: The cell with the highest throughput whose latency keeps the limit; None where none does.
        limit_ms: The limit; None where the study gives none.
        cheapest: The cell with the lowest price of a million inferences; None without a price.
        bound: What bounds the latency of ``fastest``.
        others: How many other configurations ``fastest`` was chosen from.
        doubts: What is known against the answers of a configuration that one of these cells has.
        sound: The lowest latency and the highest throughput of configurations that keep the quality of FP32 as far as
            it was evaluated; None where no configuration was shown to lose it, or all were.
    """

    device: str
    model: str
    fastest: Cell
    throughput: Cell
    as_high: tuple[Cell, ...]
    within: Cell | None
    limit_ms: float | None
    cheapest: Cell | None
    bound: Limiter
    confidence: Confidence
    others: int
    doubts: Mapping[tuple[str, str], Doubt]
    sound: tuple[Cell, Cell] | None


def decided(measured: Measured, plan: Mapping[str, Any]) -> list[Decision]:
    """One of each device and model with a measured cell, with the latency limit of the study if it gives one."""
    limit_ms = (plan.get("targets") or {}).get("latency_ms")
    return [_decision(measured, panel, limit_ms) for panel in measured.panels]


def undecidable(measured: Measured) -> list[tuple[str, str]]:
    """(device, model) of the panels whose cells all failed: they have no decision."""
    failed = measured.tables.planned[measured.tables.planned["status"] == "failed"]
    panels = dict.fromkeys(zip(failed["device"], failed["model"], strict=True))
    return [panel for panel in panels if panel not in measured.panels]


def rate(cell: Cell) -> float:
    """Inferences a second: with requests queued where that was measured, else in the closed loop."""
    queued = saturated(cell)
    return queued.estimate if queued else float(cell.row["inferences_per_s"])


def judged_latency(cell: Cell) -> tuple[str, float]:
    """What a latency limit is held against: the highest percentile that the iterations carry, p99 at most."""
    for name in ("p99", "p95", "p90"):
        if pd.notna(value := cell.row[f"{name}_ms"]):
            return name, float(value)
    return "p50", cell.p50.estimate


def _decision(measured: Measured, panel: tuple[str, str], limit_ms: float | None) -> Decision:
    common = without_axis(measured.common_shapes[panel], "batch")
    cells = [cell for cell in measured.panels[panel] if without_axis(cell.shape, "batch") == common]
    fastest = min(cells, key=lambda cell: cell.p50.estimate)
    keeping = [cell for cell in cells if limit_ms is not None and judged_latency(cell)[1] <= limit_ms]
    priced = [(cost.estimate, cell) for cell in cells if (cost := cost_per_million(cell))]
    rivals = [cell for cell in cells if cell.shape == fastest.shape and cell is not fastest]
    throughput = max(cells, key=rate)
    within = max(keeping, key=rate, default=None)
    cheapest = min(priced, key=lambda pair: pair[0])[1] if priced else None
    named = [cell for cell in (fastest, throughput, within, cheapest) if cell]
    doubts = {cell.configuration: doubt for cell in named if (doubt := doubt_of(measured, cell))}
    kept = [cell for cell in cells if not loses_quality(measured, cell)]
    lost = any(doubt.lost for doubt in doubts.values())
    return Decision(
        *panel,
        fastest=fastest,
        throughput=throughput,
        as_high=tuple(as_high(throughput, cells)),
        within=within,
        limit_ms=limit_ms,
        cheapest=cheapest,
        bound=limiter(measured, fastest),
        confidence=_confidence(measured, fastest, rivals),
        others=len(rivals),
        doubts=doubts,
        sound=(min(kept, key=lambda cell: cell.p50.estimate), max(kept, key=rate)) if lost and kept else None,
    )


def _confidence(measured: Measured, fastest: Cell, rivals: Sequence[Cell]) -> Confidence:
    """From the comparisons with every rival at the same shape."""
    if not rivals:
        return Confidence("none", "one configuration", "it is the only configuration at this shape")
    if len(fastest.groups) < 2:
        return Confidence("none", "one process a cell", "one process a cell has no interval")
    behind = sorted((measured.compare(rival, fastest) for rival in rivals), key=lambda pair: pair.ratio.estimate)
    tied = [pair for pair in behind if pair.verdict != "slower"]
    if tied:
        short = f"{len(tied)} more may be as fast"
        return Confidence("low", short, f"{text.cut((pair.a.label for pair in tied), 2)} may be as fast")
    floor = measured.noise_floor(fastest.device)
    times = text.number(behind[0].ratio.estimate)
    gap = f"the next, {behind[0].a.label}, takes {times}× as long"
    if floor is None or not math.isfinite(floor):
        return Confidence("medium", "noise not measured", f"{gap}; the noise floor was not measured")
    if len(fastest.groups) < ENOUGH_PROCESSES:
        processes = text.plural(len(fastest.groups), "process")
        return Confidence("medium", f"{processes} a cell", f"{gap}; only {processes} a cell")
    return Confidence(
        "high",
        f"the next takes {times}×",
        f"{gap}, which is more than the noise ({len(fastest.groups)} processes a cell)",
    )
