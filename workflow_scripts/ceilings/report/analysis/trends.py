"""How the median latency of each cell went over several results trees, and where it changed.

A step is from one tree to the next in which the cell was measured under equal conditions. Steps are judged by the rules
of a comparison (:mod:`ceilings.report.analysis.comparison`): Holm's adjustment goes over all steps of all cells, the
interval must exclude 1, and the ratio must lie beyond the noise floors of both trees. Trees of two days differ by more
than the processes of one, so from ``ENOUGH`` trees on a step must also stand out from the device's other steps. A slow
drift, whose steps are all small, is looked for between the first and the last tree.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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

Conditions = tuple[tuple[str, str], ...]
"""By name, sorted: what a cell's records say of them."""


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
    conditions: Conditions
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
    # Above ALPHA a bound is enough: Holm's adjustment of a smaller p does not depend on a larger one.
    adjusted = holm(
        [p_value(after.cell.groups, before.cell.groups, exact_up_to=ALPHA) for _, _, (before, after) in pairs]
    )
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
        failed = table["status"] == "failed"
        for row in table[failed].to_dict("records") if failed.any() else ():
            if before := worked.pop(tuple(row[column] for column in KEY), None):
                yield Broken(before.cell.name, before.tree, name, str(row["reason"]))
        worked |= {cell.key: Point(name, cell, measured) for cell in measured.cells}


def _series(trees: Sequence[tuple[str, Measured]]) -> tuple[list[Series], list[tuple[str, str]], int]:
    """The series, the cells with several conditions, and how many cells were carried from tree to tree.

    A cell whose processes took the same samples as in an earlier tree was not measured again. It would count as a step
    of nothing, and many of these would hide how much trees differ.
    """
    points: dict[tuple[str, Conditions], list[Point]] = {}
    taken: dict[tuple[str, Conditions], set[bytes]] = {}
    carried = 0
    for name, measured in trees:
        conditions = _conditions(measured)
        for cell in measured.cells:
            series = (cell.name, conditions.get(cell.key, ()))
            samples, before = set(map(_digest, cell.groups)), taken.setdefault(series, set())
            if samples & before:  # of the same processes; some may be lost of either
                carried += 1
            else:
                before |= samples
                points.setdefault(series, []).append(Point(name, cell, measured))
    done = [Series(name, equal, tuple(each)) for (name, equal), each in points.items()]
    several: dict[str, list[Series]] = {}
    for one in done:
        several.setdefault(one.name, []).append(one)
    apart = [(name, _what_differs(same)) for name, same in several.items() if len(same) > 1]
    return done, apart, carried


def _digest(samples: NDArray[np.int64]) -> bytes:
    return hashlib.blake2b(samples.tobytes(), digest_size=16).digest()


def _what_differs(series: Sequence[Series]) -> str:
    known = [dict(one.conditions) for one in series]
    names = dict.fromkeys(name for each in known for name in each)
    values = {name: dict.fromkeys(each.get(name, "not recorded") for each in known) for name in names}
    return "; ".join(f"{name}: {', '.join(each)}" for name, each in values.items() if len(each) > 1)


def _conditions(measured: Measured) -> dict[tuple[str, ...], Conditions]:
    """By the key of a cell: what its records say of where it ran, several values of its processes in one text."""
    runs = measured.tables.runs
    keys = list(zip(*(runs[name] for name in KEY), strict=True))
    values: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for column, read in (("environment", _of_environment), ("gpu", _of_gpu)):
        texts = runs[column] if column in runs else pd.Series(dtype=object)
        known = {text: dict(read(json.loads(text))) for text in texts.dropna().unique()}
        for key, text in zip(keys, texts, strict=False):
            for name, value in known.get(text, {}).items():
                values.setdefault(key, {}).setdefault(name, set()).add(value)
    return {
        key: tuple((name, ", ".join(sorted(each))) for name, each in sorted(facts.items()))
        for key, facts in values.items()
    }


def _of_environment(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for section in ("gpu", "host", "threads"):
        for key, value in (record.get(section) or {}).items():
            name = f"{section} {key}"
            if value is not None and (section == "host" or name in CONDITIONS):
                yield name, _text(value)


def _of_gpu(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, key in (("gpu power limit, W", "power_limit_w"), ("gpu largest SM clock, MHz", "max_sm_mhz")):
        if record.get(key) is not None:
            yield name, _text(record[key])


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
