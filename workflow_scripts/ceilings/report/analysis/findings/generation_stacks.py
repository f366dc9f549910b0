"""Question 10, the stacks: what CUDA graphs buy a decode step and a prefill, what a scheduler costs and buys, and how
far both phases are from their floors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.factors import Step, steps
from ceilings.report.analysis.findings.finding import (
    Finding,
    Status,
    change,
    combined,
    names,
    panel,
    processes_entry,
    status_of,
    sweep_entry,
    times,
    where,
)
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.measured import Cell, Comparison, Measured, group_by, without_axis
from ceilings.report.analysis.stack_levers import runtimes_of
from ceilings.runtimes.catalogue import COMPILATION, GRAPH, PYTORCH, VLLM
from ceilings.statistics.quantiles import Interval
from ceilings.taxonomy import HOST_PARTS
from ceilings.workload.generation import Phase

GRAPHS, SCHEDULER, REGIMES = "Generation: CUDA graphs", "Generation: scheduler", "Generation: prefill and decode"

WORDS: dict[Phase, str] = {"decode": "a decode step", "prefill": "a prefill"}

SCHEDULED = f"{VLLM} costs a token time at the smallest batch, and gives more tokens a second at the largest"
LIMITED = "The floor of a prefill is set by the matrix rate, and that of a decode step by bytes"

BYTES = {"dram", "l2"}
"""What sets a floor of bytes."""


# --- CUDA graphs -----------------------------------------------------------------------------------------------------


def graphs(measured: Measured) -> list[Finding]:
    """Cells that differ in the CUDA graph alone, a finding a stack and phase."""
    pairs: dict[tuple[str, str, Phase, str], list[Step]] = {}
    generating = [cell for cell in measured.cells if cell.phase]
    for cells in group_by(generating, lambda cell: (cell.device, cell.model, cell.shape, cell.stack)).values():
        for step in steps(measured, cells).get(GRAPH, []):
            cell = step.with_
            assert cell.phase
            pairs.setdefault((cell.device, cell.model, cell.phase, cell.stack), []).append(step)
    ordered = sorted(pairs.items(), key=lambda pair: list(WORDS).index(pair[0][2]))  # steps before prefills
    findings = [_graph(measured, same) for _, same in ordered]
    claim = _graph_claim("decode")
    if not any(finding.claim == claim for finding in findings):
        sentence = "No pair of decode steps with and without a CUDA graph was measured."
        wanted = sweep_entry(measured, runtimes_of(PYTORCH, (), (GRAPH,)), ("fp16",), steps=True)
        findings.append(_open(GRAPHS, sentence, claim, wanted))
    return findings


def _graph_claim(phase: Phase) -> str:
    return f"A CUDA graph shortens {WORDS[phase]}"


def _graph(measured: Measured, same: list[Step]) -> Finding:
    same = sorted(same, key=lambda step: (step.with_.volume, step.with_.shape))
    head = same[0]
    cell = head.with_
    assert cell.phase
    what = f"{panel(measured, cell)}{cell.stack}, {WORDS[cell.phase]}"
    shown = "; ".join(f"{step.with_.shape} {step.with_.label} {change(step, step.without.label)}" for step in same)
    sentence = f"{what}: {shown}{_left(measured, cell)}"
    status = status_of(head.verdict)
    brief = f"{what} at {text.sizes(cell.shape)}: the CUDA graph makes it {times(head)}{_gap_in_short(measured, cell)}."
    return Finding(
        GRAPHS,
        f"{sentence}.",
        names(one for step in same for one in (step.with_, step.without)),
        effect=head.ratio,
        verdict=head.verdict,
        question=10,
        claim=_graph_claim(cell.phase),
        subject=f"{cell.label} {cell.shape}",
        status=status,
        missing=(processes_entry([cell]),) if status == "not decidable" else (),
        measure="time per output token" if cell.phase == "decode" else "time to the first token",
        brief=brief if head.decided else "",
    )


def _left(measured: Measured, cell: Cell) -> str:
    """How far the step with the graph still is from its floor."""
    floor = measured.hardware_floor(cell)
    if not floor:
        return ""
    return (
        f". With the graph it takes {text.number(cell.p50.estimate)} ms at {cell.shape}, still "
        f"{text.interval(_gap(cell, floor), '×')} its floor of {text.number(floor['floor_ms'])} ms (set by "
        f"{text.LIMITED_BY.get(floor['limited_by'], floor['limited_by'])})"
    )


def _gap_in_short(measured: Measured, cell: Cell) -> str:
    floor = measured.hardware_floor(cell)
    return f", still {text.number(floor['gap'])}× its floor" if floor else ""


def over_floor(measured: Measured, cell: Cell) -> Interval | None:
    """How many times its floor a cell's median takes; None where the floor is not known."""
    floor = measured.hardware_floor(cell)
    return _gap(cell, floor) if floor else None


