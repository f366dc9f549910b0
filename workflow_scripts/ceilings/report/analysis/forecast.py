"""What one change to a measured cell would do to its latency: a range, from bounds, budgets and other cells.

The range is of the ratio latency after / latency before (per inference where the batch changes); below 1 is faster. It
rests on bounds, which hold for this cell alone (floors, the host's share, a budget with its replays), and on analogues:
the same change where the study measured it, on another model, shape, precision or on top of other levers. Analogues
narrow the bounds and never leave them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.measured import Cell, Measured, without_axis
from ceilings.runtimes.catalogue import COMPILATION, FUSION, GRAPH, IO_BINDING, ORT_CUDA, PYTORCH, RUNTIMES, Runtime
from ceilings.statistics.quantiles import Interval
from ceilings.workload.shape import Shape

Ground = Literal["bounds", "budget", "neighbour"]

GIVEN: Ground = "bounds"

BATCH, STACK = "batch", "stack"
"""Changes that are no lever of the catalogue and no precision."""


@dataclass(frozen=True)
class Place:
    """A cell as the study would name it, measured or not; on the device and model of the cell it starts from."""

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
        before, after: Precisions, stacks, or for a batch the factor's ends, 1 and how many times it grows.
    """

    kind: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Forecast:
    """The ratio of latencies to expect.

    Attributes:
        low, high: Of the ratio after / before.
        ground: What the range rests on.
        because: Half a sentence with its number.
        cells: Measured cells that it rests on.
    """

    low: float
    high: float
    ground: Ground
    because: str
    cells: tuple[Cell, ...]

    @property
    def middle(self) -> float:
        """Geometric middle of the range."""
        return math.sqrt(self.low * self.high)

    @property
    def width(self) -> float:
        """How many times the low end the high end is."""
        return self.high / self.low


def change_between(a: Cell, b: Cell | Place) -> Change | None:
    """The one change from ``a`` to ``b`` on one model and device; None where there are several, or none."""
    stack, levers = (b.stack, b.levers) if isinstance(b, Cell) else (b.spec.stack, b.spec.levers)
    if a.shape != b.shape:
        same = (a.stack, a.levers, a.precision) == (stack, levers, b.precision)
        grown = without_axis(a.shape, BATCH) == without_axis(b.shape, BATCH) and b.shape.batch > a.shape.batch
        return Change(BATCH, "1", f"{b.shape.batch / a.shape.batch:g}") if same and grown else None
    if a.stack != stack:
        return Change(STACK, a.stack, stack) if a.precision == b.precision else None
    if a.precision != b.precision:
        return Change("precision", a.precision, b.precision) if a.levers == levers else None
    added = levers - a.levers
    return Change(*added) if len(added) == 1 and a.levers < levers else None


def forecast(measured: Measured, base: Cell, target: Place) -> Forecast | None:
    """The range for one change; None where the two differ in more than that."""
    change = change_between(base, target)
    if change is None:
        return None
    bounds = _bounds(measured, base, target, change)
    known = analogues(measured, base, change)
    return _narrowed(bounds, known, change) if known else bounds


# --- bounds ----------------------------------------------------------------------------------------------------------

NARROWER = {"tf32": 1.0, "fp16": 0.5, "bf16": 0.5, "int8": 0.25, "fp8": 0.25}
"""Size of a number, of FP32's."""

SLOWER = 1.05
"""A lever that removes work is expected to cost no more than this."""

QUANTISED_SLOWER = 1.5
"""Nodes that quantise are work of their own: where products gain little, a cell becomes slower."""

HOSTS = 0.75
"""Of the time that the host submits, at least this is left where the device's work changes: hosts vary between runs."""


def _bounds(measured: Measured, base: Cell, target: Place, change: Change) -> Forecast:
    """What holds for this cell, whatever others did."""
    p50, budget = base.p50.estimate, measured.budget(base)
    floor = _floor(measured, base, target)
    ground = GIVEN
    low, high, said = floor / p50 if floor else 0.0, SLOWER, ""
    if floor:
        said = f"the hardware's floor is {text.number(floor)} of {text.number(p50)} ms"
    host = _host_share(base)
    if change.kind == BATCH:
        times = float(change.after)
        low, said = max(1 / times, low / times), f"at best {change.after} times the inputs take the same time"
        return Forecast(low, SLOWER, "bounds", said, (base,))
    if change.kind == "precision":
        low, high, ground, said = _of_precision(base, change, host, budget, (low, high, said))
    elif change.kind == GRAPH:
        if budget and budget["gpu_busy_ms"] > 0:
            low, ground = max(low, budget["gpu_busy_ms"] / p50), "budget"
            said = f"the device works for {text.number(budget['gpu_busy_ms'])} of {text.number(p50)} ms"
            if pd.notna(budget["no_host_ms"]):
                high = min(high, SLOWER * budget["no_host_ms"] / p50)
                said += f", and {text.number(budget['no_host_ms'])} ms would be left with a host that took no time"
        elif host is not None:
            low = max(low, 1 - host)
            said = f"the host submits for {text.number(base.row['enqueue_p50_ms'])} of {text.number(p50)} ms"
    elif change.kind in {COMPILATION, FUSION} and budget:
        rest = budget["gpu_gemm_ms"] + budget["gpu_attention_ms"]
        low, ground = max(low, rest / 2 / p50), "budget"
        said = f"products and attention take {text.number(rest)} of {text.number(p50)} ms"
    elif change.kind == STACK and not low:
        said = "nothing bounds another stack on this device"
    low = max(low, LEAST)
    return Forecast(low, max(high, low), ground, said or "nothing here bounds it", (base,))


