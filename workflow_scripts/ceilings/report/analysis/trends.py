"""How the median latency of each cell went over several results trees, and where it changed.

A step is from one tree to the next in which the cell was measured under equal conditions. Steps are judged by the rules
of a comparison (:mod:`ceilings.report.analysis.comparison`): Holm's adjustment goes over all steps of all cells, the
interval must exclude 1, and the ratio must lie beyond the noise floors of both trees. Trees of two days differ by more
than the processes of one, so from ``ENOUGH`` trees on a step must also stand out from the device's other steps. A slow
drift, whose steps are all small, is looked for between the first and the last tree.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ceilings.report.analysis.comparison import ALPHA, Change, decide, differences
from ceilings.report.analysis.measured import Cell, Measured, equivalence
from ceilings.report.tables.keys import KEY
from ceilings.statistics.decisions import holm, p_value, within

ENOUGH = 4
"""Trees from which on the steps between them tell how much trees differ without cause."""

OUTSTANDING = 6.0
"""How many standard deviations of the device's steps a step must exceed.

The deviation is that of few trees, all of whose cells may scatter together: of histories without a change the largest
step exceeds six in 1% or less with five trees or with eight and more, and in 2% with four or six.
"""

NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median distance from 0: a few true changes do not move it."""

CONDITIONS = ("gpu name", "gpu power limit, W", "gpu largest SM clock, MHz", "threads intra_op", "threads affinity")
"""What must be equal for two latencies to be compared, as well as all of the host."""


@dataclass(frozen=True)
class Point:
    """A cell in one tree."""

    tree: str
    cell: Cell
    measured: Measured = field(repr=False)


@dataclass(frozen=True)
class ChangePoint:
    """Where a latency changed.

    Attributes:
        kind: ``step`` from one tree to the next, or ``drift`` from the first to the last.
        change: Both sides with ratio, adjusted p and verdict.
        because: What the records of both trees say differently: (what, before, after).
    """

    kind: Literal["step", "drift"]
    before: Point
    after: Point
    change: Change
    because: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Series:
    """A cell over the trees that measured it under equal conditions.

    Attributes:
        conditions: What they are, by name.
    """

    name: str
    conditions: tuple[tuple[str, str], ...]
    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...] = ()


@dataclass(frozen=True)
class Broken:
    """A cell that was measured in one tree and failed in the next that has it."""

    cell: str
    before: str
    after: str
    why: str


@dataclass(frozen=True)
class Trends:
    """All series, those with changes first.

    Attributes:
        trees: Names in their order.
        scatter: By device, what a step must exceed beyond the noise floor, a fraction; none with too few trees.
        steps: How many comparisons were made.
        apart: Cells that were measured under several conditions: (cell, what differs).
        broken: Cells that stopped working.
        undecided: Steps that are neither established nor provably within the margin.
        carried: Cells of trees that hold the samples of an earlier tree, and so are no measurements of their own.
    """

    trees: tuple[str, ...]
    series: tuple[Series, ...]
    scatter: dict[str, float]
    steps: int
    apart: tuple[tuple[str, str], ...] = ()
    broken: tuple[Broken, ...] = ()
    undecided: int = 0
    carried: int = 0

    @property
    def changes(self) -> list[ChangePoint]:
        """Every change-point."""
        return [change for series in self.series for change in series.changes]

    @property
    def newest_is_worse(self) -> bool:
        """Whether a cell became slower or stopped working with the last tree."""
        slower = any(
            one.kind == "step" and one.after.tree == self.trees[-1] and one.change.verdict == "slower"
            for one in self.changes
        )
        return slower or any(one.after == self.trees[-1] for one in self.broken)


def trends(trees: Sequence[tuple[str, Measured]], *, margin: float = 0.05) -> Trends:
    """Follow each cell through the trees.

    Args:
        trees: Name and content of each, the oldest first.
        margin: Steps that provably are smaller are none.
    """
    series, apart, carried = _series(trees)
    pairs = [(one, "step", pair) for one in series for pair in itertools.pairwise(one.points)]
    pairs += [(one, "drift", (one.points[0], one.points[-1])) for one in series if len(one.points) > 2]
    adjusted = holm([p_value(after.cell.groups, before.cell.groups) for _, _, (before, after) in pairs])
    scatter = _scatter(series)
    changed: dict[int, list[ChangePoint]] = {}
    undecided = 0
    for (one, kind, (before, after)), p in zip(pairs, adjusted, strict=True):
        if kind == "drift" and (p > ALPHA or id(one) in changed):  # steps explain what a drift would
            continue
        floor = max(_floor(before), _floor(after), scatter.get(before.cell.device, 0.0))
        if p > ALPHA:
            undecided += not _is_same(before, after, floor, margin)
            continue
        change = decide(before.cell, after.cell, p=p, floor=floor, margin=margin)
        undecided += kind == "step" and change.verdict == "undecided"
        if change.verdict in {"slower", "faster"}:
            point = ChangePoint(kind, before, after, change, _because(before, after))  # type: ignore[arg-type]
            changed.setdefault(id(one), []).append(point)
    done = [Series(one.name, one.conditions, one.points, tuple(changed.get(id(one), ()))) for one in series]
    done.sort(key=lambda one: (not one.changes, one.name))
    names = tuple(name for name, _ in trees)
    return Trends(names, tuple(done), scatter, len(pairs), tuple(apart), tuple(_broken(trees)), undecided, carried)


