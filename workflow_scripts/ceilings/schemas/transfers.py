"""How data gets from a host to its GPU and back, and what memory costs to get (``measure_transfers.py``)."""

from __future__ import annotations

from typing import Any

from ceilings.schemas.common import NAME, NOT_NEGATIVE, PROVENANCE
from ceilings.schemas.terms import Check, free, many, maybe, record, table, text, whole

RANGE = record({"median": NOT_NEGATIVE, "low": NOT_NEGATIVE, "high": NOT_NEGATIVE})


def _time(value: Any) -> str | None:
    """Median and range over rounds, in us."""
    if flaw := RANGE(value):
        return flaw
    if not value["low"] <= value["median"] <= value["high"]:
        return f".median is {value['median']:g}; it must lie between low {value['low']:g} and high {value['high']:g}"
    return None


def _rising(each: Check) -> Check:
    """Points of rising size."""
    points = many(each, least=1)

    def check(value: Any) -> str | None:
        if flaw := points(value):
            return flaw
        sizes = [point["bytes"] for point in value]
        falls = next((i for i in range(1, len(sizes)) if sizes[i] <= sizes[i - 1]), None)
        return None if falls is None else f"[{falls}].bytes is {sizes[falls]}; it must be above {sizes[falls - 1]}"

    return check


def _or_unavailable(had: Check) -> Check:
    """What was measured, or why it was not."""
    lacking = record({"unavailable": text()})
    return lambda value: lacking(value) if isinstance(value, dict) and "unavailable" in value else had(value)


POINT = record({"bytes": whole(1), "transfers": whole(1), "host_us": _time, "device_us": maybe(_time)})
COST = record({"bytes": whole(1), **dict.fromkeys(("first_us", "allocate_us", "free_us", "loop_us", "kept_us"), _time)})
CURVE = record(
    {"method": NAME, "device_method": maybe(NAME), "rounds": whole(1), "points": _rising(POINT)},
)
GRAPH = record(
    {
        "nodes": whole(1),
        **dict.fromkeys(("capture_us", "instantiate_us", "first_us", "again_us"), _time),
        "device_bytes": whole(),
    }
)
GRAPHS = record({"method": NAME, "rounds": whole(1), "points": many(GRAPH, least=1)})
COSTS = record({"method": NAME, "rounds": whole(1), "points": _rising(COST)})

SCHEMA = record(
    {
        "device": NAME,
        "curves": table(_or_unavailable(CURVE)),
        "allocations": table(_or_unavailable(COSTS)),
        "attributes": table(whole()),
        "flags": many(text()),
        "provenance": PROVENANCE,
    },
    {"gpu": free, "peer": free, "graphs": _or_unavailable(GRAPHS)},
)
