"""What to deploy: the best cells of each device and model, what bounds them, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.operating import cost_per_million, saturated
from ceilings.report.analysis.limiter import Limiter, limiter
from ceilings.report.analysis.measured import Cell, Measured, without_axis

Level = Literal["high", "medium", "low", "none"]

ENOUGH_PROCESSES = 3
"""Fewer processes a cell say little about the spread between them."""


@dataclass(frozen=True)
class Confidence:
    """How sure it is that the fastest cell is the fastest."""

    level: Level
    why: str


@dataclass(frozen=True)
class Decision:
    """The best cells of a device and model, at the common size of an input.

    Attributes:
        throughput: The cell with the highest throughput.
        within: The cell with the highest throughput whose latency keeps the limit; None where none does.
        limit_ms: The limit; None where the study gives none.
        cheapest: The cell with the lowest price of a million inferences; None without a price.
        bound: What bounds the latency of ``fastest``.
        others: How many other configurations ``fastest`` was chosen from.
    """

    device: str
    model: str
    fastest: Cell
    throughput: Cell
    within: Cell | None
    limit_ms: float | None
    cheapest: Cell | None
    bound: Limiter
    confidence: Confidence
    others: int


def decided(measured: Measured, plan: Mapping[str, Any]) -> list[Decision]:
    """One of each device and model with a measured cell, with the latency limit of the study if it gives one."""
    limit_ms = (plan.get("targets") or {}).get("latency_ms")
    return [_decision(measured, panel, limit_ms) for panel in measured.panels]


def rate(cell: Cell) -> float:
    """Inferences a second: with requests queued where that was measured, else in the closed loop."""
    queued = saturated(cell)
    return queued.estimate if queued else float(cell.row["inferences_per_s"])


def judged_latency(cell: Cell) -> tuple[str, float]:
    """What a latency limit is held against: the p99 where the iterations carry it, else the median."""
    p99 = cell.row["p99_ms"]
    return ("p99", float(p99)) if pd.notna(p99) else ("p50", cell.p50.estimate)


def _decision(measured: Measured, panel: tuple[str, str], limit_ms: float | None) -> Decision:
    common = without_axis(measured.common_shapes[panel], "batch")
    cells = [cell for cell in measured.panels[panel] if without_axis(cell.shape, "batch") == common]
    fastest = min(cells, key=lambda cell: cell.p50.estimate)
    keeping = [cell for cell in cells if limit_ms is not None and judged_latency(cell)[1] <= limit_ms]
    priced = [(cost.estimate, cell) for cell in cells if (cost := cost_per_million(cell))]
    rivals = [cell for cell in cells if cell.shape == fastest.shape and cell is not fastest]
    return Decision(
        *panel,
        fastest=fastest,
        throughput=max(cells, key=rate),
        within=max(keeping, key=rate, default=None),
        limit_ms=limit_ms,
        cheapest=min(priced, key=lambda pair: pair[0])[1] if priced else None,
        bound=limiter(measured, fastest),
        confidence=_confidence(measured, fastest, rivals),
        others=len(rivals),
    )


def _confidence(measured: Measured, fastest: Cell, rivals: Sequence[Cell]) -> Confidence:
    """From the comparisons with every rival at the same shape."""
    if not rivals:
        return Confidence("none", "the only configuration at this shape")
    if len(fastest.groups) < 2:
        return Confidence("none", "one process a cell")
    behind = sorted((measured.compare(rival, fastest) for rival in rivals), key=lambda pair: pair.ratio.estimate)
    tied = [pair for pair in behind if pair.verdict != "slower"]
    if tied:
        return Confidence("low", f"{text.cut((pair.a.label for pair in tied), 2)} may be as fast")
    floor = measured.noise_floor(fastest.device)
    gap = f"the next takes {text.number(behind[0].ratio.estimate)}× as long"
    if floor is None or not math.isfinite(floor):
        return Confidence("medium", f"{gap}; the noise floor was not measured")
    if len(fastest.groups) < ENOUGH_PROCESSES:
        return Confidence("medium", f"{gap}; only {text.plural(len(fastest.groups), 'process')} a cell")
    return Confidence("high", f"{gap}, intervals of {len(fastest.groups)} processes apart")
