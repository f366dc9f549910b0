"""What one cell has and another has not: the change that a prediction is about."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ceilings.report.analysis.measured import Cell, Measured, without_axis
from ceilings.runtimes.catalogue import DEFAULT_LEVERS, RUNTIMES, Runtime
from ceilings.workload.shape import Shape

PRECISION, BATCH, STACK = "precision", "batch", "stack"
"""Kinds of changes that are no lever of the catalogue."""

SIZE = {"fp32": 1.0, "tf32": 1.0, "fp16": 0.5, "bf16": 0.5, "int8": 0.25, "fp8": 0.25}
"""Of a number, in FP32's."""


@dataclass(frozen=True)
class Place:
    """A cell as a study would name it, measured or not; on the device and model of the cell it is compared with."""

    runtime: str
    precision: str
    shape: Shape

    @property
    def spec(self) -> Runtime:
        """Its runtime in the catalogue."""
        return RUNTIMES[self.runtime]


@dataclass(frozen=True)
class Change:
    """What one cell has and another has not.

    Attributes:
        kind: ``precision``, ``batch``, ``stack``, or the name of a lever.
        before, after: Precisions, runtimes, or of a batch 1 and how many times it grows; empty for a lever.
    """

    kind: str
    before: str = ""
    after: str = ""


def change_between(a: Cell, b: Cell | Place) -> Change | None:
    """The one change from ``a`` to ``b`` on one model and device; None where there are several, or none.

    Default levers are no change: a stack as it is has them, and without IO binding something else is timed.
    """
    stack, levers = (b.stack, b.levers) if isinstance(b, Cell) else (b.spec.stack, b.spec.levers)
    if a.shape != b.shape:
        same = (a.stack, a.levers, a.precision) == (stack, levers, b.precision)
        grown = without_axis(a.shape, BATCH) == without_axis(b.shape, BATCH) and b.shape.batch > a.shape.batch
        return Change(BATCH, "1", f"{b.shape.batch / a.shape.batch:g}") if same and grown else None
    if a.stack != stack:
        return Change(STACK, a.runtime, b.runtime) if a.precision == b.precision else None
    if a.precision != b.precision:
        lower = lowers(a.precision, b.precision) and a.levers == levers
        return Change(PRECISION, a.precision, b.precision) if lower else None
    added = levers - a.levers
    return Change(*added) if len(added) == 1 and a.levers < levers and not added & DEFAULT_LEVERS else None


def lowers(before: str, after: str) -> bool:
    """Whether ``after`` is the lower precision: smaller numbers, or FP32's on the matrix units."""
    if before not in SIZE or after not in SIZE:
        return False
    return SIZE[after] < SIZE[before] or (before, after) == ("fp32", "tf32")


def host_share(cell: Cell) -> float | None:
    """The part of the latency for which the host submits; None on a CPU, where nothing is submitted."""
    enqueue = cell.row.get("enqueue_p50_ms")
    return None if enqueue is None or pd.isna(enqueue) else min(1.0, enqueue / cell.p50.estimate)


def work_ratio(measured: Measured, a: Cell, b: Cell) -> float | None:
    """How many times the work of ``b`` that of ``a`` is: by their floors, else by their sizes; None where unknown."""
    floors = [measured.hardware_floor(cell) for cell in (a, b)]
    if floors[0] and floors[1]:
        return float(floors[0]["compute_floor_ms"] / floors[1]["compute_floor_ms"])
    return a.volume / b.volume if a.model == b.model else None
