"""Question 10: what bounds generation. Where batching stops being free, and where the context outweighs the weights.

A decode step reads all weights once, whatever the batch, and the cache of every row. So a larger batch costs nothing
until something else than the weights counts, and a longer context costs nothing until the cache does. The other parts
of the question are in ``generation_stacks``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import (
    MARGIN,
    Finding,
    Status,
    change,
    configuration,
    names,
    panel,
    panel_of,
    processes_entry,
    sweep_entry,
)
from ceilings.report.analysis.findings.generation_stacks import graphs, regimes, schedulers
from ceilings.report.analysis.findings.scaling import flattening
from ceilings.report.analysis.findings.selection import sweeps
from ceilings.report.analysis.measured import Cell, Comparison, Measured, group_by, without_axis
from ceilings.statistics.intervals import Verdict
from ceilings.workload.generation import step_shape

BATCHING, CONTEXT = "Generation: batching", "Generation: context"

BATCHES = (1, 8, 64)
"""What a study is asked to measure where it has one batch only."""

LONGER = 4
"""How many times longer a prompt it is asked to measure where it has one length only."""

DOUBLED = 2.0
"""From here on, what grows with the context takes longer than all that does not."""

FREE = f"Batching is free: the largest measured batch takes less than {MARGIN:.0%} longer a step than the smallest"
OUTWEIGHED = "A step reads more of the cache than of the weights, within the measured contexts and batches"
GROWN = "What grows with the context takes longer than everything else of a step, within the measured contexts"


def generation(measured: Measured) -> list[Finding]:
    """Batch, context, CUDA graphs, scheduler and phases of generating models; none where a study has no such cell."""
    if not any(cell.phase for cell in measured.cells):
        return []
    return [
        *batches(measured),
        *outweighed(measured),
        *growth(measured),
        *graphs(measured),
        *schedulers(measured),
        *regimes(measured),
    ]


def decoding(measured: Measured) -> list[list[Cell]]:
    """Cells whose iterations are decode steps, a list a device and model."""
    steps = [cell for cell in measured.cells if cell.phase == "decode"]
    return list(group_by(steps, lambda cell: (cell.device, cell.model)).values())


def past(cell: Cell) -> int:
    """Tokens of a row that a step in the middle of the generated ones finds in the cache."""
    return step_shape(cell.shape)["past"]


# --- batch -----------------------------------------------------------------------------------------------------------


def batches(measured: Measured) -> list[Finding]:
    """For each configuration: up to which batch a step takes no longer, and where total tokens a second flatten."""
    rows = [cells for cells in sweeps(measured, "batch") if cells[0].phase == "decode"]
    findings = [_batching(measured, cells) for cells in rows]
    swept = {(cells[0].device, cells[0].model) for cells in rows}
    for cells in decoding(measured):
        if (cells[0].device, cells[0].model) not in swept:
            shape = measured.common_shapes[cells[0].device, cells[0].model]
            wanted = sweep_entry(measured, _runtimes(cells), _precisions(cells), BATCHES, shape)
            sentence = f"{panel(measured, cells[0])}each configuration was measured at one batch only."
            findings.append(_open(BATCHING, sentence, FREE, wanted, names(cells)))
    return findings


def _batching(measured: Measured, cells: Sequence[Cell]) -> Finding:
    first, last = cells[0], cells[-1]
    pairs = [measured.compare(cell, first) for cell in cells[1:]]
    kinds = [_cost(measured, pair) for pair in pairs]
    judged = zip(pairs, kinds, strict=True)
    free = [first, *(pair.a for pair, _ in itertools.takewhile(lambda one: one[1] == "free", judged))][-1]
    costly = next((pair for pair, kind in zip(pairs, kinds, strict=True) if kind == "costs"), None)
    open_ = [pair for pair, kind in zip(pairs, kinds, strict=True) if kind == "open"]
    subject = f"{configuration(measured, first)} at {text.sizes(without_axis(first.shape, 'batch'))}"
    sentence = (
        f"{subject}: a step of batch {last.batch} takes {text.interval(pairs[-1].ratio, '×')} the time of one of "
    )
    sentence += f"batch {first.batch}"
    if free is not first:
        sentence += f". Batching is free up to batch {free.batch}: less than {MARGIN:.0%} longer"
    if costly:
        sentence += f". At batch {costly.a.batch} it costs time: {change(costly)} than batch {first.batch}"
    if open_:
        sentence += f". Not decided at batch {text.listed(pair.a.batch for pair in open_)}"
    whole = measured.compare_per_inference(last, first)
    steps = [measured.compare_per_inference(b, a) for a, b in itertools.pairwise(cells)]
    more = whole.ratio.inverted()
    sentence += (
        f". All rows together give {text.number(last.batch * 1e3 / last.p50.estimate)} tokens/s at batch {last.batch}, "
        f"{text.interval(more, '×')} those of batch {first.batch}; {flattening(steps)}"
    )
    status: Status = {"free": "supported", "costs": "refuted", "open": "not decidable"}[kinds[-1]]  # type: ignore[assignment]
    verdict: Verdict | None = pairs[-1].verdict
    if kinds[-1] == "free" and verdict == "undecided":
        verdict = None  # not longer by more than the margin is decided, though nothing else is
    brief = f"{subject}: a step of batch {last.batch} takes "
    brief += f"{text.number(pairs[-1].ratio.estimate)}× the time of one of batch {first.batch}"
    brief += f", so batching is free up to batch {free.batch}" if free is not first else ""
    brief += f", and gives {text.number(more.estimate)}× the tokens." if whole.decided else "."
    return Finding(
        *(BATCHING, f"{sentence}.", names(cells), pairs[-1].ratio, verdict, 10, FREE, first.label, status),
        missing=(processes_entry(cells),) if status == "not decidable" else (),
        measure="time per output token",
        brief=brief if status != "not decidable" else "",
    )


def _cost(measured: Measured, pair: Comparison) -> str:
    """``free``: provably no longer by ``MARGIN``; ``costs``: provably longer by more; else ``open``.

    Noise alone makes nothing free: where it is more than the margin, the same within noise may be longer by more.
    """
    if pair.verdict == "faster" or measured.equivalent(pair.a, pair.b, MARGIN):
        return "free"
    return "costs" if pair.verdict == "slower" and pair.ratio.low > 1 + MARGIN else "open"


# --- context ---------------------------------------------------------------------------------------------------------


def outweighed(measured: Measured) -> list[Finding]:
    """Computed: the context from which on a step reads more bytes of the cache than of the weights, at each batch."""
    findings = []
    for cells in decoding(measured):
        for precision, same in group_by(cells, lambda cell: cell.precision).items():
            # The floor is the graph's, whichever runtime it is held against.
            known = {cell.shape: (cell, floor) for cell in same if (floor := _with_cache(measured, cell))}
            if known:
                findings.append(_computed(measured, precision, [known[shape] for shape in sorted(known)]))
    return findings


def _with_cache(measured: Measured, cell: Cell) -> dict[str, Any] | None:
    """The floor of a step whose bytes of weights and cache are known."""
    floor = measured.hardware_floor(cell)
    known = floor and all(pd.notna(floor.get(name)) and floor[name] > 0 for name in ("weight_bytes", "cache_bytes"))
    return floor if known else None


def _computed(measured: Measured, precision: str, known: list[tuple[Cell, dict[str, Any]]]) -> Finding:
    crossings, longest = dict[int, int](), dict[int, int]()
    for cell, floor in known:
        # The cache that is read, and the new token's that is written: in proportion to the context.
        context = step_shape(cell.shape)["present"]
        crossings[cell.batch] = math.floor(floor["weight_bytes"] / floor["cache_bytes"] * context) + 1
        longest[cell.batch] = max(longest.get(cell.batch, 0), context)
    cell, floor = max(known, key=lambda pair: pair[1]["cache_bytes"] / pair[1]["weight_bytes"])
    share = floor["cache_bytes"] / floor["weight_bytes"]
    at = text.listed(
        f"{length:,} tokens at batch {batch}{_beyond(length, longest[batch])}"
        for batch, length in sorted(crossings.items())
    )
    where = f"{panel_of(measured, cell.model, cell.device)}{precision}"
    sentence = (
        f"{where}, computed from the bytes that a step reads: the cache outweighs the weights "
        f"({floor['weight_bytes'] / 1e6:,.0f} MB) from a context of {at} on. The largest cache that was measured, "
        f"{floor['cache_bytes'] / 1e6:,.0f} MB at {cell.shape}, is {text.number(share)}× the weights"
    )
    brief = f"{where}: by its bytes, the cache outweighs the weights from {at} on."
    status: Status = "supported" if share > 1 else "refuted"
    cells = names(cell for cell, _ in known)
    return Finding(
        *(CONTEXT, f"{sentence}.", cells), question=10, claim=OUTWEIGHED, subject=precision, status=status, brief=brief
    )


def _beyond(length: int, longest: int) -> str:
    """How far the measured contexts go, where they do not go so far: a model may have fewer positions."""
    return f" (beyond the {longest:,} that were measured)" if length > longest else ""


def growth(measured: Measured) -> list[Finding]:
    """Measured: how much longer a step takes at the longest context than at the shortest, and what captures say."""
    rows = [cells for cells in sweeps(measured, "prompt") if cells[0].phase == "decode"]
    findings = [_growth(measured, cells) for cells in rows]
    swept = {(cells[0].device, cells[0].model) for cells in rows}
    for cells in decoding(measured):
        if (cells[0].device, cells[0].model) not in swept:
            shape = measured.common_shapes[cells[0].device, cells[0].model]
            longer = shape.with_sizes(prompt=LONGER * shape["prompt"])
            wanted = sweep_entry(measured, _runtimes(cells), _precisions(cells), shape=longer)
            sentence = f"{panel(measured, cells[0])}each configuration was measured at one length of the prompt only."
            findings.append(_open(CONTEXT, sentence, GROWN, wanted, names(cells)))
    return findings


def _growth(measured: Measured, cells: Sequence[Cell]) -> Finding:
    first, last = cells[0], cells[-1]
    whole = measured.compare(last, first)
    subject = f"{configuration(measured, first)} at {text.sizes(without_axis(first.shape, 'prompt'))}"
    sentence = (
        f"{subject}, measured: with {past(last):,} tokens in the cache a step takes {text.interval(whole.ratio, '×')} "
        f"the time of one with {past(first):,}"
    )
    sentence += "" if whole.decided else f" ({change(whole)})"
    floors = [_with_cache(measured, cell) for cell in (first, last)]
    if floors[0] and floors[1]:
        by_floor = floors[1]["floor_ms"] / floors[0]["floor_ms"]
        sentence += f"; by its floor alone, {text.number(by_floor)}×"
    sentence += _captured(measured, cells)
    status: Status = "not decidable"
    if whole.ratio.bounded and whole.ratio.low >= DOUBLED:
        status = "supported"
    elif whole.ratio.high < DOUBLED:
        status = "refuted"
    brief = (
        f"{subject}: with {past(last):,} tokens in the cache a step takes {text.number(whole.ratio.estimate)}× the "
        f"time of one with {past(first):,}."
    )
    return Finding(
        *(CONTEXT, f"{sentence}.", names(cells), whole.ratio, whole.verdict, 10, GROWN, first.label, status),
        missing=(processes_entry(cells),) if status == "not decidable" else (),
        measure="time per output token",
        brief=brief if whole.decided else "",
    )


def _captured(measured: Measured, cells: Sequence[Cell]) -> str:
    """Time of attention's kernels against that of the other products, in captures; empty without one."""
    shown = []
    for cell in cells:
        budget = measured.budget(cell)
        if budget and pd.notna(budget["gpu_attention_ms"]) and budget["gpu_attention_ms"] > 0:
            attention, products = budget["gpu_attention_ms"], budget["gpu_gemm_ms"]
            more = "more" if attention > products else "less"
            shown.append(
                f"{text.number(attention)} ms, {more} than the {text.number(products)} ms of the other products, with "
                f"{past(cell):,} tokens"
            )
    return f". In captures attention takes {'; '.join(shown)}" if shown else ""


# --- words -----------------------------------------------------------------------------------------------------------


def _open(topic: str, sentence: str, claim: str, wanted: str, cells: tuple[str, ...]) -> Finding:
    return Finding(topic, sentence, cells, question=10, claim=claim, status="not decidable", missing=(wanted,))


def _runtimes(cells: Iterable[Cell]) -> list[str]:
    return sorted({cell.runtime for cell in cells})


def _precisions(cells: Iterable[Cell]) -> list[str]:
    return sorted({cell.precision for cell in cells})
