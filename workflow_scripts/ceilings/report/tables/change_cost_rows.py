"""Records of what a change of the shape costs to tables: a row a part of a captured cell, and a row a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report.tables import failures, gates
from ceilings.report.tables.changing_rows import CHANGING_KEY
from ceilings.report.tables.planned_record import read_record

Record = Mapping[str, Any]

NS_PER_MS, NS_PER_US = 1e6, 1e3

COMPARED = {"changes": "change", "first": "first appearance"}
"""What is held against the same shape again, by the record's key."""

WHOLE = "request"
"""The side of the row that is a whole request."""

COST_COLUMNS = [
    *(*CHANGING_KEY, "compared", "side", "part", "requests", "taken_ms", "again_ms", "cost_ms"),
    *("cost_low_ms", "cost_high_ms", "flags", "path"),
]
"""One row a part. ``compared``: changes, or first appearances. ``side``: host, device, or ``request`` for the whole.

``taken_ms``: mean time of a request that changes the shape; ``again_ms``: of the same shapes again; ``cost_ms``: the
difference, with a 95% interval of the whole. The parts of each side sum to the whole.
"""

NAME_COLUMNS = [*CHANGING_KEY, "compared", "what", "name", "class", "requests", "count", "again", "us", "again_us"]
"""One row a kernel, call or range that such requests have more often, or longer, than the same shape again.

``requests``: how many have it; ``count``, ``again``: how often a request has it, and one of the same shape again;
``us``, ``again_us``: its time in such a request.
"""


@dataclasses.dataclass(frozen=True)
class ChangeTables:
    """The tables of what a change costs."""

    shape_changes: pd.DataFrame
    shape_change_names: pd.DataFrame


def change_tables(plan: Record) -> ChangeTables:
    """The tables of all captured cells of changing shapes that a plan has; a cell that could not run has a row.

    Raises:
        UserError: A record that the plan names is missing, damaged or of another cell, or its parts do not add up.
    """
    costs: list[dict[str, Any]] = []
    names: list[dict[str, Any]] = []
    for cell in plan.get("changes", []):
        record = read_record(
            cell["path"], "shape-change", cell, "was captured for", gates.shape_change, key=CHANGING_KEY
        )
        key = {name: cell[name] for name in CHANGING_KEY}
        if record["status"] != "ok":
            flags = failures.reason(record["failure"])
            costs.append({**key, "side": WHOLE, "flags": flags, "path": cell["path"]})
            continue
        for part, compared in COMPARED.items():
            if comparison := record[part]:
                flags = "; ".join(record["flags"]) if part == "changes" else ""
                labels = {**key, "compared": compared}
                costs += [{**labels, **row, "path": cell["path"]} for row in _costs(comparison, flags)]
                names += [{**labels, **row} for row in _names(comparison)]
    return ChangeTables(
        pd.DataFrame(costs, columns=COST_COLUMNS),
        pd.DataFrame(names, columns=NAME_COLUMNS),
    )


def _costs(comparison: Record, flags: str) -> list[dict[str, Any]]:
    cost = comparison["cost_ns"]
    whole = {
        **{"side": WHOLE, "part": "all", "requests": comparison["requests"], "flags": flags},
        **{f"{name}_ms": comparison[f"{name}_ns"] / NS_PER_MS for name in ("taken", "again")},
        "cost_ms": cost["mean"] / NS_PER_MS,
        **{f"cost_{end}_ms": None if cost[end] is None else cost[end] / NS_PER_MS for end in ("low", "high")},
    }
    parts = [
        {
            **{"side": side, "part": row["part"], "requests": comparison["requests"], "flags": ""},
            **{f"{name}_ms": row[f"{name}_ns"] / NS_PER_MS for name in ("taken", "again", "cost")},
        }
        for side in ("host", "device")
        for row in comparison[side]
    ]
    return [whole, *parts]


def _names(comparison: Record) -> list[dict[str, Any]]:
    return [
        {
            **{name: row[name] for name in ("what", "name", "class", "requests", "count", "again")},
            **{"us": row["ns"] / NS_PER_US, "again_us": row["again_ns"] / NS_PER_US},
        }
        for row in (*comparison["only"], *comparison["more"], *comparison["longer"])
    ]
