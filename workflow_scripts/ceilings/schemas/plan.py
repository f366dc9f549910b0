"""What a study measures where (``plan_study``)."""

from ceilings.schemas.common import NAME, POSITIVE
from ceilings.schemas.terms import anything, flag, free, many, maybe, record, table, text, whole

CELL = record(
    {
        "device": maybe(text()),
        **dict.fromkeys(("runtime", "stack", "artifact", "model", "precision", "shape"), NAME),
        "levers": many(text()),
        "aa_of": maybe(text()),
        "axes": table(whole(1)),
        "lengths": text(),
        "sweeps": many(text()),
        "available": flag,
        "reason": maybe(text()),
        "remedy": maybe(text()),
        "runs": many(text()),
    },
    {**dict.fromkeys(("floor", "engine", "budget", "quality"), maybe(text()))},
    rest=anything,
)

SCHEMA = record(
    {
        "study": NAME,
        "seed": whole(),
        "devices": many(record({"kind": NAME}, rest=anything)),
        "protocol": record({"min_iterations": whole(1), "processes": whole(1)}, rest=anything),
        "tolerances": table(POSITIVE),
        "price_per_hour": table(POSITIVE),
        "models": table(free),
        "cells": many(CELL),
    },
    {"lengths": free, "traces": free, "left_out": anything},
    rest=anything,
)