def _gap(cell: Cell, floor: dict[str, Any]) -> Interval:
    return cell.p50.scaled(1 / floor["floor_ms"])


# --- the scheduler ---------------------------------------------------------------------------------------------------


def scheduled_pairs(measured: Measured) -> list[Comparison]:
    """Every decode step of vLLM in a CUDA graph against the fastest of another stack in one, all else alike."""
    captured = [cell for cell in measured.cells if cell.phase == "decode" and GRAPH in cell.levers]
    pairs = []
    for cells in group_by(captured, lambda cell: (cell.device, cell.model, cell.precision, cell.shape)).values():
        if others := [cell for cell in cells if cell.stack != VLLM]:
            fastest = min(others, key=lambda cell: cell.p50.estimate)
            pairs += [measured.compare(cell, fastest) for cell in cells if cell.stack == VLLM]
    return pairs


def schedulers(measured: Measured) -> list[Finding]:
    """vLLM against the fastest other stack with a CUDA graph, from the smallest batch to the largest."""
    groups = group_by(
        sorted(scheduled_pairs(measured), key=lambda pair: pair.a.batch),
        lambda pair: (pair.a.device, pair.a.model, pair.a.precision, without_axis(pair.a.shape, "batch")),
    )
    if groups:
        return [_scheduler(measured, pairs) for pairs in groups.values()]
    if alone := [one for one in measured.cells if one.phase == "decode" and one.stack == VLLM and GRAPH in one.levers]:
        sentence = f"{VLLM} was measured, and no other stack with a CUDA graph at its shapes."
        wanted = sweep_entry(measured, runtimes_of(PYTORCH, (GRAPH,)), {cell.precision for cell in alone})
        return [_open(SCHEDULER, sentence, SCHEDULED, wanted, names(alone))]
    sentence = f"No decode step of {VLLM} was measured."
    stacks = [*runtimes_of(VLLM, (COMPILATION, GRAPH)), *runtimes_of(PYTORCH, (GRAPH,))]
    wanted = sweep_entry(measured, stacks, ("fp16",), (1, 64), steps=True)
    return [_open(SCHEDULER, sentence, SCHEDULED, wanted)]


def _scheduler(measured: Measured, pairs: Sequence[Comparison]) -> Finding:
    first, last = pairs[0], pairs[-1]
    at = f"{panel(measured, first.a)}{text.sizes(without_axis(first.a.shape, 'batch'))}, {first.a.precision}"
    shown = "; ".join(
        f"batch {pair.a.batch} {text.number(pair.a.p50.estimate)} against {text.number(pair.b.p50.estimate)} ms a "
        f"token ({_rate(pair.a)} against {_rate(pair.b)} tokens/s in total), {change(pair, pair.b.label)}"
        for pair in pairs
    )
    sentence = f"{at}: {first.a.label} against the fastest other stack with a CUDA graph: {shown}"
    sentence += ". The difference holds its scheduler and its kernels together"
    shares = [f"{text.percent(share)} at batch {p.a.batch}" for p in pairs if (share := _host(measured, p.a))]
    sentence += f". In its captures the host works for {text.listed(shares)} of a step" if shares else ""
    status: Status = status_of(first.verdict, hoped="slower")
    if last is not first:
        status = combined((status, status_of(last.verdict)))
    missing = (processes_entry([pair.a for pair in pairs]),) if status == "not decidable" else ()
    if last is first:
        missing = (sweep_entry(measured, sorted({first.a.runtime, first.b.runtime}), (first.a.precision,), (1, 64)),)
        status = "refuted" if status == "refuted" else "not decidable"
    ends = [f"{times(pair)} than {pair.b.label} at batch {pair.a.batch}" for pair in pairs if pair.decided]
    brief = f"{at}: {first.a.label} is {text.listed(dict.fromkeys((ends[0], ends[-1])))}." if ends else ""
    return Finding(
        SCHEDULER,
        f"{sentence}.",
        names(one for pair in pairs for one in (pair.a, pair.b)),
        effect=first.ratio,
        verdict=first.verdict,
        question=10,
        claim=SCHEDULED,
        subject=first.a.label,
        status=status,
        missing=missing if status == "not decidable" else (),
        measure="time per output token",
        brief=brief,
    )


