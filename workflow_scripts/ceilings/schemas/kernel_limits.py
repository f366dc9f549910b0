"""What limits each kernel of one iteration, from its hardware counters (``judge_kernels.py``)."""

from ceilings.schemas.common import CELL, FAILURE, NAME, NOT_NEGATIVE, PROVENANCE
from ceilings.schemas.terms import by, many, maybe, one_of, record, row, table, text, whole
from ceilings.taxonomy import KERNEL_CLASSES, KERNEL_VERDICTS, MEMORY_LEVELS

HEAD = {"cell": CELL, "tool": NAME, "caches": one_of("steady", "cold"), "provenance": PROVENANCE}
VALUE = maybe(NOT_NEGATIVE)

KERNEL = record(
    {
        **dict.fromkeys(("name", "short", "why"), text()),
        "class": one_of(*KERNEL_CLASSES),
        "verdict": one_of(*KERNEL_VERDICTS),
        **dict.fromkeys(("grid", "block"), row(whole(1), whole(1), whole(1))),
        **dict.fromkeys(("duration_ns", "registers", "shared_memory_bytes", "operations_per_s", "tensor_pipe"), VALUE),
        **dict.fromkeys(("bank_conflicts", "sectors_per_load", "waves", "eligible_warps"), VALUE),
        "operations": table(NOT_NEGATIVE),
        "levels": record(
            dict.fromkeys(MEMORY_LEVELS, record(dict.fromkeys(("bytes", "bytes_per_s", "share"), VALUE))),
        ),
        "shares": record(dict.fromkeys(("dram", "l2", "l1", "tensor", "fma", "alu", "fp64", "xu", "issue"), VALUE)),
        "occupancy": record(dict.fromkeys(("achieved", "theoretical"), VALUE)),
        "limiters": many(text()),
        "stalls": table(NOT_NEGATIVE),
    }
)

CHECK = record({"what": text(), **dict.fromkeys(("counted", "expected", "ratio"), NOT_NEGATIVE)})

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **HEAD,
                "status": one_of("ok"),
                "failure": one_of(None),
                "iterations": whole(1),
                "flags": many(text()),
                "lacking": many(text()),
                "ceilings": record(
                    {
                        "bytes_per_s": record(dict.fromkeys(MEMORY_LEVELS, VALUE)),
                        "operations_per_s": table(VALUE),
                    }
                ),
                "kernels": many(KERNEL, 1),
                "verdicts": table(NOT_NEGATIVE),
                "checks": many(CHECK),
            }
        ),
        "failed": record({**HEAD, "status": one_of("failed"), "failure": FAILURE}),
    },
)
