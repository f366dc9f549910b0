"""Changing shapes: by how much a benchmark of one shape misleads about a sequence of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import (
    MARGIN,
    Finding,
    Status,
    change,
    no_claim,
    processes_entry,
    times,
)
from ceilings.report.analysis.measured import Cell, Judged, Measured
from ceilings.report.analysis.mixed_shapes import MixedCell, MixedShapes
from ceilings.statistics.decisions import within

TOPIC = "Changing shapes"
CLAIM = "Latencies at fixed shapes tell the latency of requests whose shapes change"
MEASURE = "mean latencies, of the sequence to its requests at steady shapes"

DEAR = 2.0
"""Times its steady latency from which a shape's first appearance is named."""

PUBLISHED_TOPIC = "One shape for many"
PUBLISHED = "The latency at one shape is the mean latency of requests of many"
PUBLISHED_MEASURE = "mean latencies, of the sequence to one shape"

CHOICE_TOPIC = "Chosen by one shape"
CHOICE = "What is faster at one shape is as much faster where shapes change"
CHOICE_MEASURE = "mean latencies, over the sequence to at one shape"


def shape_taxes(measured: Measured) -> list[Finding]:
    """A finding a cell of changing shapes: the shape tax, held against the drift of its processes."""
    mixed = MixedShapes(measured)
    return [_tax(mixed, cell) for cell in mixed.cells]


def published_latencies(measured: Measured) -> list[Finding]:
    """A finding a cell of changing shapes: the mean of its requests, held against its latency at one shape."""
    mixed = MixedShapes(measured)
    pairs = ((cell, mixed.published(cell)) for cell in mixed.cells)
    return [_published(cell, judged) for cell, judged in pairs if judged is not None]


def choices(measured: Measured) -> list[Finding]:
    """What is fastest at one shape against each other cell of the workload, and precisions against each other."""
    mixed = MixedShapes(measured)
    return [_choice(mixed, a, b) for cells in mixed.workloads.values() for a, b in _pairs(mixed, cells)]


def changes_may_cost(cell: MixedCell) -> bool:
    """Whether the changes may be what costs: a shape that repeats in the sequence does not take as long."""
    return cell.change_cost is None or cell.change_cost.high > 1 + MARGIN


# --- the tax ---------------------------------------------------------------------------------------------------------


def _tax(mixed: MixedShapes, cell: MixedCell) -> Finding:
    row, name = cell.row, cell.name
    if cell.tax is None:
        sentence = (
            f"{name}: the sequence takes {text.number(row['tax'])}× as long as its requests at their steady latencies; "
            "undecided, one process."
        )
        more = ("protocol: {processes: 3}",)
        return Finding(
            TOPIC, sentence, (), claim=CLAIM, subject=name, status="not decidable", missing=more, records=_of(cell)
        )
    brief = ""
    missing: tuple[str, ...] = ()
    status: Status
    tax, first = cell.tax, _first(mixed, cell)
    if tax.low > cell.drift:
        sentence = (
            f"{name}: a benchmark of one shape at a time misleads by **{text.interval(tax, '×')}**: the sequence takes "
            f"{text.number(row['sequence_ms'])} ms a request, the same requests at steady shapes "
            f"{text.number(row['steady_ms'])} ms. {_cause(cell)}{_dearest(mixed, cell)}{first}"
        )
        brief = (
            f"{name}: a benchmark of one shape misleads by {text.number(tax.estimate)}×; requests whose shapes change "
            f"take {text.number(row['sequence_ms'])} ms in the mean."
            + ("" if changes_may_cost(cell) else " Requests that repeat their shape pay as much.")
        )
        status = "refuted"
    elif tax.high < 1 / max(cell.drift, 1 + MARGIN):
        sentence = (
            f"{name}: requests take less time in the sequence than at their steady latencies, "
            f"**{text.interval(tax, '×')}**: {text.number(row['sequence_ms'])} and {text.number(row['steady_ms'])} ms "
            f"in the mean. Something slows the same shape again, and what a change costs is unknown.{first}"
        )
        brief = f"{name}: requests whose shapes change take {text.number(tax.estimate)}× their steady latencies."
        status = "refuted"
    elif within(tax, MARGIN):
        sentence = (
            f"{name}: the sequence takes as long as its requests at their steady latencies "
            f"({text.interval(tax, '×')}); here a benchmark of one shape at a time tells the truth.{first}"
        )
        status = "supported"
    else:
        sentence = (
            f"{name}: undecided: the sequence takes {text.interval(tax, '×')} as long as its requests at their steady "
            f"latencies, which drift by up to {text.number(cell.drift)}× within a round.{first}"
        )
        status, missing = "not decidable", (f"protocol: {{processes: {2 * int(row['processes'])}}}",)
    return Finding(
        *(TOPIC, sentence, (), tax),
        claim=CLAIM,
        subject=name,
        status=status,
        missing=missing,
        measure=MEASURE,
        records=_of(cell),
        brief=brief,
    )


