"""Which cells a finding looks at."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from ceilings.report.analysis.measured import Cell, Measured, group_by
from ceilings.runtimes.catalogue import RUNTIMES

Axis = Literal["batch", "sequence"]


def on_gpu(cell: Cell) -> bool:
    """Whether a cell ran on a CUDA device."""
    known = RUNTIMES.get(cell.runtime)
    return known.device == "cuda" if known else pd.notna(cell.row["gpu_p50_ms"])


def panels_at_common_shape(measured: Measured) -> list[list[Cell]]:
    """Cells that may be compared, a list a device and model, at the shape that most were measured at."""
    cells = measured.at(measured.common_shape)
    return list(group_by(cells, lambda cell: (cell.device, cell.model)).values())


def sweeps(measured: Measured, axis: Axis) -> list[list[Cell]]:
    """Cells that differ in one axis only, at the most common value of the other, ascending."""
    other: Axis = "sequence" if axis == "batch" else "batch"
    found = []
    for cells in measured.panels.values():
        for own in group_by(cells, lambda cell: cell.configuration).values():
            rows = group_by(own, lambda cell: getattr(cell, other)).values()
            longest = max(rows, key=len)
            if len(longest) > 1:
                found.append(sorted(longest, key=lambda cell: getattr(cell, axis)))
    return found


def baseline(cells: list[Cell]) -> Cell:
    """The eager runtime; without one, the slowest."""
    eager = [cell for cell in cells if cell.runtime.endswith("-eager")]
    return eager[0] if eager else max(cells, key=lambda cell: cell.p50.estimate)
