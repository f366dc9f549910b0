"""A search for the best batch under a latency limit (``search_batch.py``)."""

from typing import Any

from ceilings.schemas.common import FAILURE, FULL_PARITY, NAME, POSITIVE, PROTOCOL, PROVENANCE
from ceilings.schemas.run import LATENCIES, MEMORY
from ceilings.schemas.terms import anything, by, flag, many, maybe, number, one_of, record, text, whole

CELL = record(dict.fromkeys(("device", "runtime", "model", "precision", "rest"), NAME))

SEARCH = record(
    {
        "limit_ms": maybe(POSITIVE),
        "limit_times": maybe(number(above=1)),
        "percentile": text("p[1-9][0-9]"),
        **dict.fromkeys(("most", "multiple", "processes"), whole(1)),
    }
)

RUN = record(
    {
        **{name: LATENCIES[name] for name in ("latency_ns", "warmup_stable", "stop_reason", "elapsed_ns")},
        "parity": record({**FULL_PARITY, "tolerance": POSITIVE}, rest=anything),
        "memory": MEMORY,
        "flags": many(text()),
    }
)
"""One fresh process at one batch."""

STEP = by(
    "status",
    {
        "ok": record(
            {"batch": whole(1), "again": flag, "status": one_of("ok"), "failure": one_of(None), "runs": many(RUN, 1)}
        ),
        "failed": record(
            {
                **{"batch": whole(1), "again": flag, "status": one_of("failed"), "failure": FAILURE},
                "runs": many(anything),
            }
        ),
    },
)

COMMON = {"cell": CELL, "log": maybe(text()), "search": SEARCH, "protocol": PROTOCOL, "steps": many(STEP)}

CONTENT = by(
    "status",
    {
        "ok": record({**COMMON, "status": one_of("ok"), "failure": one_of(None), "provenance": PROVENANCE}),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}, {"provenance": maybe(anything)}),
    },
)


def SCHEMA(value: Any) -> str | None:
    """A search with one limit, whose steps have as many processes as it asks for."""
    if flaw := CONTENT(value):
        return flaw
    search = value["search"]
    if (search["limit_ms"] is None) == (search["limit_times"] is None):
        return ".search has not one limit"
    if value["status"] == "ok" and not value["steps"]:
        return ".steps is empty"
    for index, step in enumerate(value["steps"]):
        if step["status"] == "ok" and len(step["runs"]) != search["processes"]:
            return f".steps[{index}].runs are not {search['processes']} processes"
        if step["again"] and index + 1 != len(value["steps"]):
            return f".steps[{index}].again stands before the end"
    return None
