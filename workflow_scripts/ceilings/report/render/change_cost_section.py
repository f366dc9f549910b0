"""The section on what a change of the shape consists of: a sentence a captured cell, and a table of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label
from ceilings.report.tables.change_cost_rows import COMPARED, WHOLE
from ceilings.report.tables.changing_rows import CHANGING_KEY
from ceilings.report.tables.frames import Tables

Row = Mapping[str, Any]

HEADERS = ["configuration", "sequence", "of a", "side", "part", "ms", "again, ms", "cost, ms", "share of the cost"]

SMALL = 0.02
"""A part whose cost is a smaller share of the whole cost is not shown; the tables have it."""

NAMED = 3


def section(tables: Tables, most: int | None = None) -> str:
    """The section; empty where no changing cell was captured.

    Args:
        most: Cells, the largest costs first; None: all.
    """
    costs = tables.shape_changes
    if costs.empty:
        return ""
    wholes = costs[costs["side"] == WHOLE]
    failed = wholes[wholes["cost_ms"].isna()].to_dict("records")
    changes = wholes[wholes["compared"] == COMPARED["changes"]].sort_values("cost_ms", ascending=False)
    sentences, rows = [], []
    for whole in changes.to_dict("records")[:most]:
        cell = _of(costs, whole)
        names = _of(tables.shape_change_names, whole)
        for compared in COMPARED.values():
            mine = cell[cell["compared"] == compared].to_dict("records")
            if mine:
                sentences.append(f"- {_sentence(mine, names[names['compared'] == compared])}")
                rows += [_row(row, mine[0]) for row in mine if row["side"] == WHOLE or _shown(row, mine[0])]
    lines = [
        "## What a change of shape consists of",
        "From captures, apart from all timing; a recorder slows the host, so these are no latencies. A change is a "
        "request whose shape differs from the one before it; it is held against requests of the same shape again. Each "
        "instant of a request belongs to one part of the host thread and to one of the device, so the parts of a side "
        "sum to the cost. docs/shapes.md defines them; all are in `tables/shape_changes.csv` and "
        "`tables/shape_change_names.csv`.",
    ]
    if sentences:
        lines += ["\n".join(sentences), text.table(rows, HEADERS, "lllllrrrr")]
    if failed:
        lines.append("\n".join(f"- {_name(row)}: not captured: {row['flags']}." for row in failed))
    return "\n\n".join(lines)


def _of(table: pd.DataFrame, whole: Row) -> pd.DataFrame:
    """The rows of one cell."""
    same = (table[name] == whole[name] for name in CHANGING_KEY)
    return table[pd.concat(list(same), axis=1).all(axis=1)]


def _sentence(rows: list[dict[str, Any]], names: pd.DataFrame) -> str:
    """What such a request costs, and what of the host's time most of it is; then what only such requests have, and
    in which range (a node of ONNX Runtime) most of the cost lies."""
    whole, cost = rows[0], rows[0]["cost_ms"]
    words = f"{_name(whole)}: a {whole['compared']} takes {text.number(whole['taken_ms'])} ms, the same shape again "
    words += f"{text.number(whole['again_ms'])} ms"
    if not _decided(whole):
        words += f" ({text.plural(int(whole['requests']), 'request')}): no cost beyond how requests differ"
        return f"{words}.{_flags(whole)}"
    words += f". Of the {text.number(cost)} ms more"
    parts = sorted((row for row in rows if row["side"] == "host"), key=lambda row: -row["cost_ms"])
    largest = [f"{row['part']} {text.percent(row['cost_ms'] / cost)}" for row in parts if row["cost_ms"] > SMALL * cost]
    words += f" are {', '.join(largest[:NAMED])}" if largest else " no part of the host is more than a little"
    inside = names[(names["what"] == "range") & (names["us"] - names["again_us"] > 1000 * SMALL * cost)]
    if not inside.empty:
        most = inside.loc[(inside["us"] - inside["again_us"]).idxmax()]
        words += f". `{most['name']}` takes {text.number((most['us'] - most['again_us']) / 1000)} ms longer"
    if only := names[names["again"] == 0].to_dict("records"):
        shown = [f"{one['what']} `{one['name']}` in {int(one['requests'])} of {int(whole['requests'])}" for one in only]
        words += f". Only there: {text.cut(shown, NAMED)}"
    return f"{words}.{_flags(whole)}"


def _decided(whole: Row) -> bool:
    """Whether the cost is beyond how requests differ."""
    return bool(whole["cost_low_ms"] > 0)  # not a number: there is no interval


def _flags(whole: Row) -> str:
    return f" Flagged: {whole['flags']}." if whole["flags"] else ""


def _shown(row: Row, whole: Row) -> bool:
    return bool(abs(row["cost_ms"]) >= SMALL * abs(whole["cost_ms"]))


def _row(row: Row, whole: Row) -> list[str]:
    bounded = row["side"] == WHOLE and not pd.isna(row["cost_low_ms"])
    bounds = f" [{text.number(row['cost_low_ms'])}, {text.number(row['cost_high_ms'])}]" if bounded else ""
    return [
        configuration_label(row["runtime"], row["precision"]) + f", {row['model']}, `{row['device']}`",
        *(str(row[name]) for name in ("sequence", "compared", "side", "part")),
        *(text.number(row[name]) for name in ("taken_ms", "again_ms")),
        text.number(row["cost_ms"]) + bounds,
        text.percent(row["cost_ms"] / whole["cost_ms"]) if _decided(whole) else "–",
    ]


def _name(row: Row) -> str:
    return f"{configuration_label(row['runtime'], row['precision'])}, {row['model']}, {row['sequence']}"
