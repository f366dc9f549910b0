"""Lower precisions against FP32, shape by shape, and where one overtakes the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ceilings.report.analysis.measured import Cell, Comparison, Measured, configuration_label, group_by, without_axis
from ceilings.report.analysis.measured_cell import GENERATED, REFERENCE, lower_precisions_only
from ceilings.report.tables.keys import axes_of
from ceilings.workload.shape import Shape


@dataclass(frozen=True)
class Crossover:
    """Between two neighbouring shapes the verdict turns.

    Attributes:
        size: Where the log ratio, drawn straight between the two, is 0.
        gains: Whether the lower precision is the faster one beyond it.
    """

    below: int
    above: int
    size: float
    gains: bool


@dataclass(frozen=True)
class PrecisionSeries:
    """One configuration against its FP32 counterpart along one axis, the others fixed.

    Attributes:
        fixed: The rest of the shape.
        points: Comparisons by ascending size; ratio below 1: the lower precision is faster.
    """

    device: str
    model: str
    runtime: str
    precision: str
    reference_runtime: str
    axis: str
    fixed: Shape
    points: tuple[Comparison, ...]

    @property
    def label(self) -> str:
        return configuration_label(self.runtime, self.precision)

    @property
    def reference_label(self) -> str:
        return configuration_label(self.reference_runtime, REFERENCE)

    @property
    def sizes(self) -> list[int]:
        return [point.a.axis(self.axis) for point in self.points]

    @property
    def crossovers(self) -> list[Crossover]:
        """Sign changes between differences that the data establish; undecided shapes in between do not count."""
        decided = [point for point in self.points if point.verdict in {"faster", "slower"}]
        crossovers = []
        for left, right in itertools.pairwise(decided):
            if left.verdict != right.verdict:
                size = self._crossing(left, right)
                below, above = left.a.axis(self.axis), right.a.axis(self.axis)
                crossovers.append(Crossover(below, above, size, gains=right.verdict == "faster"))
        return crossovers

    def _crossing(self, left: Comparison, right: Comparison) -> float:
        y = [math.log(point.ratio.estimate) for point in (left, right)]
        x = [math.log(point.a.axis(self.axis)) for point in (left, right)]
        return math.exp(x[0] + (x[1] - x[0]) * y[0] / (y[0] - y[1]))


def precision_series(measured: Measured) -> list[PrecisionSeries]:
    """Every lower-precision configuration along each axis, wherever FP32 was measured at the same shapes.

    Series with one point are kept only where no other axis has a series through that point.
    """
    series = []
    for (device, model), cells in measured.panels.items():
        for (runtime, precision), same in group_by(cells, lambda cell: cell.configuration).items():
            reference = _reference_runtime(same[0], cells)
            if precision == REFERENCE or reference is None:
                continue
            base = {cell.shape: cell for cell in cells if cell.configuration == (reference, REFERENCE)}
            pairs = [measured.compare(cell, base[cell.shape]) for cell in same if cell.shape in base]
            for axis, fixed, points in _along_axes(pairs):
                series.append(PrecisionSeries(device, model, runtime, precision, reference, axis, fixed, tuple(points)))
    return series


def _along_axes(pairs: Sequence[Comparison]) -> list[tuple[str, Shape, list[Comparison]]]:
    lines: list[tuple[str, Shape, list[Comparison]]] = []
    for axis in axes_of(pair.a.shape for pair in pairs):
        if axis == GENERATED:
            continue
        along = [pair for pair in pairs if axis in pair.a.shape.axes]
        for fixed, points in group_by(along, lambda pair, axis=axis: without_axis(pair.a.shape, axis)).items():  # type: ignore[misc]
            if len(points) > 1:
                lines.append((axis, fixed, sorted(points, key=lambda pair, axis=axis: pair.a.axis(axis))))  # type: ignore[misc]
    covered = {pair.a.shape for _, _, points in lines for pair in points}
    alone = [pair for pair in pairs if pair.a.shape not in covered]
    first = [(pair.a.shape.axes[0], pair) for pair in alone]
    return [*lines, *((axis, without_axis(pair.a.shape, axis), [pair]) for axis, pair in first)]


def _reference_runtime(lower: Cell, cells: Sequence[Cell]) -> str | None:
    """The FP32 runtime to hold a configuration against: itself, so that nothing but the precision differs.

    Only a runtime that exists in lower precisions alone is held against another: one of the same stack, the one with
    the fewest levers if there is a choice.
    """
    candidates = [cell for cell in cells if cell.precision == REFERENCE]
    if any(cell.runtime == lower.runtime for cell in candidates):
        return lower.runtime
    if not lower_precisions_only(lower.runtime):
        return None
    same = [cell for cell in candidates if cell.stack == lower.stack]
    return min(same, key=lambda cell: (len(cell.levers), cell.runtime)).runtime if same else None
