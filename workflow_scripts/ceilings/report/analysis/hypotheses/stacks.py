"""Claims about stacks: which is faster, what is fused, what an engine costs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.factors import steps
from ceilings.report.analysis.findings.finding import (
    MARGIN,
    Status,
    change,
    combined,
    configuration,
    named,
    status_of,
    sweep_entry,
)
from ceilings.report.analysis.findings.generation_stacks import scheduled_pairs
from ceilings.report.analysis.findings.providers import providers
from ceilings.report.analysis.findings.saturation import busy_share, plain_cells
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.hypotheses.judgement import (
    Judgement,
    by_stack,
    concluded,
    happens,
    joined,
    turned_out,
    unknown,
)
from ceilings.report.analysis.measured import Cell, Comparison, Measured, equivalence, group_by
from ceilings.report.analysis.precision_series import precision_series
from ceilings.report.analysis.stack_levers import base_levers, runtime_of, runtimes_of
from ceilings.report.tables.evidence import Evidence
from ceilings.runtimes.catalogue import FUSION, GRAPH, ORT_CUDA, ORT_TENSORRT, TENSORRT, TENSORRT_STACKS, VLLM
from ceilings.statistics.decisions import beyond
from ceilings.workload.shape import Shape

SMALL = Shape.of({"batch": 1, "sequence": 128})

OPPOSITE: dict[Status, Status] = {"supported": "refuted", "refuted": "supported", "not decidable": "not decidable"}
"""The status of the opposite claim."""


def saturated(measured: Measured, _: Evidence) -> Judgement:
    """At the shape of the claim alone: batch 1, sequence 128."""
    small = [cell for cell in plain_cells(measured) if cell.shape == SMALL]
    shares = [share for cell in small if (share := busy_share(measured, cell))]
    if not shares:
        return unknown(measured, runtimes_of(ORT_CUDA, (), (GRAPH,)), ("fp32", "fp16"))
    verdicts: dict[bool | None, Status] = {True: "supported", False: "refuted", None: "not decidable"}
    sentence = "; ".join(
        f"{configuration(measured, share.cell)}: the GPU works {'at most ' if share.most else ''}"
        f"{text.percent(min(share.value.estimate, 1))} of an iteration"
        for share in shares
    )
    missing = tuple(share.would_decide for share in shares if share.busy is None)
    return Judgement(combined(verdicts[share.busy] for share in shares), sentence, missing)


def provider_equals_native(measured: Measured, _: Evidence) -> Judgement:
    related = [f for f in providers(measured) if f.claim and "are equal" in f.claim and "fp16" in " ".join(f.cells)]
    if not related:
        return unknown(measured, (runtime_of(ORT_TENSORRT), runtime_of(TENSORRT)), ("fp16",))
    same = [f.status for f in related if f.status and "p99" not in (f.claim or "")]
    # The claim has two halves: means agree, the p99 does not.
    tails = [f.status for f in related if f.status and "p99" in (f.claim or "")]
    verdict = combined([*same, *(OPPOSITE[status] for status in tails)])
    missing = tuple(dict.fromkeys(entry for finding in related for entry in finding.missing))
    return Judgement(verdict, joined(related), missing if verdict == "not decidable" else ())


def fusion_diminishes(measured: Measured, _: Evidence) -> Judgement:
    related = [step for members in by_stack(measured) for step in steps(measured, members).get(FUSION, [])]
    if not related:
        return unknown(measured, runtimes_of(ORT_CUDA, (GRAPH,), (FUSION, GRAPH)), ("fp16",))
    margin = 0.10
    statuses: list[Status] = []
    for step in related:
        if step.verdict == "slower" or measured.equivalent(step.with_, step.without, margin):
            statuses.append("supported")
        else:
            statuses.append("refuted" if step.ratio.high < 1 / (1 + margin) else "not decidable")
    sentence = "what `onnxruntime.transformers` fuses beyond ORT's optimiser: "
    if all(step.with_.phase for step in related):  # their fused graph is written from the weights
        sentence = "a graph with GroupQueryAttention and one buffer for the cache, against the plain one: "
    sentence += "; ".join(f"{named(measured, step.with_)} {change(step)}" for step in related)
    return concluded(statuses, [sentence], [step.with_ for step in related])


def tensorrt_can_lose(measured: Measured, _: Evidence) -> Judgement:
    """Two things that happen: one example each supports it."""
    halves: list[Status] = []
    provider = [cell for cell in measured.cells if _provider(cell)]
    pairs = [
        measured.compare(cell, base)
        for cell in provider
        if (base := measured.find_stack(cell, ORT_CUDA, base_levers(ORT_CUDA))) is not None
    ]
    halves.append(happens(turned_out(pair, "slower") for pair in pairs))
    sentences = [f"TensorRT's provider is slower in {sum(p.verdict == 'slower' for p in pairs)} of {len(pairs)} pairs"]
    fp16 = [pair for series in precision_series(measured) if series.precision == "fp16" for pair in series.points]
    gains = [status_of(pair.verdict, measured.equivalent(pair.a, pair.b, MARGIN)) for pair in fp16]
    halves.append(happens(OPPOSITE[status] for status in gains))
    sentences.append(
        f"FP16 provably gains nothing in {gains.count('refuted')} of {len(fp16)} "
        f"({gains.count('not decidable')} undecided)"
    )
    entry = sweep_entry(measured, (runtime_of(ORT_CUDA), runtime_of(ORT_TENSORRT)), ("fp32", "fp16"))
    return concluded(halves, sentences, [pair.a for pair in (*pairs, *fp16)], () if pairs and fp16 else (entry,))


def _provider(cell: Cell) -> bool:
    """ONNX Runtime on TensorRT's provider, no lever pulled."""
    return cell.stack == ORT_TENSORRT and cell.as_it_is


