"""Claims about stacks: which is faster, what is fused, what an engine costs."""

from __future__ import annotations

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.factors import steps
from ceilings.report.analysis.findings.finding import (
    MARGIN,
    Status,
    change,
    combined,
    configuration,
    panel,
    short,
    sweep_entry,
)
from ceilings.report.analysis.findings.providers import providers
from ceilings.report.analysis.findings.saturation import busy_share, plain_cells
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.hypotheses.judgement import (
    Judgement,
    by_stack,
    happens,
    in_words,
    joined,
    turned_out,
    unknown,
)
from ceilings.report.analysis.known_stacks import (
    ORT_CUDA,
    ORT_TENSORRT,
    TENSORRT,
    TENSORRT_STACKS,
    as_it_is,
    base_levers,
    runtime_of,
    runtimes_of,
)
from ceilings.report.analysis.measured import Cell, Comparison, Measured, group_by
from ceilings.report.analysis.precision_series import precision_series
from ceilings.report.tables.evidence import Evidence
from ceilings.runtimes.catalogue import FUSION, GRAPH
from ceilings.statistics.decisions import beyond, equivalence_interval
from ceilings.workload.shape import Shape

SMALL = Shape.of({"batch": 1, "sequence": 128})


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
    related = [f for f in providers(measured) if f.claim and "equivalent" in f.claim and "fp16" in " ".join(f.cells)]
    if not related:
        return unknown(measured, (runtime_of(ORT_TENSORRT), runtime_of(TENSORRT)), ("fp16",))
    same = [f.status for f in related if f.status and "p99" not in (f.claim or "")]
    # The claim has two halves: means agree, the p99 does not.
    tails = [f.status for f in related if f.status and "p99" in (f.claim or "")]
    inverted: dict[Status, Status] = {"supported": "refuted", "refuted": "supported"}
    return Judgement(combined([*same, *(inverted.get(s, s) for s in tails)]), joined(related))


def fusion_diminishes(measured: Measured, _: Evidence) -> Judgement:
    related = [step for members in by_stack(measured) for step in steps(measured, members).get(FUSION, [])]
    if not related:
        return unknown(measured, runtimes_of(ORT_CUDA, (GRAPH,), (FUSION, GRAPH)), ("fp16",))
    margin = 0.10
    statuses: list[Status] = []
    for step in related:
        if measured.equivalent(step.with_, step.without, margin):
            statuses.append("supported")
        else:
            statuses.append("refuted" if step.ratio.high < 1 / (1 + margin) else "not decidable")
    sentence = "what `onnxruntime.transformers` fuses beyond ORT's own optimiser: "
    sentence += "; ".join(
        f"{panel(measured, step.with_)}{short(step.with_)} {change(step.ratio, step.verdict)}" for step in related
    )
    return Judgement(combined(statuses), sentence)


def tensorrt_can_lose(measured: Measured, _: Evidence) -> Judgement:
    """Two things that happen: one example each supports it."""
    halves: list[Status] = []
    provider = [cell for cell in measured.cells if _provider(cell)]
    pairs = [
        measured.compare(cell, base)
        for cell in provider
        if (base := measured.find_stack(cell, ORT_CUDA, base_levers(ORT_CUDA))) is not None
    ]
    halves.append(happens(pair.verdict == "slower" for pair in pairs) if pairs else "not decidable")
    sentences = [f"TensorRT's provider is slower in {sum(p.verdict == 'slower' for p in pairs)} of {len(pairs)} pairs"]
    fp16 = [pair for series in precision_series(measured) if series.precision == "fp16" for pair in series.points]
    no_gain = [p for p in fp16 if p.verdict in {"slower", "same within noise"} or measured.equivalent(p.a, p.b, MARGIN)]
    sure = no_gain or all(pair.verdict == "faster" for pair in fp16)
    halves.append(happens([bool(no_gain)]) if fp16 and sure else "not decidable")
    unclear = sum(pair.verdict == "undecided" for pair in fp16)
    sentences.append(f"FP16 provably gains nothing in {len(no_gain)} of {len(fp16)} ({unclear} undecided)")
    verdict = combined(halves)
    entry = sweep_entry(measured, (runtime_of(ORT_CUDA), runtime_of(ORT_TENSORRT)), ("fp32", "fp16"))
    return Judgement(verdict, "; ".join(sentences), (entry,) if verdict == "not decidable" else ())


