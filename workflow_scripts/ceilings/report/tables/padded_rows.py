"""Records of padding to buckets to what the tables hold: prediction, measurement, and each number of buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ceilings.statistics.intervals import mean_over_processes
from ceilings.statistics.shape_costs import rounds_of, steady_ms
from ceilings.statistics.shape_tax import tax
from ceilings.workload.padded import padding_share

Record = Mapping[str, Any]

MB = 1e6

PADDED_COLUMNS = [
    *("buckets", "bucket_shapes", "unpadded_ms", "predicted_ms", "padded_steady_ms"),
    *("padded_steady_low_ms", "padded_steady_high_ms", "padded_ms", "padded_tax", "padding_share", "padded_reason"),
]
"""Of a cell's row.

``unpadded_ms``: mean latency of all requests by the steady latencies of their shapes; ``predicted_ms``: of the padded
ones by those of their buckets, so that both differ by the padding alone; ``padded_steady_ms``: the latter, measured
with the requests padded; ``padded_ms``: their mean in the sequence. ``padding_share``: of what runs along the padded
axis, the share that is padding.
"""

BUCKET_COLUMNS = ["buckets", "shapes", "predicted_ms", "memory_mb", "chosen"]
"""Of a row a limit on the number of buckets: the best choice within it. ``memory_mb``: that its buckets add."""


def padding(chosen: Record | None, padded: Sequence[Record], sequence_ms: float | None) -> dict[str, Any]:
    """``PADDED_COLUMNS`` of a cell.

    Args:
        chosen: Its buckets; None where the study asks for none.
        padded: The processes with its requests padded.
        sequence_ms: Mean latency over the padded sequence; None where nothing of it was measured.
    """
    if chosen is None:
        return {}
    if chosen["status"] != "ok":
        return {"padded_reason": reason(chosen)}
    row = {
        "buckets": len(chosen["buckets"]),
        "bucket_shapes": ";".join(chosen["buckets"]),
        "unpadded_ms": chosen["unpadded_ms"],
        "predicted_ms": chosen["predicted_ms"],
        "padding_share": padding_share(chosen),
    }
    if failed := [record for record in padded if record["status"] != "ok"]:
        return row | {"padded_reason": reason(failed[0])}
    if not padded:
        return row | {"padded_reason": "of its padded processes not all were brought with it"}
    # Of all requests, as predicted; the means of a tax leave the first one out, which follows none.
    steady = mean_over_processes([np.mean(np.take(steady_ms(one), one["requests"]["order"])) for one in padded])
    return row | {
        "padded_steady_ms": steady.estimate,
        "padded_steady_low_ms": steady.low if steady.bounded else None,
        "padded_steady_high_ms": steady.high if steady.bounded else None,
        "padded_ms": sequence_ms,
        "padded_tax": tax([rounds_of(record) for record in padded]).estimate,
    }


def curve(chosen: Record | None) -> list[dict[str, Any]]:
    """``BUCKET_COLUMNS`` of each number of buckets that was weighed; of equal ones the fewest is the choice."""
    if chosen is None or chosen["status"] != "ok":
        return []
    number = len(chosen["buckets"])
    return [
        {
            "buckets": point["buckets"],
            "shapes": ";".join(point.get("shapes") or ()) or None,
            "predicted_ms": point["predicted_ms"],
            "memory_mb": point["memory_bytes"] / MB if "memory_bytes" in point else None,
            "chosen": point["buckets"] == number,
        }
        for point in chosen["curve"]
    ]


def reason(record: Record) -> str:
    """Why a record holds no measurement."""
    return f"{record['failure']['kind']}: {record['failure']['message']}"
