"""Question 5: which levers still move a small static workload, alone and on top of the others."""

from __future__ import annotations

import itertools

from ceilings.report import text
from ceilings.report.analysis.findings.factors import Step, distance, factorial, recipe, steps
from ceilings.report.analysis.findings.finding import (
    MARGIN,
    Finding,
    Status,
    change,
    names,
    panel,
    processes_entry,
    status_of,
    sweep_entry,
    times,
)
from ceilings.report.analysis.findings.selection import on_gpu, panels_at_common_shape
from ceilings.report.analysis.measured import Cell, Measured, group_by, phase_of, without_axis
from ceilings.report.analysis.narrow_products import float_only
from ceilings.report.analysis.stack_levers import runtimes_of
from ceilings.runtimes.catalogue import FUSION, GRAPH, IO_BINDING, ORT_CUDA

TOPIC = "Levers"


def levers(measured: Measured) -> list[Finding]:
    """Each lever of each stack, the strongest first; then how they act together."""
    findings = []
    for cells in panels_at_common_shape(measured):
        for members in group_by(cells, lambda cell: cell.stack).values():
            ranked = sorted(steps(measured, members).values(), key=_rank)
            findings += [_lever(measured, every) for every in ranked]
            findings += _batch(measured, members)
            findings += _together(measured, members)
    findings += _larger(measured)
    if not any(on_gpu(cell) for cell in measured.cells):
        wanted = sweep_entry(measured, runtimes_of(ORT_CUDA, (), (GRAPH,), (FUSION,), (FUSION, GRAPH)))
        claim = "CUDA graph, fusion or IO binding shorten the latency"
        sentence = "No cell of a GPU was measured."
        findings.append(
            Finding(TOPIC, sentence, (), question=5, claim=claim, status="not decidable", missing=(wanted,))
        )
    return findings


def _larger(measured: Measured) -> list[Finding]:
    """The same levers at the largest size at which a stack has any: which of them fade there, grow or turn."""
    findings = []
    for cells in measured.panels.values():
        common = phase_of(measured.common_shapes[cells[0].device, cells[0].model])
        others = [cell for cell in cells if on_gpu(cell) and not measured.is_common(cell) and cell.phase == common]
        stacks = group_by(others, lambda cell: (cell.volume, cell.shape, cell.stack))
        known = {key: members for key, same in stacks.items() if (members := steps(measured, same))}
        largest = {stack: key for key in sorted(known) for stack in key[2:]}
        for key in largest.values():
            ranked = sorted(known[key].values(), key=_rank)
            first = ranked[0][0].with_
            shown = "; ".join(
                f"{_name(members[0])} {change(members[0], members[0].without.label)}" for members in ranked
            )
            cells_ = names(cell for members in ranked for cell in (members[0].without, members[0].with_))
            findings.append(Finding(TOPIC, f"{_at(measured, first)}: at this larger size {shown}.", cells_, question=5))
    return findings


def _rank(members: list[Step]) -> tuple[bool, float]:
    return not members[0].decided, members[0].ratio.estimate


def _lever(measured: Measured, members: list[Step]) -> Finding:
    alone, top = members[0], members[-1]
    sentence = f"{_at(measured, alone.with_)}: **{_name(alone)}** {change(alone, alone.without.label)}"
    sentence += " (both with copies)" if alone.lever == IO_BINDING else ""
    if top is not alone:
        sentence += f"; on top of {_named(top, alone)} {change(top)}"
        sentence += _interaction(measured, alone, top)
    on_top = f" on top of {_named(top, alone)}" if top is not alone else ""
    brief = ""
    if top.decided and not (top.lever == GRAPH and top.with_.phase):  # of generated text generation_stacks.py says it
        brief = f"{_at(measured, top.with_)}: {_name(top)}{on_top} makes it {times(top)}."
    claim = f"A lever shortens {alone.with_.shape}, on top of the others"
    subject = f"{_name(alone)} on {alone.with_.stack}"
    if top is not alone:
        subject += f" after {_named(top, alone)}"
    status = _status(measured, top)
    missing = (processes_entry([top.with_]),) if status == "not decidable" else ()
    cells = names(cell for step in (alone, top) for cell in (step.without, step.with_))
    return Finding(
        *(TOPIC, f"{sentence}.", cells, top.ratio, top.verdict, 5, claim, subject, status, missing), brief=brief
    )


