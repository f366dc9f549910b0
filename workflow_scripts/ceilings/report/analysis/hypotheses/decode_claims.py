"""Claims about generated text: what CUDA graphs buy a decode step, and whose is the fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ceilings.report import text
from ceilings.report.analysis.findings.factors import steps
from ceilings.report.analysis.findings.finding import Status, change, named, sweep_entry
from ceilings.report.analysis.findings.generation_stacks import over_floor
from ceilings.report.analysis.hypotheses.judgement import Judgement, by_stack, concluded, in_range
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.analysis.stack_levers import runtimes_of
from ceilings.report.tables.evidence import Evidence
from ceilings.runtimes.catalogue import COMPILATION, GRAPH, PYTORCH, VLLM
from ceilings.statistics.quantiles import Interval

GAIN, GAP = 7.0, 6.0
"""Theirs: how many times faster a decode step is with CUDA graphs, and how many times its floor it still takes."""

SIMILAR = 2.0
"""From theirs over this to theirs times this is the same reading: theirs is one model on one device."""

NO_TEXT = "a model of task text-generation, on a GPU"
NO_FLOOR = "peaks: a floor needs the measured limits"


def graphs_at_batch_1(measured: Measured, _: Evidence) -> Judgement:
    """Of every pair of decode steps at batch 1 that differ in the CUDA graph alone: the factor, and what it leaves."""
    groups = [[one for one in cells if one.phase == "decode" and one.batch == 1] for cells in by_stack(measured)]
    pairs = [step for cells in groups for step in steps(measured, cells).get(GRAPH, [])]
    lines = [_line(measured, step.with_, step.without) for step in pairs]
    lines += [
        f"{_line(measured, cell, base)}, and no pair that differs in the CUDA graph alone"
        for cell, base in _mixed(groups, {step.with_ for step in pairs})
    ]
    if not pairs:
        return Judgement("not decidable", "; ".join(lines), (_wanted(measured),))
    gaps = [gap for step in pairs if (gap := over_floor(measured, step.with_))]
    factors = [_similar(step.ratio.inverted(), GAIN) for step in pairs]
    left = [_similar(gap, GAP) for gap in gaps] or ["not decidable"]
    return concluded([*factors, *left], lines, [step.with_ for step in pairs], () if gaps else (NO_FLOOR,))


def _similar(factor: Interval, theirs: float) -> Status:
    return in_range(factor, theirs / SIMILAR, theirs * SIMILAR)


def _line(measured: Measured, cell: Cell, base: Cell) -> str:
    gap = over_floor(measured, cell)
    left = f", then {text.interval(gap, '×')} its floor" if gap else ""
    return f"{named(measured, cell)} {change(measured.compare(cell, base), base.label)}{left}"


def _mixed(groups: Sequence[Sequence[Cell]], paired: set[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """Cells with a CUDA graph and the likest without one, where other levers differ too: their factor is not its."""
    for cells in groups:
        for cell in cells:
            others = [one for one in cells if one.precision == cell.precision and GRAPH not in one.levers]
            if GRAPH in cell.levers and cell not in paired and others:
                yield cell, min(others, key=lambda one: len(one.levers ^ cell.levers))


def _wanted(measured: Measured) -> str:
    """A sweep of decode steps at batch 1; of a study that generates nothing, what it takes first."""
    shapes = [cell.shape for cell in measured.cells if cell.phase]
    if not shapes:
        return NO_TEXT
    steps_of = [shape for shape in shapes if shape["generated"] > 1]
    shape = min(steps_of) if steps_of else min(shapes).with_sizes(generated=min(shapes)["prompt"])
    runtimes = [*runtimes_of(PYTORCH, (), (GRAPH,)), *runtimes_of(VLLM, (COMPILATION,), (COMPILATION, GRAPH))]
    return sweep_entry(measured, runtimes, ("fp16",), (1,), shape)
