"""The section on searches for the best batch: the answer, what is undecided, what bounds the throughput."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings.report import text
from ceilings.report.analysis.findings.batch_limits import search_name
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.search_rows import interval_of

HEADERS = [
    *("configuration", "shape", "limit", "best batch", "p50 [95%]", "inferences/s [95%]", "undecided", "beyond"),
    *("level from", "bounded by", "measured"),
]

MOST_ROWS = 10
"""Of the summary."""

MOST_FLAGS = 2
"""Of a search that its note shows: the others are in the table."""

BOUNDS = {
    "limit": "the limit",
    "throughput": "throughput",
    "most": "`best_batch.most`",
    "failure": "a failure",
    "undecided": "undecided",
}
"""What bounds a throughput, in a cell of the table."""


def section(tables: Tables, most: int | None = None) -> str:
    """The section; empty where nothing was searched.

    Args:
        most: Rows of the table and notes; None: all.
    """
    rows = tables.best_batches.to_dict("records")
    if not rows:
        return ""
    measured = [row for row in rows if row["status"] == "ok"]
    lines = [
        "## Best batch under a latency limit",
        "The batch of the highest throughput (batch over median latency, one batch after another) among those measured "
        "that keep the limit with their whole interval. Undecided: larger batches whose interval reaches the limit, or "
        "that were not measured. Beyond: the smallest larger batch that does not keep it. Level from: the smallest "
        "batch whose throughput is not decided to be lower. Each batch that was measured: "
        "`tables/searched_batches.csv`; how it is searched: docs/batching.md.",
    ]
    if measured:
        lines.append(text.table([_row(row) for row in measured[:most]], HEADERS, "lllrrrllllr"))
    notes = [f"- {search_name(row)}: {note}." for row in measured for note in _notes(row)]
    notes += [f"- {search_name(row)}: not measured: {_why(row)}." for row in rows if row["status"] != "ok"]
    shown = notes if most is None else notes[:most]
    return "\n\n".join([*lines, "\n".join(shown)] if shown else lines)


def _limit(row: Mapping[str, Any]) -> str:
    """The limit and the percentile that must keep it."""
    times = (
        ""
        if text.absent(row["limit_times"])
        else f" ({text.number(row['limit_times'])}× batch {_whole(row, 'smallest')})"
    )
    return f"{row['percentile']} ≤ {text.number(row['limit_ms'])} ms{times}"


def _whole(row: Mapping[str, Any], column: str) -> str:
    """A whole number of a row; a dash where there is none."""
    return "–" if text.absent(row[column]) else str(int(row[column]))


def _undecided(row: Mapping[str, Any]) -> str:
    """The batches that are undecided: ``25 to 28``; a dash where there are none."""
    first, last = _whole(row, "undecided_from"), _whole(row, "undecided_to")
    return first if first == last else f"{first} to {last}"


def _row(row: Mapping[str, Any]) -> list[str]:
    answered = not text.absent(row["best"])
    return [
        f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, `{row['device']}`",
        str(row["rest"]),
        _limit(row),
        f"**{_whole(row, 'best')}**" if answered else "none",
        text.interval(interval_of(row, "p50", "ms"), "ms") if answered else "–",
        text.interval(interval_of(row, "inferences", "per_s")) if answered else "–",
        _undecided(row),
        _whole(row, "exceeds"),
        f"{_whole(row, 'level_from')} ({text.number(row['level_ms'])} ms)" if answered else "–",
        BOUNDS[row["bounded_by"]],
        f"{int(row['batches'])} × {int(row['processes'])} processes",
    ]


def _notes(row: Mapping[str, Any]) -> list[str]:
    notes = []
    if text.absent(row["best"]) and not text.absent(row["p50_ms"]):
        taken = text.interval(interval_of(row, "p50", "ms"), "ms")
        notes.append(f"no batch keeps the limit for certain; batch {_whole(row, 'smallest')} takes {taken}")
    if row["outliers"]:
        notes.append(f"batch {row['outliers']} does not keep the limit, and a larger one does")
    if not text.absent(row["bound_reason"]):
        notes.append(f"batch {_whole(row, 'exceeds')} does not run: {row['bound_reason']}")
    if not text.absent(row["again_verdict"]) and row["again_verdict"] != "keeps":
        notes.append(f"measured once more, batch {_whole(row, 'best')} {AGAIN[row['again_verdict']]}")
    if row["flags"]:
        notes.append(f"flagged: {text.cut(row['flags'].split('; '), MOST_FLAGS)}")
    return notes


AGAIN = {
    "exceeds": "exceeds the limit",
    "undecided": "is undecided",
    "fails": "did not run",
}
"""What the best batch does with the limit at the end, where it no longer keeps it."""


def _why(row: Mapping[str, Any]) -> str:
    remedy = "" if text.absent(row["remedy"]) else f"; {row['remedy']}"
    return f"{row['reason']}{remedy}"