def _cause(cell: MixedCell) -> str:
    """Whether the tax is that of the changes."""
    alone, cost = cell.row["return_ratio"], cell.change_cost
    if cost is None:
        if pd.isna(alone):  # one shape
            return ""
        assert cell.tax
        little = ", so the changes do not explain the tax" if alone - 1 < (cell.tax.low - 1) / 2 else ""
        return (
            "Every request changes its shape there; alone, the first request after another shape takes "
            f"{text.number(alone)}× the steady latency{little}."
        )
    both = f"There a request takes {text.interval(cost, '×')} as long after another shape as after the same"
    if not changes_may_cost(cell):
        return f"{both}: the requests that change the shape are not what costs."
    return f"{both}: {'the changes cost' if cost.low > 1 else 'undecided whether the changes cost'}."


def _dearest(mixed: MixedShapes, cell: MixedCell) -> str:
    """Where most of the excess falls."""
    if (pair := mixed.dearest(cell)) is None:
        return ""
    return (
        f" The largest part falls on {pair['previous']} to {pair['shape']}: {text.number(pair['mean_ratio'])}× the "
        f"steady latency in the mean, {text.number(pair['ratio'])}× in the median."
    )


def _first(mixed: MixedShapes, cell: MixedCell) -> str:
    """The shape whose first appearance is farthest above its steady latency; no pass after the first one has it."""
    later = mixed.shapes(cell).iloc[1:]
    ratios = later["first_ms"] / later["steady_ms"]
    if ratios.empty or not (largest := ratios.max()) >= DEAR:
        return ""
    row = later.loc[ratios.idxmax()]
    return (
        f" From a cold start the first {row['shape']} takes {text.number(row['first_ms'])} ms, {text.number(largest)}× "
        "its steady latency, once a process and no part of the tax."
    )


# --- the number that a benchmark of one shape publishes ---------------------------------------------------------------


def _published(cell: MixedCell, judged: Judged) -> Finding:
    fixed = cell.fixed
    assert fixed is not None
    shape, mean = fixed.shape, float(fixed.row["mean_ms"])
    mix = cell.row["steady_ms"] / mean
    parts = (
        f"The requests take {text.number(mix)}× that latency at their steady shapes, and "
        f"{text.number(cell.row['tax'])}× of this one after another."
    )
    taken = f"the requests of the sequence take {text.number(cell.row['sequence_ms'])} ms in the mean"
    publishes = f"a benchmark at {shape} publishes a mean of {text.number(mean)} ms"
    status, brief = _status(judged), ""
    missing: tuple[str, ...] = ()
    if status == "refuted":
        sentence = f"{cell.name}: {publishes}; {taken}, **{text.interval(judged.ratio, '×')}** as long. {parts}"
        brief = f"{cell.name}: {publishes}; {taken}, {text.number(judged.ratio.estimate)}× as long."
    elif status == "supported":
        sentence = f"{cell.name}: {publishes}; {taken}, as long within noise ({text.interval(judged.ratio, '×')})."
    else:
        sentence = (
            f"{cell.name}: {publishes}; {taken}: {no_claim(judged)} ({text.interval(judged.ratio, '×')}). {parts}"
        )
        missing = (processes_entry([fixed]),)
    return Finding(
        *(PUBLISHED_TOPIC, sentence, (fixed.name,), judged.ratio),
        claim=PUBLISHED,
        subject=cell.name,
        status=status,
        missing=missing,
        measure=PUBLISHED_MEASURE,
        records=_of(cell),
        brief=brief,
    )


