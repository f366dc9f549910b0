"""Activation ranges of a graph by one method (``calibrate_ranges.py``)."""

from typing import Any

from ceilings.schemas.common import FAILED, NAME, PROVENANCE, SHA256
from ceilings.schemas.terms import by, number, one_of, record, table, text, whole

METHOD = one_of("minmax", "entropy", "percentile")
ENDS = record({"low": number(-3.4e38, 3.4e38), "high": number(-3.4e38, 3.4e38)})


def _range(value: Any) -> str | None:
    """The ends of a tensor's values."""
    if flaw := ENDS(value):
        return flaw
    if value["low"] > value["high"]:
        return f".low is {value['low']:g}; it must be at most high, {value['high']:g}"
    return None


SCHEMA = by(
    "status",
    {
        "ok": record(
            {
                "status": one_of("ok"),
                "method": METHOD,
                "count": whole(1),
                "sequence": whole(1),
                "percentile": number(above=50, high=100),
                "seed": whole(),
                "graph_sha256": SHA256,
                "cache_sha256": SHA256,
                "inputs_sha256": SHA256,
                "inputs_source": NAME,
                "shape": text(),
                "ranges": table(_range, least=1),
                "provenance": PROVENANCE,
            }
        ),
        "failed": FAILED,
    },
)
