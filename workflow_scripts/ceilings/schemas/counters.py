"""The hardware counters of each kernel of one iteration (``count_kernels.py``)."""

from ceilings.schemas.common import CELL, FAILURE, NAME, NOT_NEGATIVE, PROVENANCE
from ceilings.schemas.terms import by, free, many, maybe, one_of, record, row, table, text, whole

HEAD = {"cell": CELL, "tool": NAME, "caches": one_of("steady", "cold"), "provenance": PROVENANCE}

KERNEL = record(
    {
        "name": text(),
        **dict.fromkeys(("grid", "block"), row(whole(1), whole(1), whole(1))),
        "counters": table(maybe(NOT_NEGATIVE)),
    }
)

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **HEAD,
                "status": one_of("ok"),
                "failure": one_of(None),
                "iterations": whole(1),
                "gpu": free,
                "flags": many(text()),
                "lacking": many(text()),
                "kernels": many(KERNEL, 1),
            }
        ),
        "failed": record({**HEAD, "status": one_of("failed"), "failure": FAILURE}),
    },
)
