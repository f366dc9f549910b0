"""Floor records and measured latencies to the table of floors: how far each cell is from what its device allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ceilings.report.tables import gates
from ceilings.report.tables.frames import FLOOR_COLUMNS
from ceilings.report.tables.keys import KEY, with_axes
from ceilings.report.tables.planned_record import read_record
from ceilings.taxonomy import OPERATOR_CLASSES
from ceilings.workload.shape import Shape

Record = Mapping[str, Any]

MOSTLY = 0.95
"""The library's time is shown where at least this share of the products' operations was measured at its sizes."""

OF_ALL_RUNTIMES = [name for name in KEY if name != "runtime"]
"""What a floor belongs to: no runtime, only the graph."""


def floor_table(planned: Sequence[Record], rows: Sequence[Record]) -> pd.DataFrame:
    """The table of floors.

    Args:
        planned: Cells of the plan; ``floor`` is the path of the record, or None.
        rows: Their rows of the table of cells, in the same order.

    Raises:
        UserError: A floor that the plan names is missing, damaged or of another cell.
    """
    bounded = []
    for cell, row in zip(planned, rows, strict=True):
        # The second cell of an A/A pair serves the noise floor alone.
        if cell.get("floor") and row["status"] == "ok" and not cell.get("aa_of"):
            record = read_floor(cell["floor"], cell)
            if record["status"] == "ok":
                bounded.append({name: cell[name] for name in KEY} | floor_row(record, row["p50_ms"]))
    return with_axes(pd.DataFrame(bounded, columns=FLOOR_COLUMNS))


def read_floor(path: str, cell: Record) -> dict[str, Any]:
    """One floor record, checked against the planned cell; padded inputs have the floor of full ones."""
    full = {**cell, "shape": str(Shape.parse(cell["shape"]).full)}
    return read_record(path, "floor", full, "is the floor of", gates.floor, key=OF_ALL_RUNTIMES)


def floor_row(record: Record, p50_ms: float) -> dict[str, Any]:
    """A floor, and the distance of a median latency from it.

    MFU is the time that the products take at the measured matrix rate, over the latency.
    """
    floor, library = record["floor"], record["library_products"]
    return {
        "flops": record["work"]["flops"],
        "bytes": record["work"]["bytes"],
        **{name: floor[name] for name in ("compute_floor_ms", "memory_floor_ms", "floor_ms", "limited_by")},
        "gap": p50_ms / floor["floor_ms"],
        "mfu": floor["compute_floor_ms"] / p50_ms,
        **{name: floor[name] for name in ("launch_floor_ms", "cold_memory_floor_ms")},
        "gemm_library_ms": library["ms"] if library["flops_share"] >= MOSTLY else None,
        "weight_bytes": record["work"]["weight_bytes"],
        "cache_bytes": record["work"].get("cache_bytes"),
        **{f"{kind}_unfused_ms": record["classes"].get(kind, {}).get("unfused_ms", 0.0) for kind in OPERATOR_CLASSES},
    }
