"""What a change of the shape costs a captured cell, and of what that consists (``account_change.py``)."""

from ceilings.schemas.changing import CELL
from ceilings.schemas.common import FAILURE, NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE
from ceilings.schemas.terms import by, many, maybe, number, one_of, record, table, text, whole

PART = record({"part": NAME, "taken_ns": NOT_NEGATIVE, "again_ns": NOT_NEGATIVE, "cost_ns": number()})
"""A part of the host thread's time, or of the device's: of the requests, of the same shapes again, the difference."""

OCCURS = record(
    {
        "what": one_of("kernel", "call", "range"),
        "name": text(),
        "class": maybe(NAME),
        "requests": whole(1),  # that have it
        **dict.fromkeys(("count", "again", "ns", "again_ns"), NOT_NEGATIVE),
    }
)

COMPARISON = record(
    {
        **dict.fromkeys(("requests", "agains"), whole(1)),
        "left_out": many(NAME),
        **dict.fromkeys(("taken_ns", "again_ns"), POSITIVE),
        "cost_ns": record({"mean": number(), "low": maybe(number()), "high": maybe(number())}),
        "host": many(PART, 1),
        "device": many(PART),
        "counts": table(record({"taken": NOT_NEGATIVE, "again": NOT_NEGATIVE})),
        **dict.fromkeys(("only", "more", "longer"), many(OCCURS)),
    }
)

COMMON = {
    "source": maybe(text()),
    "tool": maybe(text()),
    "cell": maybe(CELL),
    "provenance": PROVENANCE,
}

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "failure": one_of(None),
                "requests": whole(2),
                "changes": COMPARISON,
                "first": maybe(COMPARISON),
                "settling_ns": maybe(number()),
                "transitions": many(
                    record(
                        {
                            **{"previous": NAME, "shape": NAME, "count": whole(1)},
                            **{"taken_ns": POSITIVE, "again_ns": POSITIVE},
                        }
                    ),
                    1,
                ),
                "flags": many(text()),
            }
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}),
    },
)