def _rate(cell: Cell) -> str:
    return text.number(cell.batch * 1e3 / cell.p50.estimate)


def _host(measured: Measured, cell: Cell) -> float | None:
    """The share of a captured step in which the host does other things than wait for the device."""
    budget = measured.budget(cell)
    if not budget or any(pd.isna(budget[f"host_{part}_ms"]) for part in HOST_PARTS):
        return None
    return sum(budget[f"host_{part}_ms"] for part in HOST_PARTS if part != "sync") / budget["iteration_ms"]


# --- two regimes -----------------------------------------------------------------------------------------------------


def regimes(measured: Measured) -> list[Finding]:
    """Floor and gap of the fastest prefill and of the fastest decode step of the same batch and prompt."""
    findings = []
    for cells in measured.panels.values():
        generating = [cell for cell in cells if cell.phase]
        by_phase = {phase: _fastest(measured, generating, phase) for phase in WORDS}
        decode, prefill = by_phase["decode"], by_phase["prefill"]
        if decode and prefill:
            findings.append(_regimes(measured, prefill, decode))
        elif known := decode or prefill:
            cell, _ = known
            sizes = {"generated": 1} if decode else {"generated": cell.shape["prompt"]}
            missing = "prefill (g1)" if decode else "decode step"
            wanted = sweep_entry(measured, (cell.runtime,), (cell.precision,), shape=cell.shape.with_sizes(**sizes))
            sentence = f"{where(measured, cell)}: no {missing} of this batch and prompt has a known floor."
            findings.append(_open(REGIMES, sentence, LIMITED, wanted, names([cell])))
    if not findings:
        sentence = "No measured prefill or decode step has a known floor."
        gpu = any(on_gpu(cell) for cell in measured.cells)
        wanted = sweep_entry(measured, runtimes_of(PYTORCH, (GRAPH,)), ("fp16",))
        findings = [_open(REGIMES, sentence, LIMITED, "peaks: a floor needs the measured limits" if gpu else wanted)]
    return findings


def _fastest(measured: Measured, cells: Sequence[Cell], phase: Phase) -> tuple[Cell, dict[str, Any]] | None:
    """The fastest cell of a phase with a floor, at the batch and prompt of the panel's common shape."""
    if not cells:
        return None
    common = without_axis(measured.common_shapes[cells[0].device, cells[0].model], "generated")
    same = [
        (cell, floor)
        for cell in cells
        if cell.phase == phase
        and without_axis(cell.shape, "generated") == common
        and (floor := measured.hardware_floor(cell))
    ]
    return min(same, key=lambda pair: pair[0].p50.estimate, default=None)


def _regimes(measured: Measured, prefill: tuple[Cell, dict[str, Any]], decode: tuple[Cell, dict[str, Any]]) -> Finding:
    parts = []
    for cell, floor in (prefill, decode):
        assert cell.phase
        limit = text.LIMITED_BY.get(floor["limited_by"], floor["limited_by"])
        parts.append(
            f"{WORDS[cell.phase]} ({cell.shape}) has a floor of {text.number(floor['floor_ms'])} ms, set by {limit}; "
            f"the fastest, {cell.label}, takes {text.number(cell.p50.estimate)} ms, "
            f"{text.interval(_gap(cell, floor), '×')} of it"
        )
    at = f"{panel(measured, decode[0])}{text.sizes(without_axis(decode[0].shape, 'generated'))}"
    sentence = f"{at}: {', and '.join(parts)}"
    computes, reads = prefill[1]["limited_by"] == "compute", decode[1]["limited_by"] in BYTES
    brief = (
        f"{at}: the fastest prefill takes {text.number(prefill[1]['gap'])}× its floor, the fastest decode step "
        f"{text.number(decode[1]['gap'])}×."
    )
    return Finding(
        REGIMES,
        f"{sentence}.",
        names([prefill[0], decode[0]]),
        effect=_gap(*decode),
        question=10,
        claim=LIMITED,
        subject=f"{prefill[0].label}, {decode[0].label}",
        status="supported" if computes and reads else "refuted",
        measure="time of a decode step over its floor",
        brief=brief,
    )


def _open(topic: str, sentence: str, claim: str, wanted: str, cells: tuple[str, ...] = ()) -> Finding:
    return Finding(topic, sentence, cells, question=10, claim=claim, status="not decidable", missing=(wanted,))
