"""The least time that measured limits allow a graph (``bound_latency.py``)."""

from ceilings.schemas.common import COUNTS, NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE, SHARE
from ceilings.schemas.terms import anything, by, free, many, maybe, one_of, record, table, text, whole
from ceilings.taxonomy import OPERATOR_CLASSES

HEAD = {"device": NAME, "model": NAME, "precision": NAME, "graph": NAME, "shape": NAME, "provenance": PROVENANCE}

PASS = {"phase": one_of("prefill", "decode"), "context": whole(1)}
"""Of a shape that generates: the regime of its iterations, and how many tokens of a row have keys and values then."""

WORK = record(
    {
        **dict.fromkeys(("flops", "bytes"), NOT_NEGATIVE),
        "flops_by_precision": table(NOT_NEGATIVE),
        **dict.fromkeys(("weight_bytes", "boundary_bytes"), NOT_NEGATIVE),
        "unknown_operators": COUNTS,
        "products": many(free),
    },
    {"cache_bytes": NOT_NEGATIVE},
)

FLOOR = record(
    {
        **dict.fromkeys(("compute_floor_ms", "memory_floor_ms", "cold_memory_floor_ms"), NOT_NEGATIVE),
        **dict.fromkeys(("launch_floor_ms", "floor_ms"), POSITIVE),
        "limited_by": one_of("compute", "dram", "l2", "launch"),
        "l2_share": SHARE,
    }
)

CLASS = record({"unfused_ms": NOT_NEGATIVE}, rest=NOT_NEGATIVE)

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **HEAD,
                "status": one_of("ok"),
                "work": WORK,
                "limits": free,
                "floor": FLOOR,
                "classes": record({}, dict.fromkeys(OPERATOR_CLASSES, CLASS)),
                "library_products": record({"ms": maybe(NOT_NEGATIVE), "flops_share": SHARE}, rest=anything),
            },
            PASS,
        ),
        "unavailable": record(
            {**HEAD, "status": one_of("unavailable"), "reason": text()}, {"work": WORK, "limits": free, **PASS}
        ),
    },
)
