"""One run of one deployment: a fresh server, its start, and what client and server counted (``measure_serving.py``)."""

from ceilings.schemas.common import COUNTS, FAILURE, FULL_PARITY, NAME, NOT_NEGATIVE, POSITIVE, PROVENANCE
from ceilings.schemas.terms import anything, by, free, many, maybe, numbers, one_of, record, table, text, whole

COUNTERS = record(
    {},
    {
        **dict.fromkeys(("requests", "failures", "executions", "inferences"), maybe(whole())),
        **dict.fromkeys(
            ("queue_ns", "compute_input_ns", "compute_infer_ns", "compute_output_ns", "request_ns"), maybe(whole())
        ),
        **dict.fromkeys(("batch_sizes", "others"), maybe(COUNTS)),
    },
)

WHOLE = (
    *(
        "began_ns",
        "ended_ns",
        "drained_ns",
        "sent",
        "unsent",
        "answered",
        "connections",
        "exhausted",
    ),
)

WINDOW = record(
    {
        "cell": NAME,
        "kind": one_of("closed", "open"),
        "concurrency": maybe(whole(1)),
        "rate": maybe(POSITIVE),
        "round": whole(1),
        **dict.fromkeys(WHOLE, whole()),
        "answered_inside": NOT_NEGATIVE,
        "latency_ns": numbers(low=1, integral=True),
        "late_ns": numbers(integral=True),
        "failed": COUNTS,
        "client_cores": NOT_NEGATIVE,
        "client_cores_allowed": whole(1),
        "server": COUNTERS,
    },
    {"asked": maybe(text()), "client_waited_ns": maybe(whole())},
    rest=anything,
)

COMMON = {"deployment": NAME, "device": NAME, "run": whole(1), "log": maybe(text()), "flags": many(text())}

SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                **COMMON,
                "status": one_of("ok"),
                "failure": one_of(None),
                "server": record({"kind": NAME}, rest=anything),
                "client": record({"transport": one_of("http", "grpc")}, rest=anything),
                "cells": table(record({"parity": record({**FULL_PARITY}, rest=anything)}, rest=anything)),
                "windows": many(WINDOW),
                "protocol": free,
                "provenance": PROVENANCE,
            },
            rest=anything,
        ),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}, rest=anything),
    },
)