def _is_same(before: Point, after: Point, floor: float, margin: float) -> bool:
    return floor <= margin and within(equivalence(after.cell, before.cell), margin)


def _broken(trees: Sequence[tuple[str, Measured]]) -> Iterator[Broken]:
    """By the rule of a comparison: measured before, failed after."""
    worked: dict[tuple[Any, ...], Point] = {}
    for name, measured in trees:
        table = measured.tables.cells
        for row in table[table["status"] == "failed"].to_dict("records"):
            if before := worked.pop(tuple(row[column] for column in KEY), None):
                yield Broken(before.cell.name, before.tree, name, str(row["reason"]))
        worked |= {cell.key: Point(name, cell, measured) for cell in measured.cells}


def _series(trees: Sequence[tuple[str, Measured]]) -> tuple[list[Series], list[tuple[str, str]], int]:
    """The series, the cells with several conditions, and how many cells were carried from tree to tree.

    A cell whose processes took the same samples as in an earlier tree was not measured again. It would count as a step
    of nothing, and many of these would hide how much trees differ.
    """
    points: dict[tuple[str, tuple[tuple[str, str], ...]], list[Point]] = {}
    carried = 0
    for name, measured in trees:
        for cell in measured.cells:
            before = points.setdefault((cell.name, _conditions(measured, cell)), [])
            if any(_is_one_measurement(point.cell, cell) for point in before):
                carried += 1
            else:
                before.append(Point(name, cell, measured))
    series = [Series(name, conditions, tuple(each)) for (name, conditions), each in points.items()]
    several: dict[str, list[Series]] = {}
    for one in series:
        several.setdefault(one.name, []).append(one)
    apart = [(name, _what_differs(same)) for name, same in several.items() if len(same) > 1]
    return series, apart, carried


def _is_one_measurement(one: Cell, other: Cell) -> bool:
    """Whether two cells hold the samples of the same processes; some may be lost of either."""
    return any(np.array_equal(a, b) for a in one.groups for b in other.groups)


def _what_differs(series: Sequence[Series]) -> str:
    known = [dict(one.conditions) for one in series]
    names = dict.fromkeys(name for each in known for name in each)
    values = {name: dict.fromkeys(each.get(name, "not recorded") for each in known) for name in names}
    return "; ".join(f"{name}: {', '.join(each)}" for name, each in values.items() if len(each) > 1)


def _conditions(measured: Measured, cell: Cell) -> tuple[tuple[str, str], ...]:
    facts = _facts(measured, cell)
    return tuple(
        (name, value) for name, value in sorted(facts.items()) if name in CONDITIONS or name.startswith("host ")
    )


def _facts(measured: Measured, cell: Cell) -> dict[str, str]:
    """What the records of a cell say of where it ran; several values of its processes in one text."""
    facts: dict[str, dict[str, None]] = {}

    def note(name: str, value: Any) -> None:
        if value is not None:
            facts.setdefault(name, {})[f"{value:g}" if isinstance(value, float) else str(value)] = None

    runs = measured.runs(cell)
    for text in runs["environment"].dropna().unique():
        record = json.loads(text)
        for section in ("gpu", "host", "threads"):
            for name, value in (record.get(section) or {}).items():
                note(f"{section} {name}", value)
    for text in runs["gpu"].dropna() if "gpu" in runs else ():
        record = json.loads(text)
        note("gpu power limit, W", record.get("power_limit_w"))
        note("gpu largest SM clock, MHz", record.get("max_sm_mhz"))
    return {name: ", ".join(sorted(values)) for name, values in facts.items()}


def _because(before: Point, after: Point) -> tuple[tuple[str, str, str], ...]:
    """What differs between the records of both trees, clocks among it."""
    differing = differences(before.measured, after.measured, [(before.cell, after.cell)])
    old, new = (_clock(point) for point in (before, after))
    if old and new and abs(math.log(new / old)) > math.log1p(0.01):
        differing.append(("SM clock while timed, MHz", f"{old:g}", f"{new:g}"))
    return tuple(differing)


def _clock(point: Point) -> float | None:
    """The median SM clock beside the timed series; None where nobody watched it."""
    runs = point.measured.runs(point.cell)
    records = [json.loads(text) for text in runs["gpu"].dropna()] if "gpu" in runs else []
    clocks = [((record.get("latency") or {}).get("sm_mhz") or {}).get("median") for record in records]
    known = [clock for clock in clocks if clock]
    return statistics.median(known) if known else None


def _floor(point: Point) -> float:
    return point.measured.noise_floor(point.cell.device) or 0.0


def _scatter(series: Sequence[Series]) -> dict[str, float]:
    """By device, how far a step must go to stand out from the others; only where there are trees enough."""
    steps: dict[str, list[float]] = {}
    for one in series:
        if len(one.points) >= ENOUGH:
            logs = [math.log(point.cell.p50.estimate) for point in one.points]
            device = one.points[0].cell.device
            steps.setdefault(device, []).extend(abs(b - a) for a, b in itertools.pairwise(logs))
    return {device: math.expm1(OUTSTANDING * NORMAL * statistics.median(each)) for device, each in steps.items()}
