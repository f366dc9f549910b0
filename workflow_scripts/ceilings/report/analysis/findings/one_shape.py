"""Changing shapes: by how much a benchmark of one shape misleads about a sequence of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import MARGIN, Finding
from ceilings.report.analysis.measured import Measured, configuration_label
from ceilings.statistics.quantiles import Interval

TOPIC = "Changing shapes"
CLAIM = "Latencies at fixed shapes tell the latency of requests whose shapes change."
MEASURE = "mean latencies, of the sequence to its requests at steady shapes"


def shape_taxes(measured: Measured) -> list[Finding]:
    """A finding a cell of changing shapes: the shape tax, held against the drift of its processes."""
    rows = measured.tables.changing.to_dict("records")
    return [_finding(row) for row in rows if row["status"] == "ok"]


def _finding(row: Mapping[str, Any]) -> Finding:
    name = f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, {row['sequence']}"
    path = str(row["path"]).partition("results/")[2] or str(row["path"])
    if pd.isna(row["tax_low"]):
        sentence = (
            f"{name}: the sequence takes {text.number(row['tax'])}× as long as its requests at their steady latencies; "
            "undecided, one process."
        )
        missing = ("protocol: {processes: 3}",)
        return Finding(
            TOPIC, sentence, (), claim=CLAIM, subject=name, status="not decidable", missing=missing, records=(path,)
        )
    tax = Interval(row["tax_low"], row["tax"], row["tax_high"])
    drift = max(row["drift_high"], 1 / row["drift_low"])
    if tax.low > max(drift, 1):
        worst = ""
        if not pd.isna(row["worst_ratio"]):
            worst = (
                f" The change that costs most is {row['worst_previous']} to {row['worst_shape']}: "
                f"{text.number(row['worst_ratio'])}× the steady latency."
            )
        sentence = (
            f"{name}: a benchmark of one shape at a time misleads by **{text.interval(tax, '×')}**: the sequence takes "
            f"{text.number(row['sequence_ms'])} ms a request, the same requests at steady shapes "
            f"{text.number(row['steady_ms'])} ms.{worst}"
        )
        brief = (
            f"{name}: a benchmark of one shape misleads by {text.number(tax.estimate)}×; requests whose shapes change "
            f"take {text.number(row['sequence_ms'])} ms in the mean."
        )
        return Finding(
            *(TOPIC, sentence, (), tax),
            claim=CLAIM,
            subject=name,
            status="refuted",
            measure=MEASURE,
            records=(path,),
            brief=brief,
        )
    if tax.high < 1 + MARGIN and tax.low > 1 / (1 + MARGIN):
        sentence = (
            f"{name}: the sequence takes as long as its requests at their steady latencies "
            f"({text.interval(tax, '×')}); here a benchmark of one shape at a time tells the truth."
        )
        return Finding(
            *(TOPIC, sentence, (), tax), claim=CLAIM, subject=name, status="supported", measure=MEASURE, records=(path,)
        )
    sentence = (
        f"{name}: undecided: the sequence takes {text.interval(tax, '×')} as long as its requests at their steady "
        f"latencies, which drift by up to {text.number(drift)}× within a round."
    )
    missing = (f"protocol: {{processes: {2 * int(row['processes'])}}}",)
    return Finding(
        *(TOPIC, sentence, (), tax),
        claim=CLAIM,
        subject=name,
        status="not decidable",
        missing=missing,
        measure=MEASURE,
        records=(path,),
    )
