"""What was not measured: a row a reason, with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.measured import configuration_label, group_by
from ceilings.report.tables.frames import Tables

Plan = Mapping[str, Any]

MOST_ROWS = 10
"""Of the summary; the lab note has all."""

CONFIGURATIONS_SHOWN = 4
MESSAGE_SHOWN = 240
SHAPES_SHOWN = 3


def not_run(plan: Plan, tables: Tables, most: int | None = None) -> str:
    """The section: reasons by how many cells they keep from running, then failures by class and message.

    Args:
        most: Rows and configurations a row are cut to the summary's; None: all of them, and the pairs of runtimes and
            precisions that a sweep names and that do not exist.
    """
    lines = ["## Not run"]
    unavailable = tables.planned[tables.planned["status"] == "unavailable"]
    failed = tables.cells[tables.cells["status"] == "failed"]
    if unavailable.empty and failed.empty:
        lines.append("Every planned cell was measured.")
    served = tables.serving[tables.serving["status"] != "ok"]
    if count := len(served[["device", "deployment"]].drop_duplicates()):
        lines.append(
            f"{text.plural(count, 'deployment')} {'was' if count == 1 else 'were'} not measured in whole: "
            "[Serving](#serving) says why."
        )
    colocated = tables.colocation[tables.colocation["status"] != "ok"]
    if count := len(colocated):
        lines.append(
            f"{text.plural(count, 'co-location')} {'was' if count == 1 else 'were'} not measured: "
            "[Co-location](#co-location) says why."
        )
    overlapped = tables.overlap[tables.overlap["status"] != "ok"]
    if count := len(overlapped):
        lines.append(
            f"The copies of {text.plural(count, 'cell')} were not run beside compute: "
            "[Copies beside compute](#copies-beside-compute) says why."
        )
    rows = [*_unavailable(plan, unavailable, most), *_failed(plan, failed, most)]
    rows.sort(key=lambda row: -row[0])
    if rows:
        lines.append(text.table(rows[:most], ["cells", "reason", "which (shapes)", "remedy"], "rlll"))
    if most is not None and len(rows) > most:
        lines.append(f"{len(rows) - most} more reasons are in [the lab note](engineering_observations.md#not-run).")
    return "\n\n".join([*lines, *([] if most is not None else _left_out(plan))])


def _unavailable(plan: Plan, rows: pd.DataFrame, most: int | None) -> list[list[Any]]:
    made = []
    for (reason, remedy), members in rows.groupby(["reason", "remedy"], dropna=False, sort=True):
        made.append([len(members), reason, _which(plan, members, most), remedy if pd.notna(remedy) else ""])
    return made


def _failed(plan: Plan, rows: pd.DataFrame, most: int | None) -> list[list[Any]]:
    made = []
    for (kind, reason), members in rows.groupby(["failure_kind", "reason"], dropna=False, sort=True):
        logs = members["log"].dropna()
        message = str(reason).removeprefix(f"{kind}: ")
        short = message if most is None or len(message) <= MESSAGE_SHOWN else f"{message[:MESSAGE_SHOWN]}…"
        remedy = f"see `{logs.iloc[0]}`" if len(logs) else ""
        if kind == "unread":
            others = f"; so for the other {len(members) - 1}" if len(members) > 1 else ""
            remedy = f"{remedy}, then {_command(members.iloc[0])}{others}".removeprefix(", then ")
        made.append([len(members), f"failed, {kind}: {short}", _which(plan, members, most, shapes=True), remedy])
    return made


def _command(row: pd.Series) -> str:
    """The remedy of a failed cell without what its class means, which stands before it."""
    return str(row["remedy"]).partition(": ")[2]


def _which(plan: Plan, members: pd.DataFrame, most: int | None, shapes: bool = False) -> str:
    """``onnxruntime-cuda fp16 (4)``: configurations and how many shapes of each; of failures the shapes themselves."""
    models = f" of {text.listed(members['model'].unique())}" if len(plan["models"]) > 1 else ""
    by_label = group_by(
        members.to_dict("records"), lambda row: configuration_label(str(row["runtime"]), str(row["precision"]))
    )
    named = []
    for label, same in by_label.items():
        sizes = list(dict.fromkeys(row["shape"] for row in same))
        named.append(f"{label} ({', '.join(sizes) if shapes and len(sizes) < SHAPES_SHOWN else len(same)})")
    return f"{', '.join(named) if most is None else text.cut(named, CONFIGURATIONS_SHOWN)}{models}"


def _left_out(plan: Plan) -> list[str]:
    """Precisions of sweeps that a runtime does not have: there are no cells of these. Old plans do not name them."""
    by_runtime = group_by(plan.get("left_out", ()), lambda pair: pair[0])
    if not by_runtime:
        return []
    listed = (f"{runtime} ({', '.join(precision for _, precision in pairs)})" for runtime, pairs in by_runtime.items())
    return [f"No cells, since the runtime does not have the precision: {', '.join(listed)}."]
