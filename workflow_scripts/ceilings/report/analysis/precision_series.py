"""Lower precisions against FP32, shape by shape, and where one overtakes the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ceilings.report.analysis.measured import Cell, Comparison, Measured, configuration_label, group_by
from ceilings.runtimes.catalogue import RUNTIMES

Axis = Literal["batch", "sequence"]
REFERENCE = "fp32"


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
    """One configuration against its FP32 counterpart along one axis, the other axis fixed.

    Attributes:
        points: Comparisons by ascending size; ratio below 1: the lower precision is faster.
    """

    device: str
    model: str
    runtime: str
    precision: str
    reference_runtime: str
    axis: Axis
    fixed: int
    points: tuple[Comparison, ...]

    @property
    def label(self) -> str:
        return configuration_label(self.runtime, self.precision)

    @property
    def reference_label(self) -> str:
        return configuration_label(self.reference_runtime, REFERENCE)

    @property
    def sizes(self) -> list[int]:
        return [getattr(point.a, self.axis) for point in self.points]

    @property
    def crossovers(self) -> list[Crossover]:
        """Sign changes between differences that the data establish; undecided shapes in between do not count."""
        decided = [point for point in self.points if point.verdict in {"faster", "slower"}]
        found = []
        for left, right in itertools.pairwise(decided):
            if left.verdict != right.verdict:
                size = self._crossing(left, right)
                below, above = getattr(left.a, self.axis), getattr(right.a, self.axis)
                found.append(Crossover(below, above, size, gains=right.verdict == "faster"))
        return found

    def _crossing(self, left: Comparison, right: Comparison) -> float:
        y = [math.log(point.ratio.estimate) for point in (left, right)]
        x = [math.log(getattr(point.a, self.axis)) for point in (left, right)]
        return math.exp(x[0] + (x[1] - x[0]) * y[0] / (y[0] - y[1]))


def precision_series(measured: Measured) -> list[PrecisionSeries]:
    """Every lower-precision configuration along both axes, wherever FP32 was measured at the same shapes.

    Series with one point are kept only where the other axis has no series through that point.
    """
    found = []
    for (device, model), cells in measured.panels.items():
        for (runtime, precision), own in group_by(cells, lambda cell: cell.configuration).items():
            reference = _reference_runtime(runtime, cells)
            if precision == REFERENCE or reference is None:
                continue
            base = {cell.shape: cell for cell in cells if cell.configuration == (reference, REFERENCE)}
            pairs = [measured.compare(cell, base[cell.shape]) for cell in own if cell.shape in base]
            for axis, fixed, points in _along_axes(pairs):
                found.append(PrecisionSeries(device, model, runtime, precision, reference, axis, fixed, tuple(points)))
    return found


def _along_axes(pairs: Sequence[Comparison]) -> list[tuple[Axis, int, list[Comparison]]]:
    found: list[tuple[Axis, int, list[Comparison]]] = []
    axes: list[tuple[Axis, Axis]] = [("batch", "sequence"), ("sequence", "batch")]
    for axis, other in axes:
        for fixed, points in group_by(pairs, lambda pair, other=other: getattr(pair.a, other)).items():  # type: ignore[misc]
            if len(points) > 1:
                found.append((axis, fixed, sorted(points, key=lambda pair, axis=axis: getattr(pair.a, axis))))  # type: ignore[misc]
    covered = {pair.a.shape for _, _, points in found for pair in points}
    found += [("batch", pair.a.sequence, [pair]) for pair in pairs if pair.a.shape not in covered]
    return found


def _reference_runtime(runtime: str, cells: Sequence[Cell]) -> str | None:
    """The FP32 runtime to hold a configuration against: itself, so that nothing but the precision differs.

    Only a runtime that exists in lower precisions alone (torch-int8-dynamic) is held against another: one of the same
    family (torch-), the eager one if there is a choice.
    """
    candidates = sorted({cell.runtime for cell in cells if cell.precision == REFERENCE})
    if runtime in candidates:
        return runtime
    if runtime not in RUNTIMES or REFERENCE in RUNTIMES[runtime].precisions:
        return None
    family = [name for name in candidates if name.split("-")[0] == runtime.split("-", maxsplit=1)[0]]
    return min(family, key=lambda name: (not name.endswith("-eager"), name), default=None)
