"""Question 6, the other side of its price: what a lower precision costs in accuracy, or in agreement with FP32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report.analysis.findings.finding import Finding, Status, names, speedup
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

NO_LABELS = " Without labels this is agreement with FP32, no accuracy."
RANDOM = " The weights are random: this says nothing of a trained model."


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
        gain = f"Its latency at {pair.a.shape}: {speedup(pair, pair.b.label)}."
    notes = ("" if row["metric"] in ("accuracy", "pearson") else NO_LABELS) + (
        RANDOM if row["weights"] == "random" else ""
    )
    sentence = f"{_panel(measured, row)}{label}: {worth(row)}. {gain}{notes}"
    missing = () if status != "not decidable" else (_missing(row),)
    name = "/".join((*(row[part] for part in CONFIGURATION), row["shape"]))
    cells = names((pair.a, pair.b)) if pair else (name,)
    effect, verdict = (pair.ratio, pair.verdict) if pair else (None, None)
    return Finding(TOPIC, sentence, cells, effect, verdict, 6, claim, label, status, missing)


def _pair(measured: Measured, row: Row, pairs: list[Comparison]) -> Comparison | None:
    """Latencies at the shape that was evaluated, else at the common one, else at any."""
    at_shape = [pair for pair in pairs if str(pair.a.shape) == row["shape"]]
    return next(iter(at_shape or [pair for pair in pairs if measured.is_common(pair.a)] or pairs), None)


def _missing(row: Row) -> str:
    if row["weights"] == "random":
        return f"models: {{{row['model']}: {{weights: pretrained}}}}"
    if row["source"] == "corpus":  # all of it was used
        return f"models: {{{row['model']}: {{data: {{file: FILE}}}}}}"
    return f"quality: {{limit: {4 * int(row['rows'])}}}"


def _control(measured: Measured, rows: list[Row]) -> list[Finding]:
    """FP32 on every runtime: where it differs from FP32 PyTorch, so do all precisions on it."""
    findings = []
    for row in rows:
        label = configuration_label(row["runtime"], row["precision"])
        name = "/".join((*(row[part] for part in CONFIGURATION), row["shape"]))
        findings.append(Finding(TOPIC, f"{_panel(measured, row)}{label} (control): {worth(row)}.", (name,), question=6))
    return findings


def _panel(measured: Measured, row: Row) -> str:
    """Names the device and the model only where there are several to confuse."""
    quality_table = measured.tables.quality
    words = [row[name] for name in ("model", "device") if quality_table[name].nunique() > 1]
    return f"{', '.join(words)}: " if words else ""
