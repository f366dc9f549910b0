"""What a row of the table of quality says, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text

Row = Mapping[str, Any]


ONE_ANSWER = "the FP32 reference answers all rows alike, so agreement shows little"
"""A warning: a runtime that ignores its inputs would agree."""


def worth(row: Row) -> str:
    """A row's metric in words, with its interval and what the FP32 reference reaches."""
    return f"{_worth(row)}; {ONE_ANSWER}" if row.get("answers") == 1 else _worth(row)


def _worth(row: Row) -> str:
    metric, over = row["metric"], f"over {text.plural(int(row['rows']), 'row')}"
    if metric == "accuracy":
        return (
            f"accuracy {share(row, 'value', 'low', 'high')}, the FP32 reference's "
            f"{row['reference_value']:.1%}, {over}: "
            f"{points(row)}, McNemar's p {probability(row['p_value'])}; "
            f"{share(row, 'agreement', 'agreement_low', 'agreement_high')} of the answers agree"
        )
    if metric == "pearson":
        sentence = f"correlation with the labels {decimal(row, 'value', 'low', 'high')} {over}"
        if pd.isna(row["difference"]):
            return sentence
        return (
            f"{sentence}, the FP32 reference's plus {decimal(row, 'difference', 'difference_low', 'difference_high')} "
            f"(p {probability(row['p_value'])})"
        )
    if metric == "agreement":
        return f"{share(row, 'value', 'low', 'high')} of the answers are the FP32 reference's, {over}"
    if metric == "correlation":
        return f"correlation with the FP32 reference {decimal(row, 'value', 'low', 'high')} {over}"
    cosine = f"{row['cosine_median']:.6f} (median), {row['cosine_min']:.6f} (lowest)"
    sentence = f"cosine with the FP32 reference {cosine} {over}"
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
