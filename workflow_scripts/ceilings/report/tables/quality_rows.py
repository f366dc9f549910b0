"""Quality records to the table of quality: accuracy or agreement with FP32, a row a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ceilings.report.tables import failures, gates
from ceilings.report.tables.planned_record import read_record

Record = Mapping[str, Any]

CONFIGURATION = ["device", "runtime", "model", "precision"]
"""What answers depend on; the shape says only how many rows are answered at once."""

VALUES = ("value", "low", "high", "reference_value", "difference", "difference_low", "difference_high", "p_value")
AGREEMENTS = (
    *("agreement", "agreement_low", "agreement_high", "correlation", "cosine_min", "cosine_p1", "cosine_median"),
    *("neighbour_overlap", "neighbour_overlap_low", "neighbour_overlap_high", "neighbour_rank_correlation"),
    "neighbours_among",
)
QUALITY_COLUMNS = [
    *(*CONFIGURATION, "shape", "status", "reason", "task", "metric", *VALUES, *AGREEMENTS),
    *("rows", "available", "truncated", "source", "labels", "weights", "answers"),
]
"""One row a configuration that was evaluated.

``metric``: accuracy or pearson against labels; agreement, correlation or cosine (its median) against the FP32 reference
where there are none. The reference is FP32 PyTorch, of an ONNX file ONNX Runtime's CPU provider in FP32. ``low``,
``high``: of 95%, as of the other intervals. ``difference``: ``value`` minus ``reference_value``, the reference's on the
same rows; ``p_value``: of that difference, McNemar's exact test (of correlations Williams'). ``agreement``,
``correlation``, ``cosine_*`` and ``neighbour_*`` are with the reference, labels or not. ``rows``: how many of the
``available`` ones were answered; ``truncated``: how many were longer than the sequence; ``source`` of the rows (a
file's name, corpus, random, ...); ``labels``: the column that they come from, empty without any. ``weights``: where
random, no metric says anything about a trained model. ``answers``: how many different ones the reference gives.
"""

METRICS = {
    "accuracy": "share of rows answered as labelled",
    "pearson": "correlation with the labels",
    "agreement": "share of answers equal to the FP32 reference's",
    "correlation": "correlation with the FP32 reference",
    "cosine": "cosine with the FP32 reference, median of the rows",
}
"""Every metric, and what it is."""

LABELLED = ("accuracy", "pearson")
"""Metrics that need labels."""


def quality_table(planned: Sequence[Record]) -> pd.DataFrame:
    """The table of quality.

    Args:
        planned: Cells of the plan; ``quality`` is the path of the record, or None. Cells of several shapes share one.

    Raises:
        UserError: A record that the plan names is missing, damaged or of another configuration.
    """
    cells = {cell["quality"]: cell for cell in planned if cell.get("quality") and not cell.get("aa_of")}
    rows = [quality_row(read_quality(path, cell)) for path, cell in cells.items()]
    return pd.DataFrame(rows, columns=QUALITY_COLUMNS)


def read_quality(path: str, cell: Record) -> dict[str, Any]:
    """One quality record, checked against the planned cell."""
    return read_record(path, "quality", cell, "is the quality of", gates.quality, key=CONFIGURATION)


def quality_row(record: Record) -> dict[str, Any]:
    """The row of one record, whatever became of it."""
    row = {name: record["cell"][name] for name in (*CONFIGURATION, "shape")} | {"status": record["status"]}
    if record["status"] != "ok":
        return row | {"reason": failures.reason(record["failure"])}
    metrics, data = record["metrics"], record["data"]
    return row | {
        "task": record["task"],
        **{name: metrics.get(name) for name in ("metric", *VALUES, *AGREEMENTS)},
        **{name: data.get(name) for name in ("rows", "available", "truncated")},
        "source": data.get("file") or data["source"],
        "labels": data["label"] if data["labelled"] else None,
        "weights": data["weights"],
        "answers": metrics.get("answers"),
    }
