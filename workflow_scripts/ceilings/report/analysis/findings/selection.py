"""Which cells a finding looks at."""

from __future__ import annotations

import pandas as pd

from ceilings.report.analysis.measured import Cell, Measured, group_by, without_axis
from ceilings.runtimes.catalogue import RUNTIMES


def on_gpu(cell: Cell) -> bool:
    """Whether a cell ran on a CUDA device."""
    known = RUNTIMES.get(cell.runtime)
    return known.device == "cuda" if known else pd.notna(cell.row["gpu_p50_ms"])


def panels_at_common_shape(measured: Measured) -> list[list[Cell]]:
    """Cells that may be compared, a list a device and model, at the shape that most of each were measured at."""
    return list(group_by(measured.at_common_shape, lambda cell: (cell.device, cell.model)).values())


def sweeps(measured: Measured, axis: str) -> list[list[Cell]]:
    """Cells that differ in one axis only, at the most common rest of the shape, ascending; each phase apart."""
    longest_of_each = []
    for cells in measured.panels.values():
        along = [cell for cell in cells if axis in cell.shape.axes]
        for same in group_by(along, lambda cell: (*cell.configuration, cell.phase)).values():
            rows = group_by(same, lambda cell: without_axis(cell.shape, axis)).values()
            longest = max(rows, key=len)
            if len(longest) > 1:
                longest_of_each.append(sorted(longest, key=lambda cell: cell.axis(axis)))
    return longest_of_each


def baseline(cells: list[Cell]) -> Cell:
    """The eager runtime; without one, the slowest."""
    eager = [cell for cell in cells if cell.is_eager]
    return eager[0] if eager else max(cells, key=lambda cell: cell.p50.estimate)