def _status(measured: Measured, step: Step) -> Status:
    equal = step.lever != IO_BINDING and measured.equivalent(step.with_, step.without, MARGIN)
    return status_of(step.verdict, equal)


def _name(step: Step) -> str:
    """A precision in which no product ran is the price of the Q/DQ nodes, and is called so."""
    return f"{step.lever} (no product ran in it)" if float_only(step.with_) else step.lever


def _named(top: Step, alone: Step) -> str:
    return text.listed(sorted(top.others - alone.others)) or top.without.label


def _interaction(measured: Measured, alone: Step, top: Step) -> str:
    """Whether the lever's factor is another one on top of the others."""
    if alone.lever == IO_BINDING:
        return ""
    four = [top.with_, top.without, alone.with_, alone.without]
    if len(set(four)) < 4:
        return ""
    judged = measured.factor(four, [1.0, -1.0, -1.0, 1.0])
    if not judged.decided:
        return ""
    effect = "more" if judged.verdict == "faster" else "less"
    return f" (it gains {effect} there: {text.interval(judged.ratio, '×')} the factor)"


def _batch(measured: Measured, members: list[Cell]) -> list[Finding]:
    """The largest batch against the smallest, per inference, with the fewest levers and with the most."""
    pairs = []
    for cell in members:
        row = [one for one in measured.cells if _but_batch(one) == _but_batch(cell)]
        if len(row) > 1:
            row.sort(key=lambda one: one.batch)
            pairs.append(measured.compare_per_inference(row[-1], row[0]))
    if not pairs:
        return []
    pairs.sort(key=lambda pair: distance(recipe(pair.a)))
    alone, top = pairs[0], pairs[-1]
    batches, unit = f"{alone.b.batch} to {alone.a.batch}", alone.a.unit
    sentence = f"{_at(measured, alone.b)}: **batch** {batches}, per {unit}: {change(alone)} in {alone.a.label}"
    if top is not alone:
        sentence += f"; {top.b.batch} to {top.a.batch} {change(top)} in {top.a.label}"
    status = status_of(top.verdict)
    missing = (processes_entry([top.a]),) if status == "not decidable" else ()
    claim = f"A larger batch makes {'a token' if alone.a.phase else 'an inference'} cheaper"
    subject = f"batch {top.b.batch} to {top.a.batch}, {top.a.label}"
    cells = names(cell for pair in (alone, top) for cell in (pair.a, pair.b))
    return [Finding(TOPIC, f"{sentence}.", cells, top.ratio, top.verdict, 5, claim, subject, status, missing)]


def _but_batch(cell: Cell) -> tuple[object, ...]:
    return (*cell.configuration, cell.device, cell.model, without_axis(cell.shape, "batch"))


def _together(measured: Measured, members: list[Cell]) -> list[Finding]:
    """The largest full factorial: each lever averaged over the others, and what two do to each other."""
    design = factorial(members)
    if design is None:
        return []
    mains = []
    for lever in design.levers:
        judged = design.effect(measured, lever)
        mains.append((judged.ratio.estimate, f"{lever} {change(judged)}"))
    sentence = (
        f"{_at(measured, members[0])}: over all {len(design.cells)} combinations of {text.listed(design.levers)}, each "
        f"lever averaged over the others: {'; '.join(shown for _, shown in sorted(mains))}"
    )
    clear, open_ = [], []
    for a, b in itertools.combinations(design.levers, 2):
        judged = design.effect(measured, a, b)
        factor = text.interval(judged.ratio, "×")
        if judged.decided:
            what = "gain more together" if judged.verdict == "faster" else "gain less together"
            clear.append(f"{a} and {b} {what} ({factor})")
        else:
            open_.append(f"{a} and {b} ({factor})")
    sentence += f". Interactions: {'; '.join(clear)}" if clear else ""
    sentence += f". No interaction shown: {'; '.join(open_)}" if open_ else ""
    return [Finding(TOPIC, f"{sentence}.", names(design.cells.values()), question=5)]


def _at(measured: Measured, cell: Cell) -> str:
    return f"{panel(measured, cell)}{cell.shape}, {cell.stack}"
