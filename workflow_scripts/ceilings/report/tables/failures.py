"""What a table says of a measurement that has no numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def reason(failure: Mapping[str, str]) -> str:
    """A failure in one line.

    >>> reason({"kind": "parity", "message": "the outputs are too far from the reference"})
    'parity: the outputs are too far from the reference'
    """
    return f"{failure['kind']}: {failure['message']}"


def without_numbers(planned: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The columns of a row that has no numbers: it is not available here, or a process of it failed; else None.

    Args:
        planned: With ``reason`` and ``remedy`` where it is not available.
        records: Of its processes; none where it is not available.
    """
    if not records:
        return {"status": "unavailable", "reason": planned["reason"], "remedy": planned["remedy"]}
    for record in records:
        if record["status"] != "ok":
            return {"status": "failed", "reason": reason(record["failure"]), "log": record["log"]}
    return None
