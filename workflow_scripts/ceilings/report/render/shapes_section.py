"""The section on changing shapes: the tax of each sequence, what a first appearance costs, and padding to buckets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.one_shape import changes_may_cost
from ceilings.report.analysis.measured import Measured, configuration_label, group_by
from ceilings.report.analysis.mixed_shapes import MixedShapes
from ceilings.report.analysis.shape_advice import shape_advice
from ceilings.report.render.shape_levers import short
from ceilings.report.tables.changing_rows import CHANGING_KEY

HEADERS = [
    "configuration",
    "sequence",
    "shape tax [95%]",
    "drift",
    "mean",
    "steady",
    "first",
    "worst change",
    "graphs",
    "lever",
]
PADDED = [
    *("configuration", "sequence", "buckets", "steady", "predicted", "measured [95%]", "prediction off by"),
    *("in sequence", "padded"),
]

BUSY, RUNS = re.compile(r"\d+(?=% of a core)"), re.compile(r" \(\d+ of \d+ runs\)$")
"""What differs between flags that say the same: how busy the machine was (the most is shown), and in how many runs."""

MOST_ROWS = 10
"""Of the summary."""

NOTE = "[the lab note](engineering_observations.md)"
"""Where the rest is."""


def section(measured: Measured, most: int | None = None) -> str:
    """The section; empty where no shapes change.

    Args:
        most: Rows of each table, the largest taxes first; None: all.
    """
    rows = measured.tables.changing.to_dict("records")
    if not rows:
        return ""
    ok = sorted((row for row in rows if row["status"] == "ok"), key=lambda row: -row["tax"])
    levers = group_by(shape_advice(measured), lambda one: _key(one.cell.row))
    lines = [
        "## Changing shapes",
        "Shape tax: mean latency over the sequence, over that of the same requests at their steady latencies, both in "
        "one process; beyond the drift it is what a benchmark of one shape does not show. First: mean latency of a "
        "shape's first appearance. Worst change: the pair of shapes whose second one is farthest above its steady "
        "latency. Lever: what shortens the mean over the sequence most, of what was measured, and to how many times "
        "it; `results/next.md` has all of them. The numbers are in `tables/changing.csv`, `tables/transitions.csv`, "
        "`tables/changing_shapes.csv`.",
    ]
    if ok:
        shown = [[*_row(row), short(levers[_key(row)])] for row in ok[:most]]
        lines.append(text.table(shown, HEADERS, "llrrrrrrrl"))
    padded = [row for row in ok if _number(row["predicted_ms"])]
    if padded:
        lines += [
            "Padded to buckets: the steady mean of a request, not padded; at its bucket, as predicted from these; the "
            "same, measured in fresh processes with the requests padded. Then the mean in the sequence, without and "
            "with padding: padded requests still change their shapes between buckets.",
            text.table([_padded(row) for row in padded[:most]], PADDED, "lllrrrrrr"),
        ]
    notes = list(_notes(measured, rows, ok))
    hidden = 0 if most is None else max(0, len(notes) - most)
    notes = notes[: len(notes) - hidden] + ([f"- {text.plural(hidden, 'more note')} in {NOTE}."] if hidden else [])
    return "\n\n".join([*lines, "\n".join(notes)] if notes else lines)


def _notes(measured: Measured, rows: Sequence[Mapping[str, Any]], ok: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a reader must know of single cells: first what has no numbers."""
    for row in rows:
        if row["status"] != "ok":
            remedy = "" if pd.isna(row["remedy"]) else f"; {row['remedy']}"
            yield f"- {_name(row)}: not measured: {row['reason']}{remedy}."
    for row in ok:
        if not pd.isna(row["padded_reason"]):
            yield f"- {_name(row)}: padding was not measured: {row['padded_reason']}."
        if _number(row["eager_shapes"]):
            yield (
                f"- {_name(row)}: {text.plural(int(row['eager_shapes']), 'shape')} run eagerly, since PyTorch's limit "
                "on recompilations is reached; it says so in its log only."
            )
    for cell in MixedShapes(measured).cells:
        if cell.tax and cell.tax.low > cell.drift and not changes_may_cost(cell):
            yield (
                f"- {cell.name}: requests that repeat their shape pay the tax as well, so those that change it are not "
                "what costs."
            )
    flagged: dict[str, list[tuple[str, str]]] = {}
    for row in ok:
        for flag in filter(None, str(row["flags"]).split("; ")):
            flagged.setdefault(BUSY.sub("", RUNS.sub("", flag)), []).append((flag, _name(row)))
    for members in flagged.values():
        flag, name = max(members, key=lambda one: int((BUSY.search(one[0]) or ["0"])[0]))
        cells = len({name for _, name in members})
        yield f"- {name}: flagged: {flag}." if cells == 1 else f"- {cells} cells flagged: {RUNS.sub('', flag)}."


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in CHANGING_KEY)


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
        _ms(row["steady_ms"] if pd.isna(row["unpadded_ms"]) else row["unpadded_ms"]),
        _ms(row["predicted_ms"]),
        _interval(row, "padded_steady", "_ms", " ms"),
        f"{(row['predicted_ms'] / measured - 1) * 100:+.1f}%" if _number(measured) else "–",
        _ms(row["sequence_ms"]),
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
