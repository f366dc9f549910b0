"""The section on changing shapes: the tax of each sequence, what a first appearance costs, and padding to buckets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.tables.frames import Tables

HEADERS = ["configuration", "sequence", "shape tax [95%]", "drift", "mean", "steady", "first", "worst change", "graphs"]
PADDED = ["configuration", "sequence", "buckets", "unpadded", "predicted", "measured [95%]", "off by", "in sequence"]

MOST_ROWS = 10
"""Of the summary."""


def section(tables: Tables, most: int | None = None) -> str:
    """The section; empty where no shapes change.

    Args:
        most: Rows of each table, the largest taxes first; None: all.
    """
    rows = tables.changing.to_dict("records")
    if not rows:
        return ""
    measured = sorted((row for row in rows if row["status"] == "ok"), key=lambda row: -row["tax"])
    lines = [
        "## Changing shapes",
        "Shape tax: mean latency over the sequence, over that of the same requests at their steady latencies, both in "
        "one process; beyond the drift it is what a benchmark of one shape does not show. First: mean latency of a "
        "shape's first appearance. Worst change: the pair of shapes whose second one is farthest above its steady "
        "latency. All in `tables/changing.csv`, `tables/transitions.csv`, `tables/changing_shapes.csv`.",
    ]
    if measured:
        lines.append(text.table([_row(row) for row in measured[:most]], HEADERS, "llrrrrrrr"))
    padded = [row for row in measured if _number(row["predicted_ms"])]
    if padded:
        lines += [
            "Padded to buckets: the mean of a request by the steady latencies of its bucket (predicted), the same "
            "measured in fresh processes with the requests padded, and their mean in the sequence.",
            text.table([_padded(row) for row in padded[:most]], PADDED, "lllrrrrr"),
        ]
    notes = [
        f"- {_name(row)}: padding was not measured: {row['padded_reason']}."
        for row in measured
        if not pd.isna(row["padded_reason"])
    ]
    notes += [
        f"- {_name(row)}: {text.plural(int(row['eager_shapes']), 'shape')} run eagerly, since PyTorch's limit on "
        "recompilations is reached; it says so in its log only."
        for row in measured
        if _number(row["eager_shapes"])
    ]
    notes += [f"- {_name(row)}: flagged: {row['flags']}." for row in measured if row["flags"]]
    notes += [f"- {_name(row)}: not measured: {row['reason']}." for row in rows if row["status"] != "ok"]
    shown = notes if most is None else notes[:most]
    return "\n\n".join([*lines, "\n".join(shown)] if shown else lines)


def _row(row: Mapping[str, Any]) -> list[str]:
    worst = f"{row['worst_previous']} → {row['worst_shape']}: {text.number(row['worst_ratio'])}×"
    return [
        _configuration(row),
        f"{row['sequence']}, {text.plural(int(row['shapes']), 'shape')}",
        _interval(row, "tax"),
        _interval(row, "drift"),
        _ms(row["sequence_ms"]),
        _ms(row["steady_ms"]),
        _ms(row["first_ms"]),
        worst if _number(row["worst_ratio"]) else "–",
        f"{int(row['graphs'])}" if not pd.isna(row["graphs"]) else "–",
    ]


def _padded(row: Mapping[str, Any]) -> list[str]:
    measured = row["padded_steady_ms"]
    return [
        _configuration(row),
        str(row["sequence"]),
        str(row["bucket_shapes"]).replace(";", ", "),
        _ms(row["steady_ms"]),
        _ms(row["predicted_ms"]),
        _interval(row, "padded_steady", "_ms", " ms"),
        f"{(row['predicted_ms'] / measured - 1) * 100:+.1f}%" if _number(measured) else "–",
        _ms(row["padded_ms"]),
    ]


def _interval(row: Mapping[str, Any], name: str, suffix: str = "", unit: str = "×") -> str:
    value, low, high = (row[f"{name}{end}{suffix}"] for end in ("", "_low", "_high"))
    if not _number(value):
        return "–"
    bounds = f" [{text.number(low)}, {text.number(high)}]" if _number(low) else ""
    return f"{text.number(value)}{unit}{bounds}"


def _configuration(row: Mapping[str, Any]) -> str:
    return f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, `{row['device']}`"


def _name(row: Mapping[str, Any]) -> str:
    return f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, {row['sequence']}"


def _ms(value: Any) -> str:
    return f"{text.number(value)} ms" if _number(value) else "–"


def _number(value: Any) -> bool:
    """Whether a field holds a number other than 0."""
    return value is not None and not pd.isna(value) and math.isfinite(value) and value != 0
