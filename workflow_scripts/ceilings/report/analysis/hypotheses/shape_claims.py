"""Claims about batches whose size changes: what the CUDA provider and TensorRT redo at a change, bare and served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Status, combined
from ceilings.report.analysis.hypotheses import served_claims
from ceilings.report.analysis.hypotheses.judgement import Judgement, happens
from ceilings.report.analysis.hypotheses.served_claims import NOT_REDONE, REDONE
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.mixed_shapes import MixedCell, MixedShapes
from ceilings.report.analysis.stack_levers import base_levers, runtime_of
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.keys import axes_of
from ceilings.runtimes.catalogue import ORT_CUDA, RUNTIMES, TENSORRT_STACKS
from ceilings.statistics.quantiles import Interval
from ceilings.workload.shape import Shape

OFTEN = 0.5
"""Of the requests, the share that follows another shape: below it a tax says little of a single change."""

CONVOLVED = frozenset({"image", "samples"})
"""Axes of models that begin with a convolution, which is what is chosen anew."""


def changing_batches(measured: Measured, evidence: Evidence) -> Judgement:
    """What a change of the batch size costs: by bare sequences, and by the batches that servers formed."""
    lines, statuses = served_claims.executions(measured)
    for cell, change in _batch_changes(measured):
        stack, plain = _stack(cell)
        if stack not in {ORT_CUDA, *TENSORRT_STACKS}:
            continue
        alone = text.number(cell.row["return_ratio"])
        lines.append(
            f"{cell.name}: {text.interval(change, '×')} the steady latency at a change of the batch, {alone}× at the "
            "return of a batch alone"
        )
        tensorrt = stack in TENSORRT_STACKS
        status = _redone(cell, change, hoped=not tensorrt)
        # With another search, or without a convolution, the provider may well redo nothing.
        if tensorrt or (plain and (status != "refuted" or _convolves(cell))):
            statuses[tensorrt].append(status)
    known = {side: each for side, each in statuses.items() if each}
    missing = _missing(measured, set(known))
    if len(known) < 2:
        return Judgement("not decidable", "; ".join(lines), missing)
    verdict = combined([happens(statuses[False]), combined(statuses[True])])
    wanted = ("more processes of the sequences, or more servers",)
    return Judgement(verdict, "; ".join(lines), wanted if verdict == "not decidable" else ())


def tensorrt_over_batches(measured: Measured, evidence: Evidence) -> Judgement:
    """What fixed cells and servers say, and beside it the CUDA provider's FP32 where batches change."""
    judgement = served_claims.tensorrt_behind_server(measured, evidence)
    lines = [
        f"{cell.name}: batches in turn take {text.interval(cell.tax, '×')} their steady latency, which is no part of "
        "the kernels (rival explanation, claim 17)"
        for cell, _ in _batch_changes(measured)
        if _stack(cell)[0] == ORT_CUDA and cell.row["precision"] == "fp32" and cell.tax
    ]
    return replace(judgement, ours="; ".join(filter(None, [judgement.ours, *lines])))


def _batch_changes(measured: Measured) -> Iterator[tuple[MixedCell, Interval]]:
    """Cells whose shapes differ in the batch only, with what a request after a change takes over its steady latency.

    Where requests repeat their shape too, changes are held against these, which pay what is no cost of a change.
    """
    mixed = MixedShapes(measured)
    for cell in mixed.cells:
        sizes = [Shape.parse(name) for name in mixed.shapes(cell)["shape"]]
        share = cell.row["changes"] / max(1, cell.row["requests"] - 1)
        alike = len({shape.with_sizes(batch=1) for shape in sizes}) == 1
        if cell.tax and alike and len(sizes) > 1 and share >= OFTEN:
            ends = [1 + (end - 1) / share for end in (cell.tax.low, cell.tax.estimate, cell.tax.high)]
            yield cell, cell.change_cost or Interval(*ends)


def _redone(cell: MixedCell, change: Interval, *, hoped: bool) -> Status:
    """Whether a change redoes something: requests of the sequence show it, and so does the return of a shape alone."""
    if change.low > max(REDONE, cell.drift):
        if not cell.row["return_ratio"] > REDONE:
            return "not decidable"  # a stall of the sequence may be what its requests show
        return "supported" if hoped else "refuted"
    if change.high < NOT_REDONE:
        return "refuted" if hoped else "supported"
    return "not decidable"


def _stack(cell: MixedCell) -> tuple[str, bool]:
    """What executes, and whether it is as it is, without a lever that changes how."""
    if (spec := RUNTIMES.get(cell.configuration[0])) is None:
        return (cell.fixed.stack, cell.fixed.as_it_is) if cell.fixed else ("", False)
    return spec.stack, spec.levers == base_levers(spec.stack)


def _convolves(cell: MixedCell) -> bool:
    return not CONVOLVED.isdisjoint(Shape.parse(str(cell.row["worst_shape"])).axes)


def _missing(measured: Measured, known: set[bool]) -> tuple[str, ...]:
    """The entries of a study that decide it: a sequence of batches for the CUDA provider; for TensorRT a server."""
    cells = measured.tables.cells
    shapes = [Shape.parse(name) for name in cells["shape"].unique()]
    convolved = [shape for shape in shapes if not CONVOLVED.isdisjoint(axes_of([shape]))]
    entries: list[str] = []
    if False not in known and convolved:
        models = sorted(cells[cells["shape"].isin(list(map(str, convolved)))]["model"].unique())
        sizes = ", ".join(f"{axis}: [{size}]" for axis, size in convolved[0].sizes if axis != "batch")
        runtime = runtime_of(ORT_CUDA)
        entries += [
            f"sequences: {{batches: {{order: alternating, axes: {{batch: [1, 2], {sizes}}}}}}}",
            f"changing: {{cells: [{', '.join(f'{runtime}/{model}/fp16/batches' for model in models)}]}}",
        ]
    elif False not in known:
        entries.append("a model with a convolution, such as an image encoder, and a sequence of batches of it")
    if True not in known:
        entries.append(served_claims.MIXED_BATCHES)
    return tuple(entries)