def _provider(cell: Cell) -> bool:
    """ONNX Runtime on TensorRT's provider, no lever pulled."""
    return cell.stack == ORT_TENSORRT and as_it_is(cell)


def clip_tensorrt(measured: Measured, _: Evidence) -> Judgement:
    """Both factors apart, where all of the cells exist; and the CUDA provider's time at batch 4 over batch 1."""
    halves: list[Status] = []
    lines = []
    for cell in measured.cells:
        base = measured.find_stack(cell, ORT_CUDA, base_levers(ORT_CUDA), "fp32")
        if _provider(cell) and cell.precision == "fp16" and base is not None:
            pair = measured.compare(cell, base)
            halves.append(turned_out(pair, "faster"))
            parts = [in_words(pair)]
            for label, stack, precision in (
                ("runtime alone", ORT_TENSORRT, "fp32"),
                ("precision alone", ORT_CUDA, "fp16"),
            ):
                one = measured.find_stack(base, stack, base_levers(stack), precision)
                parts += [f"{label} {in_words(measured.compare(one, base))}"] if one else []
            lines.append(f"{short(cell)} {', '.join(parts)}")
        four = measured.find(cell, shape=cell.shape.with_sizes(batch=4))
        if cell.stack == ORT_CUDA and as_it_is(cell) and cell.batch == 1 and four is not None:
            same = measured.equivalent(four, cell, MARGIN)
            ratio = equivalence_interval(four.groups, cell.groups)
            if cell.precision == "fp32":  # what the claim is about; another precision is shown and decides nothing
                halves.append("supported" if same else "refuted" if beyond(ratio, MARGIN) else "not decidable")
            lines.append(f"{cell.label} batch 4 over batch 1 {text.interval(ratio, '×')} (90% interval)")
    entry = sweep_entry(measured, (runtime_of(ORT_CUDA), runtime_of(ORT_TENSORRT)), ("fp32", "fp16"), (1, 4))
    verdict = combined(halves) if len(halves) > 1 else "not decidable"
    return Judgement(verdict, "; ".join(lines), (entry,) if verdict == "not decidable" else ())


def engine_build(measured: Measured, _: Evidence) -> Judgement:
    cells = [cell for cell in measured.cells if cell.stack in TENSORRT_STACKS and pd.notna(cell.row["load_ms"])]
    if not cells:
        return unknown(measured, runtimes_of(ORT_TENSORRT, ()), ("fp16",))
    loads = sorted(cell.row["load_ms"] / 1e3 for cell in cells)
    sentence = f"loading with the engine in its cache {text.number(loads[0])} to {text.number(loads[-1])} s"
    missing = ("the build's seconds stand beside the engines, not in the tables",)
    # Theirs is about 30 s: half of that or twice as much is another reading.
    return Judgement("refuted" if loads[-1] < 15 or loads[0] > 60 else "not decidable", sentence, missing)


def tensorrt_fastest(measured: Measured, _: Evidence) -> Judgement:
    wins: list[Comparison] = []
    for cells in group_by(measured.cells, lambda c: (c.device, c.model, c.precision, c.shape)).values():
        ours = [cell for cell in cells if cell.stack in TENSORRT_STACKS]
        others = [cell for cell in cells if cell.stack not in TENSORRT_STACKS and on_gpu(cell)]
        if ours and others:
            best = [min(group, key=lambda cell: cell.p50.estimate) for group in (ours, others)]
            wins.append(measured.compare(*best))
    if not wins:
        return unknown(measured, (runtime_of(TENSORRT, GRAPH), runtime_of(ORT_CUDA, FUSION, GRAPH)), ("fp16",))
    count = sum(pair.verdict == "faster" for pair in wins)
    lost = sum(pair.verdict in {"slower", "same within noise"} for pair in wins)
    verdict: Status = "supported" if count > len(wins) / 2 else "refuted" if lost >= len(wins) / 2 else "not decidable"
    return Judgement(verdict, f"the fastest at {count} of {len(wins)} combinations of precision and shape")
