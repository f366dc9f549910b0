"""Lessons on a device: variants of a kernel, their times, their counters, what they must do (``count_lessons.py``)."""

from ceilings.schemas.common import FAILURE, NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE
from ceilings.schemas.kernel_limits import KERNEL
from ceilings.schemas.terms import by, many, maybe, one_of, record, text

VARIANT = record(
    {
        "name": NAME,
        "us": record(dict.fromkeys(("median", "low", "high"), POSITIVE)),
        "cause": maybe(NOT_NEGATIVE),
        "kernels": many(KERNEL, 1),
        "checks": many(record({"kernel": NAME, "what": NAME, "counted": NOT_NEGATIVE, "expected": NOT_NEGATIVE})),
    }
)

LESSON = record(
    {**dict.fromkeys(("name", "title", "varied", "cause", "meaning"), text()), "variants": many(VARIANT, 2)}
)

HEAD = {"device": NAME, "provenance": PROVENANCE}

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **HEAD,
                "status": one_of("ok"),
                "failure": one_of(None),
                "tool": NAME,
                "lacking": many(text()),
                "lessons": many(LESSON, 1),
            }
        ),
        "failed": record({**HEAD, "status": one_of("failed"), "failure": FAILURE}),
    },
)
