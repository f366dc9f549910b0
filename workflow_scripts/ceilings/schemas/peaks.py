"""What a device was measured to allow (``measure_peaks.py``)."""

from typing import Any

from ceilings.schemas.common import NAME, POSITIVE, PROVENANCE
from ceilings.schemas.terms import free, many, maybe, record, table, text, whole

MEASURED = record(
    {"median": POSITIVE, "low": POSITIVE, "high": POSITIVE, "repeats": whole(1), "unit": NAME, "method": text()}
)


def _peak(value: Any) -> str | None:
    """A limit with its range, or why there is none."""
    if isinstance(value, dict) and "unavailable" in value:
        return record({"unavailable": text()})(value)
    if flaw := MEASURED(value):
        return flaw
    if not value["low"] <= value["median"] <= value["high"]:
        return f".median is {value['median']:g}; it must lie between low {value['low']:g} and high {value['high']:g}"
    return None


SCHEMA = record(
    {"device": NAME, "peaks": table(_peak), "l2_bytes": whole(1), "flags": many(text()), "provenance": PROVENANCE},
    {"gpu": free, "multiprocessors": maybe(whole(1))},
)