def _status(judged: Judged) -> Status:
    """Of a claim that two latencies are the same."""
    if judged.decided and not within(judged.ratio, MARGIN):
        return "refuted"
    fine = (judged.floor or 0.0) <= MARGIN  # noise that is coarser than the margin shows no equality within it
    same = judged.verdict == "same within noise" or (fine and within(judged.ratio, MARGIN))
    return "supported" if same else "not decidable"


# --- what a benchmark of one shape chooses ---------------------------------------------------------------------------


def _pairs(mixed: MixedShapes, cells: list[MixedCell]) -> Iterator[tuple[MixedCell, MixedCell]]:
    """The fastest cell at one shape with each other one, and a runtime's precisions; the faster one first."""
    fixed = [cell for cell in cells if cell.fixed is not None]
    ordered = sorted(fixed, key=lambda cell: _mean(cell.fixed))
    for a, b in itertools.combinations(ordered, 2):
        if (a is ordered[0] or a.configuration[0] == b.configuration[0]) and mixed.at_one_shape(a, b):
            yield a, b


def _mean(cell: Cell | None) -> float:
    return float(cell.row["mean_ms"]) if cell else math.inf


def _choice(mixed: MixedShapes, a: MixedCell, b: MixedCell) -> Finding:
    """Of two cells, ``a`` has the lower latency at one shape."""
    alone, changing, turned = mixed.at_one_shape(a, b), mixed.compare(a, b), mixed.turned(a, b)
    assert alone and turned and a.fixed and b.fixed
    where = f"{a.row['model']}, {a.row['sequence']}"
    at = f"at {a.fixed.shape} alone"
    both = f"{where}, {a.label} against {b.label}: {at} {change(alone)}, over the sequence {change(changing)}"
    ratio = f"The ratio changes by {text.interval(turned.ratio, '×')}"
    status, brief = _status(turned), ""
    missing: tuple[str, ...] = ()
    if alone.verdict == "faster" and changing.verdict == "slower":
        status = "refuted"
        sentence = f"{both}: **a benchmark of one shape chooses the slower one**. {ratio}."
        brief = (
            f"{where}: {at} {a.label} is {times(alone)} than {b.label}, over the sequence {times(changing)}: a "
            "benchmark of one shape chooses the slower one."
        )
    elif status == "refuted":
        sentence = f"{both}. {ratio}: a benchmark of one shape misleads about the choice by so much."
        brief = (
            f"{where}: {a.label} takes {text.number(alone.ratio.estimate)}× as long as {b.label} at {a.fixed.shape} "
            f"alone, {text.number(changing.ratio.estimate)}× over the sequence."
        )
    elif status == "supported":
        sentence = f"{both}; the ratio stays ({text.interval(turned.ratio, '×')})."
    else:
        sentence = f"{both}. {ratio}: {no_claim(turned)}."
        missing = (processes_entry([a.fixed, b.fixed]),)
    return Finding(
        *(CHOICE_TOPIC, sentence, (a.fixed.name, b.fixed.name), turned.ratio),
        claim=CHOICE,
        subject=f"{a.label} against {b.label}, {where}",
        status=status,
        missing=missing,
        measure=CHOICE_MEASURE,
        records=(*_of(a), *_of(b)),
        brief=brief,
    )


def _of(cell: MixedCell) -> tuple[str, ...]:
    return (cell.record,)
