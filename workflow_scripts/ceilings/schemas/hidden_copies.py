"""What of the time of copies lies under kernels, schedule by schedule (``account_overlap.py``)."""

from typing import Any

from ceilings.schemas.common import CELL, FAILURE, NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE, ROUNDING, SHARE
from ceilings.schemas.terms import by, flag, many, maybe, one_of, record, row, text, whole

PIECE = row(whole(), one_of("copy-in", "compute", "copy-out"), whole(), whole(), whole())
"""A piece of work: its request, what it is, the number of its stream, its begin and its end in ns."""

ACCOUNT = record(
    {
        "name": NAME,
        "in_flight": whole(1),
        "pinned": flag,
        "requests": whole(2),
        "period_ns": POSITIVE,
        **dict.fromkeys(("copy_in_ns", "compute_ns", "copy_out_ns", "hidden_ns", "own_ns"), NOT_NEGATIVE),
        "hidden_share": maybe(SHARE),
        "timeline": many(PIECE),
    }
)

COMMON = {"source": maybe(text()), "tool": maybe(text()), "cell": maybe(CELL), "provenance": PROVENANCE}

CONTENT = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "failure": one_of(None),
                "schedules": many(ACCOUNT, 1),
                "flags": many(text()),
            }
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}),
    },
)


def SCHEMA(value: Any) -> str | None:
    """Accounts whose hidden time is the share of their copies that they say."""
    if flaw := CONTENT(value):
        return flaw
    for index, one in enumerate(value["schedules"] if value["status"] == "ok" else ()):
        copies = one["copy_in_ns"] + one["copy_out_ns"]
        if (one["hidden_share"] is None) != (copies == 0):
            return f".schedules[{index}] has a share of copies hidden, or copies, without the other"
        if copies and abs(one["hidden_ns"] - one["hidden_share"] * copies) > ROUNDING * copies + 1:
            return f".schedules[{index}].hidden_ns is not {one['hidden_share']:g} of its copies"
        if any(begin > end for _, _, _, begin, end in one["timeline"]):
            return f".schedules[{index}].timeline has work that ends before it begins"
    return None
