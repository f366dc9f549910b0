"""The configuration that speed-ups of a device and model are held against."""

from __future__ import annotations

from collections.abc import Sequence

from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.analysis.measured_cell import REFERENCE

Panel = tuple[str, str]
"""(device, model)."""


def baselines(measured: Measured, asked: Sequence[str] = ()) -> dict[Panel, tuple[str, str]]:
    """(runtime, precision) of each panel with a measured cell of it; panels without one are left out.

    Args:
        asked: ``runtime/precision`` of the study, the first that a panel has counts. Without one that fits: the first
            runtime of the study that was measured in FP32.
    """
    wanted = [tuple(name.split("/")) for name in asked]
    chosen = {}
    for panel, cells in measured.panels.items():
        has = {cell.configuration for cell in cells}
        order = [pair for pair in measured.planned_configurations(*panel) if pair in has and pair[1] == REFERENCE]
        fitting = [pair for pair in wanted if pair in has] + order
        if fitting:
            chosen[panel] = fitting[0]
    return chosen


def baseline_of(measured: Measured, chosen: dict[Panel, tuple[str, str]], cell: Cell) -> Cell | None:
    """The cell of the baseline at the shape of ``cell``; None where it was not measured there."""
    pair = chosen.get((cell.device, cell.model))
    return measured.at(cell.device, cell.model, *pair, cell.shape) if pair else None
