"""Question 6, the other side of its price: what a lower precision costs in accuracy, or in agreement with FP32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import Finding, Status, names, speedup
from ceilings.report.analysis.measured import Comparison, Measured, configuration_label
from ceilings.report.analysis.precision_series import REFERENCE, precision_series
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


def worth(row: Row) -> str:
    """A row's metric in words, with its interval and what FP32 PyTorch reaches."""
    metric, over = row["metric"], f"over {text.plural(int(row['rows']), 'row')}"
    if metric == "accuracy":
        return (
            f"accuracy {share(row, 'value', 'low', 'high')}, FP32 PyTorch's {row['reference_value']:.1%}, {over}: "
            f"{points(row)}, McNemar's p {probability(row['p_value'])}; "
            f"{share(row, 'agreement', 'agreement_low', 'agreement_high')} of the answers agree"
        )
    if metric == "pearson":
        sentence = f"correlation with the labels {decimal(row, 'value', 'low', 'high')} {over}"
        if pd.isna(row["difference"]):
            return sentence
        return (
            f"{sentence}, FP32 PyTorch's plus {decimal(row, 'difference', 'difference_low', 'difference_high')} "
            f"(p {probability(row['p_value'])})"
        )
    if metric == "agreement":
        return f"{share(row, 'value', 'low', 'high')} of the answers are FP32 PyTorch's, {over}"
    if metric == "correlation":
        return f"correlation with FP32 PyTorch {decimal(row, 'value', 'low', 'high')} {over}"
    cosine = f"{row['cosine_median']:.6f} (median), {row['cosine_min']:.6f} (lowest)"
    sentence = f"cosine with FP32 PyTorch {cosine} {over}"
    if pd.isna(row["neighbour_overlap"]):
        return sentence
    kept = share(row, "neighbour_overlap", "neighbour_overlap_low", "neighbour_overlap_high")
    return (
        f"{sentence}; {kept} of the ten nearest rows are kept, rank correlation {row['neighbour_rank_correlation']:.4f}"
    )


def share(row: Row, value: str, low: str, high: str) -> str:
    """``91.2% [89.1%, 92.9%]``."""
    return f"{row[value]:.1%} [{row[low]:.1%}, {row[high]:.1%}]"


def points(row: Row) -> str:
    """The difference of two shares: ``-1.1 points [-2.1, -0.2]``."""
    ends = ", ".join(f"{100 * row[name]:+.1f}" for name in ("difference_low", "difference_high"))
    return f"{100 * row['difference']:+.1f} points [{ends}]"


def decimal(row: Row, value: str, low: str, high: str) -> str:
    """``0.912 [0.881, 0.934]``."""
    if pd.isna(row[value]):
        return "undefined (all answers are the same)"
    return f"{row[value]:.4f} [{row[low]:.4f}, {row[high]:.4f}]"


def probability(value: float) -> str:
    """A p value to two digits."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


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
    by_shape = {str(pair.a.shape): pair for pair in pairs}
    for shape in (row["shape"], str(measured.common_shape)):
        if shape in by_shape:
            return by_shape[shape]
    return pairs[0] if pairs else None


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
