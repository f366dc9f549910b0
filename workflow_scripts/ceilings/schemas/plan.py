"""What a study measures where (``plan_study``)."""

from typing import Any

from ceilings.schemas.common import NAME, POSITIVE, PROTOCOL
from ceilings.schemas.terms import anything, flag, free, many, maybe, number, record, row, table, text, whole

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
    {**dict.fromkeys(("floor", "engine", "budget", "counters", "quality", "texts"), maybe(text()))},
    rest=anything,
)

DEVICE = record({"kind": NAME}, {**dict.fromkeys(("slug", "name"), text()), "cores": whole(1)}, rest=anything)

LACKING = record({"cells": many(text())}, dict.fromkeys(("reason", "remedy"), maybe(text())), rest=anything)

PREDICTION = record(
    {**dict.fromkeys(("device", "cell", "before"), text()), "factor": row(number(), number()), "per_inference": flag},
    rest=anything,
)

CHANGING = record(
    {
        "device": maybe(text()),
        **dict.fromkeys(("runtime", "model", "precision", "sequence"), NAME),
        "available": flag,
        "reason": maybe(text()),
        "remedy": maybe(text()),
        "runs": many(text()),
        "buckets": maybe(text()),
        "padded": many(text()),
    },
    {"recorded": flag, "levers": many(text())},
)

CHANGE = record(dict.fromkeys(("device", "runtime", "model", "precision", "sequence", "path"), NAME))

SEARCH = record(
    {
        "device": maybe(text()),
        **dict.fromkeys(("runtime", "model", "precision", "rest"), NAME),
        **dict.fromkeys(("available", "recorded"), flag),
        **dict.fromkeys(("reason", "remedy", "record"), maybe(text())),
    }
)

DEPLOYED = record(
    {"deployment": NAME, "device": maybe(text()), "cells": many(text()), "runs": many(text())},
    {**dict.fromkeys(("reason", "remedy"), maybe(text())), "recorded": flag},
    rest=anything,
)

COLOCATION = record(
    {
        **dict.fromkeys(("group", "how", "cores"), NAME),
        "device": maybe(text()),
        "cells": many(NAME, 2),
        "runs": many(text()),
        "available": flag,
        "reason": maybe(text()),
        "remedy": maybe(text()),
        "recorded": flag,
    }
)

OVERLAP = record(
    {
        "device": maybe(text()),
        **dict.fromkeys(("runtime", "model", "precision", "shape"), NAME),
        "runs": many(text()),
        **dict.fromkeys(("available", "recorded"), flag),
        **dict.fromkeys(("hidden", "reason", "remedy"), maybe(text())),
    }
)

CONTENT = record(
    {
        "study": NAME,
        "seed": whole(),
        "devices": many(DEVICE),
        "protocol": PROTOCOL,
        "tolerances": table(POSITIVE),
        "price_per_hour": table(POSITIVE),
        "models": table(record({}, {"largest": table(whole(1))}, rest=anything)),
        "cells": many(CELL),
    },
    {
        **dict.fromkeys(("lengths", "traces"), free),
        "targets": record({}, {"latency_ms": maybe(POSITIVE)}, rest=anything),
        "baseline": many(text()),
        "left_out": many(row(text(), text())),
        "lacking": many(LACKING),
        "predictions": many(PREDICTION),
        "changing": many(CHANGING),
        "changes": many(CHANGE),
        "best_batch": many(SEARCH),
        "serving": many(DEPLOYED),
        "colocation": many(COLOCATION),
        "overlap": many(OVERLAP),
        "transfers": many(NAME),
    },
    rest=anything,
)


def SCHEMA(value: Any) -> str | None:
    """A plan, in which each cell has a tolerance and a model."""
    if flaw := CONTENT(value):
        return flaw
    for index, cell in enumerate(value["cells"]):
        for of, name in (("tolerances", cell["precision"]), ("models", cell["model"])):
            if name not in value[of]:
                return f".{of} has nothing for {ascii(name)[:60]}, of cells[{index}]"
    return None
