"""The section on co-location: the gain of company, and what each instance answers alone and in company."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.measure.colocation import CARDS
from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.tables.frames import Tables

GROUPS = ["group", "shared by", "instances", "gain [95%]", "noise", "together", "in turns", "use alone", "use together"]
INSTANCES = [
    *("group", "shared by", "instance", "threads", "slowdown [95%]", "alone", "together"),
    *("p50 alone", "p50 together", "p99 alone", "p99 together"),
]

MOST_ROWS = 8
"""Of the summary."""


def section(tables: Tables, most: int | None = None) -> str:
    """The section; empty where nothing is co-located.

    Args:
        most: Rows of each table, in the order of the study; None: all.
    """
    rows = tables.colocation.to_dict("records")
    if not rows:
        return ""
    measured = [row for row in rows if row["status"] == "ok"]
    lines = [
        "## Co-location",
        "Every instance answers one request after another, alone and in company, in the same processes. Gain: the sum "
        "over the instances of throughput in company over throughput alone on the whole device; instances that take "
        "turns have 1, however the time is divided. Together, in turns: inferences a second. Slowdown: mean time of a "
        "request in company over that alone. All in `tables/colocation.csv`, `tables/colocated.csv`, "
        "`tables/interference.csv`.",
    ]
    if any(row["how"] == CARDS for row in measured):
        lines.append(
            "On separate cards nothing is shared but the host: there n instances that do not disturb each other have a "
            "gain of n."
        )
    if measured:
        lines.append(text.table(map(_group, measured[:most]), GROUPS, "lllrrrrrr"))
        members = tables.colocated.to_dict("records")
        lines.append(text.table(map(_instance, members[:most]), INSTANCES, "lllrrrrrrrr"))
    notes = [f"- {_name(row)}: side by side: {row['side_by_side']}." for row in measured if row["how"] == CARDS]
    notes += [f"- {_name(row)}: not measured: {row['reason']}{_remedy(row)}." for row in rows if row["status"] != "ok"]
    if most is None:  # the summary has their kinds among what to read with care
        notes += [f"- {_name(row)}: flagged: {row['flags']}." for row in measured if row["flags"]]
    elif len(measured) > most or len(tables.colocated) > most:
        notes += ["- More co-locations and instances are in [the lab note](engineering_observations.md#co-location)."]
    return "\n\n".join([*lines, "\n".join(notes)] if notes else lines)


def _group(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["group"]),
        _shared(row),
        _members(str(row["members"])),
        _interval(row, "gain"),
        text.percent(row["noise"]) if _number(row["noise"]) else "–",
        f"{text.number(row['together_per_s'])}/s",
        f"{text.number(row['turns_per_s'])}/s",
        f"{text.percent(row['use_alone'])} of {row['use_of']}" if _number(row["use_alone"]) else "–",
        text.percent(row["use_together"]) if _number(row["use_together"]) else "–",
    ]


def _instance(row: Mapping[str, Any]) -> list[str]:
    cell = f"{row['instance']}: {configuration_label(row['runtime'], row['precision'])}, {row['model']}, {row['shape']}"
    return [
        str(row["group"]),
        _shared(row),
        cell,
        str(row["threads"]),
        _interval(row, "slowdown"),
        f"{text.number(row['alone_per_s'])}/s",
        f"{text.number(row['together_per_s'])}/s",
        *(_ms(row[f"{which}_{q}_ms"]) for q in ("p50", "p99") for which in ("alone", "together")),
    ]


def _members(cells: str) -> str:
    """The instances of a group, those of one cell together."""
    counts: dict[str, int] = {}
    for cell in cells.split(", "):
        counts[cell] = counts.get(cell, 0) + 1
    words = []
    for cell, count in counts.items():
        runtime, model, precision, shape = cell.split("/")
        words.append(f"{count}× {model} {shape} ({configuration_label(runtime, precision)})")
    return ", ".join(words)


def _shared(row: Mapping[str, Any]) -> str:
    return f"{row['how']}, split cores" if row["cores"] == "split" else str(row["how"])


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['group']} by {_shared(row)}"


def _remedy(row: Mapping[str, Any]) -> str:
    return "" if text.absent(row["remedy"]) else f" ({row['remedy']})"


def _interval(row: Mapping[str, Any], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    bounds = f" [{text.number(low)}, {text.number(high)}]" if _number(low) else ""
    return f"{text.number(value)}×{bounds}"


def _ms(value: Any) -> str:
    return f"{text.number(value)} ms" if _number(value) else "n/a"


def _number(value: Any) -> bool:
    return not pd.isna(value)