LEAST = 0.02
"""No change of one lever is expected to make anything faster than 50 times."""


def _of_precision(
    base: Cell, change: Change, host: float | None, budget: dict[str, Any] | None, known: tuple[float, float, str]
) -> tuple[float, float, Ground, str]:
    low, high, said = known
    p50, ground = base.p50.estimate, GIVEN
    quantised = change.after in {"int8", "fp8"}
    if quantised and base.stack == ORT_CUDA:
        return 0.9, 2.5, "bounds", "ONNX Runtime's CUDA provider multiplies quantised products in floats"
    if host is None:
        size = NARROWER[change.after] / NARROWER.get(change.before, 1.0)
        low = max(low, 0.8 * size)
        said = f"numbers {1 / size:g} times narrower"
    elif budget and pd.notna(budget["no_work_ms"]):
        low, ground = max(low, 0.9 * budget["no_work_ms"] / p50), "budget"
        said = f"{text.number(budget['no_work_ms'])} of {text.number(p50)} ms would be left if kernels took no time"
    elif GRAPH not in base.levers and (IO_BINDING in base.levers or base.stack == PYTORCH):
        low = max(low, HOSTS * host)
        said = f"the host submits for {text.number(base.row['enqueue_p50_ms'])} of {text.number(p50)} ms"
    return low, QUANTISED_SLOWER if quantised else high, ground, said


def _host_share(cell: Cell) -> float | None:
    """The part of the latency for which the host submits; None on a CPU, where there is no such part."""
    enqueue = cell.row.get("enqueue_p50_ms")
    return None if enqueue is None or pd.isna(enqueue) else min(1.0, enqueue / cell.p50.estimate)


def _floor(measured: Measured, base: Cell, target: Place) -> float | None:
    """The floor of the target in ms, whichever runtime it was counted for; else that of a launch, or None."""
    floors = measured.tables.floors
    here = floors[(floors["device"] == base.device) & (floors["model"] == base.model)]
    same = here[(here["precision"] == target.precision) & (here["shape"] == str(target.shape.full))]
    if not same.empty:
        return float(same["floor_ms"].min())
    return float(here["launch_floor_ms"].min()) if not here.empty else None


# --- analogues -------------------------------------------------------------------------------------------------------

MOST = 3
"""So many of the nearest analogues make a range."""

SPREAD, FARTHER, ALONE = 0.06, 0.08, 0.06
"""What a range has beyond its analogues on each side, in logarithms: always, for each thing in which they differ from
the cell, and where there is only one."""

FAR = 4.0
"""An analogue that differs in more things says nothing."""

TRUSTED = 0.25
"""An interval wider than this on one side, in logarithms, widens a range no further."""


@dataclass(frozen=True)
class Analogue:
    """The same change on other cells of the study.

    Attributes:
        distance: In how many things it differs; the host's shares count by how far they are apart.
    """

    before: Cell
    after: Cell
    ratio: Interval
    distance: float


def analogues(measured: Measured, base: Cell, change: Change) -> list[Analogue]:
    """The same change elsewhere on the device, the nearest first."""
    found = []
    for before, after in _pairs(measured, base, change):
        compare = measured.compare_per_inference if change.kind == BATCH else measured.compare
        found.append(Analogue(before, after, compare(after, before).ratio, _distance(base, before, change)))
    near = sorted((one for one in found if one.distance <= FAR), key=lambda one: (one.distance, one.before.key))
    return near[:MOST]


def _pairs(measured: Measured, base: Cell, change: Change) -> Iterator[tuple[Cell, Cell]]:
    for panel, cells in measured.panels.items():
        if panel[0] == base.device:
            for before in cells:
                for after in cells:
                    if change_between(before, after) == change:
                        yield before, after


def _distance(base: Cell, other: Cell, change: Change) -> float:
    apart = float(base.model != other.model)
    apart += float(without_axis(base.shape, BATCH) != without_axis(other.shape, BATCH))
    apart += abs(math.log2(base.batch / other.batch)) / 2
    apart += len(base.levers ^ other.levers)
    apart += 0 if change.kind == STACK else 2 * (base.stack != other.stack)
    apart += 0 if change.kind == "precision" else float(base.precision != other.precision)
    here, there = _host_share(base), _host_share(other)
    if here is not None and there is not None:
        apart += 2 * abs(here - there)
    return apart


def _narrowed(bounds: Forecast, known: Sequence[Analogue], change: Change) -> Forecast:
    """The hull of the analogues, wider the farther they are, within the bounds; the bounds where they contradict it."""
    ends = []
    for one in known:
        half = SPREAD + FARTHER * one.distance + (ALONE if len(known) == 1 else 0.0)
        middle = math.log(one.ratio.estimate)
        below = min(TRUSTED, middle - math.log(one.ratio.low)) if one.ratio.low > 0 else TRUSTED
        above = min(TRUSTED, math.log(one.ratio.high) - middle) if math.isfinite(one.ratio.high) else TRUSTED
        ends.append((math.exp(middle - max(half, below)), math.exp(middle + max(half, above))))
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    nearest = known[0]
    said = (
        f"the same change took {nearest.before.model} {nearest.before.label} {nearest.before.shape} to "
        f"{text.number(nearest.ratio.estimate)}× its latency{' an inference' if change.kind == BATCH else ''}"
    )
    within = max(low, bounds.low), min(high, max(bounds.high, nearest.ratio.estimate))
    cells = tuple(dict.fromkeys(cell for one in known for cell in (one.before, one.after)))
    if within[0] >= within[1]:
        return bounds
    return Forecast(*within, "neighbour", f"{bounds.because}; {said}", (*bounds.cells, *cells))
