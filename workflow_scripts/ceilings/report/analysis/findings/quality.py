"""Question 6, the other side of its price: what a lower precision costs in accuracy, or in agreement with FP32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report.analysis.findings.finding import Finding, Status, change, names, panel_of
from ceilings.report.analysis.measured import Comparison, Measured, configuration_label
from ceilings.report.analysis.precision_series import REFERENCE, precision_series
from ceilings.report.analysis.quality_words import worth
from ceilings.report.tables.quality_rows import CONFIGURATION

TOPIC = "What a precision costs in quality"

Row = Mapping[str, Any]

BOUNDS = {
    "accuracy": ("difference", -0.01, "A lower precision costs at most one point of accuracy"),
    "pearson": ("difference", -0.01, "A lower precision costs at most 0.01 of the correlation with labels"),
    "agreement": ("agreement", 0.99, "A lower precision gives at least 99% of FP32's answers"),
    "correlation": ("value", 0.99, "A lower precision's numbers correlate with FP32's by at least 0.99"),
    "neighbours": ("neighbour_overlap", 0.9, "A lower precision keeps at least 90% of each row's ten nearest"),
    "cosine": ("value", 0.999, "A lower precision's outputs have a median cosine of at least 0.999 with FP32's"),
}
"""By metric: the column that is judged, the least that keeps the quality, and the claim that it is kept."""

MADE = {"random", "spectrum"}
"""Sources of rows that are made, as many as a study asks for."""

NO_LABELS = " Without labels this is agreement with FP32, not accuracy."
RANDOM = " The weights are random: this says nothing about a trained model."


def quality(measured: Measured) -> list[Finding]:
    """Each evaluated configuration of a lower precision, with its latency against FP32; FP32 elsewhere as a control."""
    rows = [row for row in measured.tables.quality.to_dict("records") if row["status"] == "ok"]
    pairs: dict[tuple[str, ...], list[Comparison]] = {}
    for series in precision_series(measured):
        key = (series.device, series.runtime, series.model, series.precision)
        pairs.setdefault(key, []).extend(series.points)
    findings = []
    for row in rows:
        if row["precision"] != REFERENCE:
            findings.append(_cost(measured, row, pairs.get(tuple(row[name] for name in CONFIGURATION), [])))
    return findings + _control(measured, [row for row in rows if row["precision"] == REFERENCE])


def status_of_quality(row: Row) -> Status:
    """Whether the whole interval lies above what keeps the quality, or below."""
    column, least, _ = BOUNDS[kind(row)]
    low, high = (row["low"], row["high"]) if column == "value" else (row[f"{column}_low"], row[f"{column}_high"])
    if row["weights"] == "random" or pd.isna(low) or pd.isna(high):
        return "not decidable"
    return "supported" if low >= least else "refuted" if high < least else "not decidable"


def kind(row: Row) -> str:
    """What is judged of a row: its metric, or the neighbours that its vectors keep."""
    return "neighbours" if row["metric"] == "cosine" and pd.notna(row["neighbour_overlap"]) else str(row["metric"])


def _cost(measured: Measured, row: Row, points_measured: list[Comparison]) -> Finding:
    pair = _pair(measured, row, points_measured)
    label = configuration_label(row["runtime"], row["precision"])
    claim = BOUNDS[kind(row)][2]
    status = status_of_quality(row)
    gain = "Its latency was not measured beside FP32's."
    if pair is not None:
        gain = f"Its latency at {pair.a.shape}: {change(pair, pair.b.label)}."
    notes = ("" if row["metric"] in ("accuracy", "pearson") else NO_LABELS) + (
        RANDOM if row["weights"] == "random" else ""
    )
    sentence = f"{panel_of(measured, row['model'], row['device'])}{label}: {worth(row)}. {gain}{notes}"
    missing = _missing(row) if status == "not decidable" else ()
    cells = names((pair.a, pair.b)) if pair else ()
    verdict = pair.verdict if pair else None
    subject = label if pair else f"{panel_of(measured, row['model'], row['device'])}{label}"
    # No effect: the claim is about the outputs, and the pair's ratio is one of latencies.
    brief = f"{panel_of(measured, row['model'], row['device'])}{label}: {worth(row)}."
    return Finding(
        *(TOPIC, sentence, cells, None, verdict, 6, claim, subject, status, missing),
        records=(_record(row),),
        brief=brief if status != "not decidable" else "",
    )


def _pair(measured: Measured, row: Row, pairs: list[Comparison]) -> Comparison | None:
    """Latencies at the shape that was evaluated, else at the common one, else at any."""
    at_shape = [pair for pair in pairs if str(pair.a.shape) == row["shape"]]
    return next(iter(at_shape or [pair for pair in pairs if measured.is_common(pair.a)] or pairs), None)


def _missing(row: Row) -> tuple[str, ...]:
    """Real weights in place of random ones; else more rows, of the same source as long as it has them."""
    if row["weights"] == "random":
        return (f"models: {{{row['model']}: {{weights: pretrained}}}}",)
    if kind(row) == "neighbours" and row["neighbours_among"] < row["rows"]:
        return ()  # neighbours are looked for among so many rows at most
    rows, available = int(row["rows"]), row["available"]
    if row["source"] in MADE:
        return (f"quality: {{limit: {4 * rows}}}",)
    if pd.isna(available) or available <= rows:
        return (f"models: {{{row['model']}: {{data: {{file: FILE_WITH_MORE_ROWS}}}}}}",)
    return (f"quality: {{limit: {min(4 * rows, int(available))}}}",)


def _record(row: Row) -> str:
    """The path of a row's record below the results folder."""
    device, runtime, model, precision = (row[part] for part in CONFIGURATION)
    return f"quality/{device}/{runtime}/{model}/{precision}.json"


def _control(measured: Measured, rows: list[Row]) -> list[Finding]:
    """FP32 on every runtime: where it differs from the FP32 reference, so do all precisions on it."""
    findings = []
    for row in rows:
        label = configuration_label(row["runtime"], row["precision"])
        sentence = f"{panel_of(measured, row['model'], row['device'])}{label} (control): {worth(row)}."
        findings.append(Finding(TOPIC, sentence, (), question=6, records=(_record(row),)))
    return findings