def clip_tensorrt(measured: Measured, _: Evidence) -> Judgement:
    """Both factors apart, where all of the cells exist; and the CUDA provider's time at batch 4 over batch 1."""
    products, batches = list[Status](), list[Status]()
    lines, rests_on = [], list[Cell]()
    for cell in measured.cells:
        base = measured.find_stack(cell, ORT_CUDA, base_levers(ORT_CUDA), "fp32")
        if _provider(cell) and cell.precision == "fp16" and base is not None:
            pair = measured.compare(cell, base)
            products.append(turned_out(pair, "faster"))
            rests_on += [cell, base]
            parts = [change(pair)]
            for label, stack, precision in (
                ("runtime alone", ORT_TENSORRT, "fp32"),
                ("precision alone", ORT_CUDA, "fp16"),
            ):
                one = measured.find_stack(base, stack, base_levers(stack), precision)
                parts += [f"{label} {change(measured.compare(one, base))}"] if one else []
            lines.append(f"{named(measured, cell)} {', '.join(parts)}")
        four = measured.find(cell, shape=cell.shape.with_sizes(batch=4))
        if cell.stack == ORT_CUDA and cell.as_it_is and cell.batch == 1 and four is not None:
            same = measured.equivalent(four, cell, MARGIN)
            ratio = equivalence(four, cell)
            if cell.precision == "fp32":  # what the claim is about; another precision is shown and decides nothing
                margin = max(MARGIN, measured.noise_floor(cell.device) or 0.0)
                batches.append("supported" if same else "refuted" if beyond(ratio, margin) else "not decidable")
                rests_on += [cell, four]
            lines.append(
                f"{configuration(measured, cell)} batch 4 over batch 1 {text.interval(ratio, '×')} (90% interval)"
            )
    entry = sweep_entry(measured, (runtime_of(ORT_CUDA), runtime_of(ORT_TENSORRT)), ("fp32", "fp16"), (1, 4))
    if not (products and batches):
        return Judgement("not decidable", "; ".join(lines), (entry,))
    return concluded([*products, *batches], lines, rests_on)


def engine_build(measured: Measured, _: Evidence) -> Judgement:
    cells = [cell for cell in measured.cells if cell.stack in TENSORRT_STACKS and pd.notna(cell.row["load_ms"])]
    if not cells:
        return unknown(measured, runtimes_of(ORT_TENSORRT, ()), ("fp16",))
    loads = sorted(cell.row["load_ms"] / 1e3 for cell in cells)
    sentence = f"loading with the engine in its cache {text.number(loads[0])} to {text.number(loads[-1])} s"
    missing = ("the build's seconds stand beside the engines, not in the tables",)
    # Theirs is about 30 s: half of that or twice as much is another reading.
    return Judgement("refuted" if loads[-1] < 15 or loads[0] > 60 else "not decidable", sentence, missing)


def fastest(measured: Measured, _: Evidence) -> Judgement:
    """TensorRT against all other stacks on a GPU; vLLM, at decode steps, against those in a CUDA graph.

    The half on vLLM counts where it has cells.
    """
    wins: list[Comparison] = []
    for cells in group_by(measured.cells, lambda c: (c.device, c.model, c.precision, c.shape)).values():
        ours = [cell for cell in cells if cell.stack in TENSORRT_STACKS]
        others = [cell for cell in cells if cell.stack not in TENSORRT_STACKS and on_gpu(cell)]
        if ours and others:
            best = [min(group, key=lambda cell: cell.p50.estimate) for group in (ours, others)]
            wins.append(measured.compare(*best))
    missing = () if wins else (sweep_entry(measured, TENSORRT_OR_NOT, ("fp16",)),)
    halves = {"TensorRT": wins, f"{VLLM}, at decode steps,": scheduled_pairs(measured)}
    lines = [
        f"{who} is the fastest at {sum(pair.verdict == 'faster' for pair in pairs)} of "
        f"{text.plural(len(pairs), 'combination')} of model, precision and shape"
        for who, pairs in halves.items()
        if pairs
    ]
    verdicts = [_mostly_faster(pairs) for who, pairs in halves.items() if pairs or who == "TensorRT"]
    return concluded(verdicts, lines, [pair.a for pairs in halves.values() for pair in pairs], missing)


TENSORRT_OR_NOT = (runtime_of(TENSORRT, GRAPH), runtime_of(ORT_CUDA, FUSION, GRAPH))


def _mostly_faster(pairs: Sequence[Comparison]) -> Status:
    """Of the claim that most are faster."""
    count = sum(pair.verdict == "faster" for pair in pairs)
    lost = sum(pair.verdict in {"slower", "same within noise"} for pair in pairs)
    if count > len(pairs) / 2:
        return "supported"
    return "refuted" if pairs and lost >= len(pairs) / 2 else "not decidable"
