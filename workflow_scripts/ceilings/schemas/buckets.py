"""The buckets that requests are padded up to, and what is predicted of them (``choose_buckets.py``)."""

from ceilings.schemas.changing import CELL
from ceilings.schemas.common import FAILURE, NAME, NOT_NEGATIVE, POSITIVE
from ceilings.schemas.terms import anything, by, many, maybe, one_of, record, table, whole

CANDIDATE = record({"shape": NAME, "requests": whole(1), "latency_ms": POSITIVE, "memory_bytes": NOT_NEGATIVE})

POINT = record({"buckets": whole(1), "predicted_ms": POSITIVE}, {"shapes": many(NAME, 1), "memory_bytes": NOT_NEGATIVE})
"""What is predicted of the best choice of so many buckets at most."""

LIMITS = record({"axis": NAME, "most": whole(1), "memory_mb": maybe(POSITIVE)})

COMMON = {"cell": CELL, "limits": LIMITS}

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "axis": NAME,
                "runs_at": table(NAME, 1),
                "buckets": many(NAME, 1),
                "candidates": many(CANDIDATE, 1),
                **dict.fromkeys(("predicted_ms", "unpadded_ms"), POSITIVE),
                "memory_bytes": NOT_NEGATIVE,
                "curve": many(POINT),
            }
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}, rest=anything),
    },
)
