"""What the FP32 reference found in generated texts, put into the records of the processes that generated them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.graphs import token_parity
from ceilings.report.tables.planned_record import read_record

Record = Mapping[str, Any]

UNREAD = "unread"
"""Kind of the failure of a process whose texts nobody read."""


def judged(record: dict[str, Any], cell: Record) -> dict[str, Any]:
    """A run record with what the verdict of its cell says of its texts; failed where none says anything.

    Where the reading is why it has no number, its log is that of the reading.

    A record without texts stays as it is: it generated nothing, or failed, or an earlier version judged it.

    Args:
        record: Of one process.
        cell: Of the plan; ``texts`` is the path of the verdict.

    Raises:
        UserError: The verdict is damaged, or of another cell.
    """
    if record["status"] != "ok" or "texts" not in record:
        return record
    path = cell.get("texts")
    verdict = None
    if path and Path(path).is_file():
        verdict = read_record(path, "text-verdict", cell, "is the verdict on", lambda _: None)
    read = (verdict or {}).get("runs", {}).get(str(record["run"]))
    if read and read["digest"] == record["digest"]:
        parity = token_parity.scored(record["parity"], read)
        return record | {"parity": parity} | ({} if _explained(parity) else _log(verdict))
    why = "the FP32 reference has not read its texts"
    if verdict:
        failure = verdict["failure"]
        why = "the FP32 reference read what an earlier process of this number wrote"
        if failure:
            why = f"the FP32 reference did not read its texts: {failure['message']}"
    return record | {"status": "failed", "failure": {"kind": UNREAD, "message": why}, "series": {}} | _log(verdict)


def remedy(cell: Record) -> str:
    """How the texts of a cell get read."""
    path = cell["texts"]
    return f"`rm -f {path}` and run again, where its weights and prompts are"


def _explained(parity: Record) -> bool:
    """Whether rounding explains every token that was read."""
    margin = parity["largest_margin"]
    return not parity["problem"] and (margin is None or margin <= token_parity.EXPLAINED)


def _log(verdict: Record | None) -> dict[str, str]:
    return {"log": verdict["log"]} if verdict and verdict["log"] else {}
