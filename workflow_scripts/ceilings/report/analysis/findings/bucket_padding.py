"""Changing shapes: whether requests padded up to buckets take less time than at their exact shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.findings.finding import MARGIN, Finding, Status
from ceilings.report.analysis.findings.one_shape import TOPIC
from ceilings.report.analysis.measured import Measured, configuration_label
from ceilings.statistics.quantiles import Interval

CLAIM = "Requests padded up to buckets take less time than at their exact shapes"
MEASURE = "mean latencies in the sequence, padded to exact"


def padded_requests(measured: Measured) -> list[Finding]:
    """A finding a cell whose requests were padded: its sequence beside the one of exact shapes."""
    rows = measured.tables.changing.to_dict("records")
    return [_finding(row) for row in rows if row["status"] == "ok" and not text.absent(row["padded_ratio"])]


def _finding(row: Mapping[str, Any]) -> Finding:
    name = f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, {row['sequence']}"
    records = (str(row["path"]).partition("results/")[2] or str(row["path"]),)
    padded = (
        f"padded up to {str(row['bucket_shapes']).replace(';', ', ')} ({text.percent(row['padding_share'])} of what "
        "runs is padding)"
    )
    if text.absent(row["padded_ratio_low"]):
        sentence = (
            f"{name}: {padded}, requests take {text.number(row['padded_ratio'])}× as long; undecided, one process."
        )
        missing = ("protocol: {processes: 3}",)
        return Finding(
            TOPIC, sentence, (), claim=CLAIM, subject=name, status="not decidable", missing=missing, records=records
        )
    ratio = Interval(row["padded_ratio_low"], row["padded_ratio"], row["padded_ratio_high"])
    times = (
        f"{padded}, requests take **{text.interval(ratio, '×')}** as long as at their exact shapes: "
        f"{text.number(row['padded_ms'])} ms and {text.number(row['sequence_ms'])} ms in the mean"
    )
    common: dict[str, Any] = {"claim": CLAIM, "subject": name, "measure": MEASURE, "records": records}
    if ratio.high < 1 + MARGIN and ratio.low > 1 / (1 + MARGIN):
        return Finding(TOPIC, f"{name}: {times}; both are equal.", (), ratio, status="refuted", **common)
    if ratio.high < 1 or ratio.low > 1:
        what = "shortens" if ratio.high < 1 else "lengthens"
        brief = (
            f"{name}: padding up to {int(row['buckets'])} buckets {what} requests: {text.number(ratio.estimate)}× the "
            "mean at exact shapes."
        )
        status: Status = "supported" if ratio.high < 1 else "refuted"
        return Finding(TOPIC, f"{name}: {times}.", (), ratio, status=status, brief=brief, **common)
    missing = (f"protocol: {{processes: {2 * int(row['processes'])}}}",)
    return Finding(TOPIC, f"{name}: undecided: {times}.", (), ratio, status="not decidable", missing=missing, **common)
