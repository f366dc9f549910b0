"""Question 6: does lower precision pay, from which size on, and what does it cost in parity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import (
    MARGIN,
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
from ceilings.report.analysis.measured import Comparison, Measured, group_by
from ceilings.report.analysis.narrow_products import arithmetic, float_only
from ceilings.report.analysis.precision_series import PrecisionSeries, precision_series

TOPIC = "Lower precision"
CLAIM = "A lower precision is faster than FP32"


def precisions(measured: Measured) -> list[Finding]:
    """Each lower precision against FP32 at every shape, with the crossover or its absence."""
    everything = precision_series(measured)
    findings = [_series(measured, series) for series in everything if len(series.points) > 1]
    single = [series for series in everything if len(series.points) == 1]
    by_precision = group_by(single, lambda one: (one.device, one.model, one.precision, one.points[0].a.shape))
    findings += [_at_one_shape(measured, members) for members in by_precision.values()]
    if not findings and measured.cells:
        runtimes = {cell.runtime for cell in measured.cells}
        wanted = sweep_entry(measured, sorted(runtimes), ("fp32", "fp16", "int8"))
        sentence = "No lower precision was measured beside FP32 at the same shape."
        findings = [Finding(TOPIC, sentence, (), question=6, claim=CLAIM, status="not decidable", missing=(wanted,))]
    return findings


def _series(measured: Measured, series: PrecisionSeries) -> Finding:
    shapes = "; ".join(f"{point.a.axis(series.axis)}: {change(point)}" for point in series.points)
    first = series.points[0].a
    fixed = text.sizes(series.fixed)
    sentence = (
        f"{panel(measured, first)}{series.label} against {series.reference_label} over {series.axis}"
        f"{f' ({fixed})' if fixed else ''}: {_summary(series)} By {series.axis}: {shapes}."
        f"{arithmetic(series.points)}{_cost(series.points)}"
    )
    strongest = max(series.points, key=_strength)
    cells = names(cell for pair in series.points for cell in (pair.a, pair.b))
    status = _status(measured, series)
    undecided = [pair.a for pair in series.points if pair.verdict == "undecided"]
    missing = (processes_entry(undecided or [first]),) if status == "not decidable" else ()
    sizes = f"{series.axis} {series.sizes[0]} to {series.sizes[-1]}"
    throughout = all(point.verdict == "faster" for point in series.points)
    reach = " throughout" if throughout else " at one or more of" if status == "supported" else ","
    subject = f"{series.label}{_named(series.points)}{reach} {sizes}"
    brief = _brief(measured, strongest, _named(series.points))
    return Finding(
        *(TOPIC, sentence, cells, strongest.ratio, strongest.verdict, 6, CLAIM, subject, status, missing), brief=brief
    )


def _brief(measured: Measured, pair: Comparison, note: str) -> str:
    """The strongest effect; empty where none is decided."""
    if not pair.decided:
        return ""
    return f"{panel(measured, pair.a)}{pair.a.label}{note} is {times(pair)} than {pair.b.label} at {pair.a.shape}."


def _at_one_shape(measured: Measured, members: list[PrecisionSeries]) -> Finding:
    """Every configuration that has the precision and FP32 at one shape, the largest gain first."""
    pairs = sorted((series.points[0] for series in members), key=lambda pair: pair.ratio.estimate)
    first = pairs[0].a
    shown = [f"{pair.a.label}{_reference(pair)} {change(pair)}" for pair in pairs]
    name = first.precision.upper()
    sentence = f"{where(measured, first)}: {name} against FP32: {'; '.join(shown)}.{arithmetic(pairs)}{_cost(pairs)}"
    statuses = [
        status_of(pair.verdict, pair.verdict == "undecided" and measured.equivalent(pair.a, pair.b, MARGIN))
        for pair in pairs
    ]
    gains = statuses.count("supported")
    status = "supported" if gains else combined(statuses)
    undecided = [pair.a for pair, one in zip(pairs, statuses, strict=True) if one == "not decidable"]
    missing = (processes_entry(undecided),) if status == "not decidable" else ()
    strongest = max(pairs, key=_strength)
    subject = f"{name}{_named(pairs)} at {first.shape}, " + (
        f"on {gains or 'any'} of {len(pairs)} configurations" if len(pairs) > 1 else first.runtime
    )
    cells = names(cell for pair in pairs for cell in (pair.a, pair.b))
    brief = _brief(measured, strongest, _named(pairs))
    return Finding(
        *(TOPIC, sentence, cells, strongest.ratio, strongest.verdict, 6, CLAIM, subject, status, missing), brief=brief
    )


def _named(points: Sequence[Comparison]) -> str:
    """Where nothing computed in the precision, the shortest line about it says so."""
    return " (no product ran in it)" if all(float_only(point.a) for point in points) else ""


def _reference(pair: Comparison) -> str:
    """Named where it is another runtime's."""
    return f" (against {pair.b.label})" if pair.b.runtime != pair.a.runtime else ""


def _status(measured: Measured, series: PrecisionSeries) -> Status:
    """Supported where it is faster at one size or more, refuted where it is at none; the text says at which."""
    verdicts = [point.verdict for point in series.points]
    if "faster" in verdicts:
        return "supported"
    equal = [
        point.verdict in {"slower", "same within noise"} or measured.equivalent(point.a, point.b, MARGIN)
        for point in series.points
    ]
    return "refuted" if all(equal) else "not decidable"


def _cost(points: Sequence[Comparison]) -> str:
    """The worst parity of what was timed."""
    rows = [point.a.row for point in points]
    errors = [row["relative_l2"] for row in rows if pd.notna(row["relative_l2"])]
    cosines = [row["cosine"] for row in rows if pd.notna(row["cosine"])]
    if not errors:
        return ""
    sentence = f" Largest error against the FP32 reference: {max(errors):.1e} (relative L2)"
    return sentence + (f", lowest cosine of any row {min(cosines):.6f}." if cosines else ".")


def _summary(series: PrecisionSeries) -> str:
    verdicts = [point.verdict for point in series.points]
    span = f"{series.sizes[0]} to {series.sizes[-1]}"
    name = series.precision.upper()
    if series.crossovers:
        return " ".join(
            f"{name} {'starts to win' if crossing.gains else 'stops winning'} between {series.axis} "
            f"{crossing.below} and {crossing.above} (about {text.number(crossing.size)})."
            for crossing in series.crossovers
        )
    for verdict in ("faster", "slower"):
        if all(each == verdict for each in verdicts):
            return f"{name} is {verdict} throughout {span}, no crossover."
        if verdict in verdicts:
            count = verdicts.count(verdict)
            return f"{name} is {verdict} at {count} of {len(verdicts)} sizes, undecided at the others; no crossover."
    if all(each == "same within noise" for each in verdicts):
        return f"the same within noise at every size {span}."
    return f"undecided at every size {span}."


def _strength(pair: Comparison) -> tuple[bool, float]:
    return pair.decided, abs(math.log(pair.ratio.estimate))
