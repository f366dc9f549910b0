"""The section on copies beside compute: what schedules gain over one stream, and how much of the copies they hide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.measure.schedules import PAGEABLE, THREE
from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.tables.frames import Tables
from ceilings.report.tables.keys import KEY
from ceilings.statistics.pipelining import REFERENCE

CELLS = [
    *("model", "runtime", "shape", "copied", "copies in", "compute", "copies out", "host", "bound"),
    *("predicted", "three streams [95%]", "best", "pageable", "noise", "copy time hidden"),
]
SCHEDULES = [
    "cell",
    "schedule",
    "requests in flight",
    "throughput",
    "p50",
    "p99",
    "gain [95%]",
    "SMs busy",
    "copy time hidden",
]

EXPLAINED = (
    "A request copies its inputs to the GPU, is computed, and copies its outputs back. On one stream these follow each "
    "other; on three streams the copies of other requests run beside the kernels. Gain: requests a second over those "
    "of one stream, with as many requests in flight. Predicted, of three streams: the sum of the parts over the "
    "longest of them; the host is the time of the calls that submit a request. Best: the schedule with the most "
    "requests a second. Copy time hidden: what of the copies lies under kernels of other requests, in a capture. Every "
    "answer was equal, bit for bit, to that of the same request alone. All in `tables/overlap.csv`."
)

MOST_ROWS = 8
"""Of the summary."""

MIB = 1 << 20


def section(tables: Tables, most: int | None = None) -> str:
    """The section; empty where no copies are run beside compute.

    Args:
        most: Rows, in the order of the study; None: all, and every schedule of each cell.
    """
    rows = tables.overlap
    if rows.empty:
        return ""
    measured = rows[rows["status"] == "ok"]
    lines = ["## Copies beside compute"]
    cells = [members for _, members in measured.groupby(KEY, sort=False)]
    if cells:
        lines += [EXPLAINED, text.table(map(_cell, cells[:most]), CELLS, "lllrrrrrlrrrrrr")]
    if most is None and cells:
        lines.append(text.table(map(_schedule, measured.to_dict("records")), SCHEDULES, "llrrrrrrr"))
    notes = [
        f"- {_name(row)}: not measured: {row['reason']}{_remedy(row)}."
        for row in rows[rows["status"] != "ok"].to_dict("records")[:most]
    ]
    if most is None:
        flagged = measured.drop_duplicates(KEY).to_dict("records")
        notes += [f"- {_name(row)}: flagged: {row['flags']}." for row in flagged if row["flags"]]
    elif len(cells) > most:
        notes.append("- More cells are in [the lab note](engineering_observations.md#copies-beside-compute).")
    return "\n\n".join([*lines, "\n".join(notes)] if notes else lines)


def best(members: pd.DataFrame) -> Mapping[str, Any]:
    """The schedule of a cell with the most requests a second."""
    return dict(members.loc[members["per_s"].astype(float).idxmax()])


def _cell(members: pd.DataFrame) -> list[str]:
    by_name = {row["schedule"]: row for row in members.to_dict("records")}
    three, pageable, first = by_name[THREE], by_name[PAGEABLE], by_name[REFERENCE]
    return [
        str(first["model"]),
        configuration_label(first["runtime"], first["precision"]),
        str(first["shape"]),
        f"{text.number((first['bytes_in'] + first['bytes_out']) / MIB)} MiB",
        *(f"{text.number(first[f'{part}_ms'])} ms" for part in ("copy_in", "compute", "copy_out", "host")),
        str(three["bound"]),
        f"{text.number(three['predicted'])}×",
        _gain(three),
        str(best(members)["schedule"]),
        _gain(pageable),
        text.percent(three["noise"]) if not text.absent(three["noise"]) else "–",
        _hidden(three),
    ]


def _schedule(row: Mapping[str, Any]) -> list[str]:
    return [
        _name(row),
        str(row["schedule"]),
        str(int(row["in_flight"])),
        f"{text.number(row['per_s'])}/s",
        *(f"{text.number(row[q])} ms" if not text.absent(row[q]) else "n/a" for q in ("p50_ms", "p99_ms")),
        _gain(row),
        "–" if text.absent(row["sm_busy"]) else text.percent(row["sm_busy"]),
        _hidden(row),
    ]


def _name(row: Mapping[str, Any]) -> str:
    return f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, {row['shape']}"


def _gain(row: Mapping[str, Any]) -> str:
    if text.absent(row["gain"]):
        return "–"
    bounds = (
        "" if text.absent(row["gain_low"]) else f" [{text.number(row['gain_low'])}, {text.number(row['gain_high'])}]"
    )
    return f"{text.number(row['gain'])}×{bounds}"


def _hidden(row: Mapping[str, Any]) -> str:
    return "–" if text.absent(row["hidden_share"]) else text.percent(row["hidden_share"])


def _remedy(row: Mapping[str, Any]) -> str:
    return "" if text.absent(row["remedy"]) else f" ({row['remedy']})"
