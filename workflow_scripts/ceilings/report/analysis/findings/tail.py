"""Question 7: what CUDA graphs do to the tail."""

from __future__ import annotations

import math

import numpy as np

from ceilings.report import text
from ceilings.report.analysis.findings.factors import steps
from ceilings.report.analysis.findings.finding import (
    Finding,
    Status,
    named,
    names,
    no_claim,
    processes_entry,
    short,
    signed_percent,
    sweep_entry,
)
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.report.analysis.stack_levers import runtime_of
from ceilings.runtimes.catalogue import GRAPH, ORT_CUDA
from ceilings.statistics.estimands import JITTER, P99, TAIL
from ceilings.statistics.intervals import process_logs

TOPIC = "Tail"
CLAIM = "A CUDA graph brings the p99 closer to the median"


def tail(measured: Measured) -> list[Finding]:
    """p99 over p50 with a CUDA graph against without, one finding a pair; the p99 itself beside it.

    The ratio may grow while the p99 falls: a graph that halves the median and leaves the disturbances as they are makes
    them weigh twice as much. So the text holds both, and the claim is about the ratio.
    """
    findings, short_of_samples = [], list[Cell]()
    for cells in group_by(measured.cells, lambda cell: (cell.device, cell.model, cell.shape)).values():
        for members in group_by(cells, lambda cell: cell.stack).values():
            for step in steps(measured, members).get(GRAPH, []):
                finding = _pair(measured, step.with_, step.without)
                if finding:
                    findings.append(finding)
                else:
                    short_of_samples += [step.with_, step.without]
    if findings:
        return findings
    if short_of_samples:
        sentence = f"A p99 needs {P99.samples} iterations; no pair with and without a CUDA graph has them."
        wanted: tuple[str, ...] = (f"protocol: {{min_iterations: {P99.samples}}}",)
        return [
            Finding(
                TOPIC,
                sentence,
                names(short_of_samples),
                question=7,
                claim=CLAIM,
                status="not decidable",
                missing=wanted,
            )
        ]
    gpu = sorted({cell.runtime for cell in measured.cells if on_gpu(cell)} | {runtime_of(ORT_CUDA)})
    sentence = "No pair with and without a CUDA graph was measured."
    wanted = (sweep_entry(measured, [*gpu, runtime_of(ORT_CUDA, GRAPH)]),)
    return [Finding(TOPIC, sentence, (), question=7, claim=CLAIM, status="not decidable", missing=wanted)]


def _pair(measured: Measured, graph: Cell, plain: Cell) -> Finding | None:
    reach = measured.compare_by(TAIL, graph, plain)
    absolute = measured.compare_by(P99, graph, plain)
    if reach is None or absolute is None:
        return None
    reaches = {cell: _reach(cell) for cell in (graph, plain)}
    sentence = (
        f"{named(measured, graph)}: the p99 is {reaches[graph]} above the median, without the graph "
        f"{reaches[plain]}; p99 over p50 "
    )
    status: Status = "not decidable"
    if reach.verdict == "faster":
        sentence, status = f"{sentence}falls to {text.interval(reach.ratio, '×')}", "supported"
    elif reach.verdict == "slower":
        sentence, status = f"{sentence}grows to {text.interval(reach.ratio, '×')}", "refuted"
    else:
        sentence += f"changes by {text.interval(reach.ratio, '×')}, {no_claim(reach)}"
        floor = reach.floor or 0.0
        if math.isfinite(floor) and _typical(plain) <= 1 + floor:
            # A ratio cannot fall below 1, so even a graph without any tail would stay within the noise floor.
            sentence += f"; the tail without the graph is too short to show a gain (noise floor {text.noise(floor)})"
        elif reach.verdict == "same within noise":
            status = "refuted"
    sentence += f"; the p99 itself {text.interval(absolute.ratio, '×')}"
    if absolute.decided:
        sentence += f", {'lower' if absolute.verdict == 'faster' else 'higher'}"
    brief = ""
    if absolute.decided and reach.decided:
        brief = (
            f"{named(measured, graph)}: the CUDA graph changes the p99 to {text.number(absolute.ratio.estimate)}×, and "
            f"p99 over p50 to {text.number(reach.ratio.estimate)}×."
        )
    jitter = measured.compare_by(JITTER, graph, plain)
    if jitter:
        sentence += f"; jitter (interquartile range over median) {text.interval(jitter.ratio, '×')}"
        if jitter.decided:
            sentence += f", {'less' if jitter.verdict == 'faster' else 'more'}"
    missing = (processes_entry([graph]),) if status == "not decidable" else ()
    subject = short(graph)
    return Finding(
        *(TOPIC, f"{sentence}.", names([graph, plain]), reach.ratio, reach.verdict, 7, CLAIM, subject, status, missing),
        measure="p99 over p50",
        brief=brief,
    )


def _typical(cell: Cell) -> float:
    """p99 over p50 of a typical process: pooled over processes, a p99 would hold their differences too."""
    return math.exp(float(np.median(process_logs(cell.groups, TAIL))))


def _reach(cell: Cell) -> str:
    return signed_percent(_typical(cell)).removeprefix("+")
