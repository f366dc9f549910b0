"""Question 9: what stands between the best cell and the hardware's floor."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.bottleneck import queued
from ceilings.report.analysis.findings.finding import Finding, Status, names, sweep_entry, traces_entry, where
from ceilings.report.analysis.findings.selection import on_gpu, panels_at_common_shape
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.analysis.stack_levers import runtimes_of
from ceilings.runtimes.catalogue import FUSION, GRAPH, ORT_CUDA
from ceilings.taxonomy import KERNEL_CLASSES

TOPIC = "Hardware floor"

NEAR = 2.0
"""Within this factor of the floor a cell counts as near it."""

CLASSES_SHOWN = 4

CLAIM = f"The best cell is within {NEAR:.0f}× of the hardware floor"


def floor(measured: Measured) -> list[Finding]:
    """The best cell of each device and model at the common shape against its floor, and what a capture says of it."""
    findings = []
    for cells in panels_at_common_shape(measured):
        known = [cell for cell in cells if measured.hardware_floor(cell)]
        if known:
            findings.append(_gap(measured, min(known, key=lambda cell: cell.p50.estimate)))
    if not findings:
        gpu = sorted({cell.runtime for cell in measured.cells if on_gpu(cell)}) or runtimes_of(
            ORT_CUDA, (FUSION, GRAPH)
        )
        sentence = "No measured cell has a known hardware floor."
        missing = () if any(map(on_gpu, measured.cells)) else (sweep_entry(measured, gpu, ("fp16",)),)
        findings = [Finding(TOPIC, sentence, (), question=9, claim=CLAIM, status="not decidable", missing=missing)]
    return findings


def _gap(measured: Measured, cell: Cell) -> Finding:
    row = measured.hardware_floor(cell)
    assert row is not None
    gap = cell.p50.scaled(1 / row["floor_ms"])
    sentence = (
        f"{where(measured, cell)}: **{cell.label}** is the fastest cell with a known floor. It takes "
        f"{text.number(cell.p50.estimate)} ms, {text.interval(gap, '×')} the floor of "
        f"{text.number(row['floor_ms'])} ms (set by {text.LIMITED_BY.get(row['limited_by'], row['limited_by'])})"
    )
    brief = (
        ""
        if cell.phase
        # token_costs.py says it of both phases
        else (
            f"{where(measured, cell)}: the fastest cell, {cell.label}, takes {text.number(gap.estimate)}× the hardware "
            f"floor ({text.number(cell.p50.estimate)} against {text.number(row['floor_ms'])} ms)."
        )
    )
    if pd.notna(row["mfu"]):
        sentence += f". MFU: {text.percent(row['mfu'])} of the highest measured matrix rate"
    sentence += _products(cell, row) + _queued(measured, cell)
    budget = measured.budget(cell)
    missing: tuple[str, ...] = ()
    if budget:
        sentence += f". {_split(cell, budget)}"
    else:
        sentence += ". A capture would show the rest"
        missing = (traces_entry([cell]),)
    status: Status = "not decidable"
    if gap.high < 1:
        sentence += ". A latency below the floor is impossible: a limit was measured too low, or too much work counted"
    elif gap.bounded:
        status = "supported" if gap.high <= NEAR else "refuted" if gap.low > NEAR else status
    measure = "latency over the hardware floor"
    return Finding(
        *(TOPIC, f"{sentence}.", names([cell]), gap, None, 9, CLAIM, cell.label, status, missing, measure), brief=brief
    )


def _products(cell: Cell, row: dict[str, Any]) -> str:
    """Known without a capture: what the model's matrix sizes cost a library, and so what is left for the rest."""
    library, p50 = row.get("gemm_library_ms"), cell.p50.estimate
    if library is None or pd.isna(library) or library <= row["floor_ms"]:
        return ""
    sentence = (
        f". The vendor's library takes {text.number(library)} ms for the products with weights, one after the other, "
        f"{text.number(library - row['floor_ms'])} ms above the floor (Q, K and V apart; fusion merges them)"
    )
    if library < p50:
        sentence += f". The other {text.number(p50 - library)} ms are other kernels, gaps between kernels, and the host"
    return sentence


def _queued(measured: Measured, cell: Cell) -> str:
    """Known without a capture too: what queueing hides is no work of the device."""
    work = queued(measured, cell)
    if work is None:
        return ""
    hidden = cell.p50.estimate - work.estimate
    return (
        f". With requests queued an inference takes {text.number(work.estimate)} ms, so the device idles for at least "
        f"{text.number(hidden)} ms of the latency"
    )


def _split(cell: Cell, budget: dict[str, Any]) -> str:
    """What the device's part of the latency is, by class, and what each side would leave if it took no time."""
    busy, p50 = float(budget["gpu_busy_ms"]), cell.p50.estimate
    classes = {kind: float(budget[f"gpu_{kind}_ms"]) for kind in KERNEL_CLASSES if pd.notna(budget[f"gpu_{kind}_ms"])}
    shown = sorted((item for item in classes.items() if item[1] >= 0.01 * busy), key=lambda item: -item[1])
    sentence = f"In the capture the device works {text.number(busy)} ms of it ({text.percent(min(busy / p50, 1))}): "
    sentence += text.listed(f"{text.number(value)} {kind}" for kind, value in shown[:CLASSES_SHOWN])
    if pd.notna(budget["no_host_ms"]):
        sentence += f". Without the host's time at most {text.number(budget['no_host_ms'])} ms would remain"
    return sentence
