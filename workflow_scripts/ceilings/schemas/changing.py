"""One process that measured a sequence of changing shapes (``measure_changing.py``)."""

from typing import Any

from ceilings.schemas.common import FAILURE, FULL_PARITY, NAME, POSITIVE, PROTOCOL, PROVENANCE
from ceilings.schemas.terms import anything, by, flag, free, many, maybe, numbers, one_of, record, table, text, whole

CELL = record({"device": NAME, "runtime": NAME, "model": NAME, "precision": NAME, "sequence": NAME})
"""What names a cell of changing shapes."""

REQUESTS = record(
    {
        "shapes": many(NAME, 1),
        "order": numbers(low=0, least=2, integral=True),
        "logged": maybe(whole(2)),
        "sorted": flag,
    }
)
"""Which shape comes when, as ``ceilings.workload.sequences`` gives it."""

LATENCIES = numbers(low=1, least=1, integral=True)
BYTES = numbers(low=0, least=2, integral=True)

COLD = record(
    {
        "latency_ns": LATENCIES,
        "rss_bytes": BYTES,
        "device_bytes": maybe(BYTES),
        "graphs": maybe(numbers(low=0, least=2, integral=True)),
    }
)

COMMON = {
    "cell": CELL,
    "run": whole(1),
    "log": maybe(text()),
    "padded": flag,
    "requests": REQUESTS,
    "protocol": PROTOCOL,
    "flags": many(text()),
}

MEASURED = {
    "status": one_of("ok"),
    "cold": COLD,
    "sequence_ns": many(LATENCIES, 1),
    "steady_ns": many(many(LATENCIES, 1), 2),
    "return_ns": many(LATENCIES, 2),
    "compiled": maybe(many(flag, 1)),
    "graphs": maybe(whole()),
    "parity": table(record({**FULL_PARITY, "tolerance": POSITIVE}, rest=anything), 1),
    "provenance": PROVENANCE,
}

FURTHER = {
    "failure": one_of(None),
    "neighbours": maybe(free),
    "memory": maybe(free),
    "runtime": maybe(free),
    "threads": maybe(free),
    "cold_start_ns": table(whole()),
    "imports_ns": table(whole()),
    "first_answer_ns": maybe(whole()),
}

CONTENT = by(
    "status",
    {
        "ok": record({**COMMON, **MEASURED}, FURTHER),
        "failed": record({**COMMON, "status": one_of("failed"), "failure": FAILURE}, rest=anything),
    },
)


def SCHEMA(value: Any) -> str | None:
    """A record whose series are of its requests."""
    if flaw := CONTENT(value):
        return flaw
    shapes, order = value["requests"]["shapes"], value["requests"]["order"]
    if sorted(set(order)) != list(range(len(shapes))):
        return f".requests.order does not name each of {len(shapes)} shapes"
    return _series(value, len(shapes), len(order)) if value["status"] == "ok" else None


def _series(value: Any, shapes: int, requests: int) -> str | None:
    """Whether a measured record has a number for each request and each shape."""
    passes, cold = value["sequence_ns"], value["cold"]
    lengths = {
        "sequence_ns": {len(each) for each in passes} == {requests},
        "steady_ns": {len(each) for each in value["steady_ns"]} == {shapes},
        "return_ns": {len(each) for each in value["return_ns"]} == {shapes},
        "cold.latency_ns": len(cold["latency_ns"]) == requests,
        "cold.rss_bytes": len(cold["rss_bytes"]) == shapes + 1,
        "cold.device_bytes": cold["device_bytes"] is None or len(cold["device_bytes"]) == shapes + 1,
        "cold.graphs": cold["graphs"] is None or len(cold["graphs"]) == requests + 1,
        "compiled": value["compiled"] is None or len(value["compiled"]) == shapes,
        "parity": set(value["parity"]) == set(value["requests"]["shapes"]),
    }
    if wrong := [name for name, fits in lengths.items() if not fits]:
        return f".{wrong[0]} is not of {requests} requests of {shapes} shapes"
    if {len(value["steady_ns"]), len(value["return_ns"])} != {len(passes) + 1}:
        return f".steady_ns has not one reference more than {len(passes)} passes"
    return None
