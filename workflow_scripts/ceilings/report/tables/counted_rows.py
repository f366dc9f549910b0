"""Records of counted kernels to their table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.report.tables import gates
from ceilings.report.tables.kernel_groups import Group, groups
from ceilings.report.tables.keys import KEY
from ceilings.report.tables.planned_record import read_record
from ceilings.taxonomy import MEMORY_LEVELS

Record = Mapping[str, Any]

COUNTED_COLUMNS = [
    *(*KEY, "kernel", "class", "launches", "us", "share", "verdict", "why", "grid", "block", "registers"),
    *(f"{level}_{what}" for level in MEMORY_LEVELS for what in ("bytes", "share")),
    *("operations", "tensor_pipe", "occupancy", "theoretical_occupancy", "waves", "eligible_warps", "stall", "name"),
]
"""One row a kernel of a counted cell, launches of an iteration together, what takes longest first.

``us``, bytes and operations are of all launches together, the rest of the longest one. Shares of a level are of what
the device was measured to reach, of shared memory by design.
"""


def read_counted(path: Path | str, cell: Record) -> dict[str, Any]:
    """One record of counted kernels, checked against the planned cell.

    Raises:
        UserError: It is missing, damaged or of another cell, or its verdicts do not follow from its numbers.
    """
    return read_record(path, "kernel-limits", cell, "was counted for", gates.kernel_limits)


def counted_rows(cell: Record, record: Record) -> list[dict[str, Any]]:
    """The rows of a counted cell; none of one that could not be counted."""
    if record["status"] != "ok":
        return []
    return [{name: cell[name] for name in KEY} | _row(group) for group in groups(record)]


def _row(group: Group) -> dict[str, Any]:
    kernel = group.first
    return {
        **{"kernel": kernel["short"], "class": kernel["class"], "name": kernel["name"]},
        **{"launches": len(group.launches), "us": group.duration_ns / 1e3, "share": group.share},
        **{"verdict": group.verdict, "why": kernel["why"], "registers": kernel["registers"]},
        **{size: "x".join(map(str, kernel[size])) for size in ("grid", "block")},
        **{f"{level}_bytes": group.bytes(level) for level in MEMORY_LEVELS},
        **{f"{level}_share": kernel["levels"][level]["share"] for level in MEMORY_LEVELS},
        "operations": group.operations,
        "tensor_pipe": kernel["tensor_pipe"],
        "occupancy": kernel["occupancy"]["achieved"],
        "theoretical_occupancy": kernel["occupancy"]["theoretical"],
        "waves": kernel["waves"],
        "eligible_warps": kernel["eligible_warps"],
        "stall": next(iter(kernel["stalls"]), None),
    }
