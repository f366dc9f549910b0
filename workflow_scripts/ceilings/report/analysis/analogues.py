"""The same change on other cells of the study, and what it says of a cell.

An analogue has the stack of the cell and differs in a few things: the model, the shape, other levers, the precision.
The farther it is, the wider the range that it gives. Where its work is larger or smaller, it bounds some changes from
one side only: the more the device has to do, the less a batch or a CUDA graph brings, and the more a lower precision.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ceilings.report.analysis.change_bounds import NARROWEST, Bounds
from ceilings.report.analysis.changes import BATCH, PRECISION, STACK, Change, change_between, host_share, work_ratio
from ceilings.report.analysis.measured import Cell, Measured, group_by, without_axis
from ceilings.runtimes.catalogue import GRAPH
from ceilings.statistics.quantiles import Interval

MOST = 3
"""So many of the nearest analogues make a range."""

SPREAD, FARTHER, ALONE, HOSTS = 0.06, 0.10, 0.06, 0.12
"""What a range has beyond its analogues on each side, in logarithms: always, for each thing in which they differ from
the cell, where there is only one, and where the host makes the latency: hosts vary from cell to cell."""

FAR = 4.0
"""An analogue that differs in more things says nothing."""

TRUSTED = 0.4
"""An interval wider than this on one side, in logarithms, widens a range no further."""

SAME_WORK = 1.25
"""Work that differs by no more than this is the same."""

FLOATS = {"tf32", "fp16", "bf16"}
"""Lower precisions without nodes that quantise."""

HOST_BOUND = 0.9
"""The host's share from which on it makes the latency."""

Side = Literal["both", "below", "above"]


@dataclass(frozen=True)
class Analogue:
    """The same change elsewhere.

    Attributes:
        distance: In how many things it differs; the host's shares count by how far they are apart.
        side: From which sides it bounds the ratio.
    """

    before: Cell
    after: Cell
    ratio: Interval
    distance: float
    side: Side


def analogues(measured: Measured, base: Cell, change: Change) -> list[Analogue]:
    """The nearest on the device; for a side that only others bound, the nearest of these."""
    candidates = []
    for before, after in _pairs(measured, base.device, change):
        if before.phase != base.phase:
            continue
        distance = _distance(base, before, change)
        if distance <= FAR and before.stack == base.stack:
            ratio = measured.compare(after, before).ratio.scaled(before.batch / after.batch)
            candidates.append(Analogue(before, after, ratio, distance, _side(measured, base, before, change)))
    candidates.sort(key=lambda one: (one.distance, one.before.key))
    both = [one for one in candidates if one.side == "both"][:MOST]
    return both + [one for side in ("below", "above") for one in [each for each in candidates if each.side == side][:1]]


def narrowed(limits: Bounds, base: Cell, known: Sequence[Analogue], change: Change) -> tuple[float, float] | None:
    """The hull of the analogues within the bounds; None where they contradict these."""
    low, high = limits.low, limits.high
    if both := [_range(base, one, change, alone=len(known) == 1) for one in known if one.side == "both"]:
        low, high = max(low, min(low for low, _ in both)), min(high, max(high for _, high in both))
    for one in known:
        ends = _range(base, one, change, alone=len(known) == 1)
        low = max(low, ends[0]) if one.side == "below" and ends[0] < high else low
        high = min(high, ends[1]) if one.side == "above" and ends[1] > low else high
    if low >= high:
        return None
    short = max(0.0, math.log(NARROWEST) - math.log(high / low)) / 2
    return low * math.exp(-short), high * math.exp(short)


def _range(base: Cell, one: Analogue, change: Change, *, alone: bool) -> tuple[float, float]:
    share = host_share(base)
    hosts = HOSTS if share is not None and share > HOST_BOUND and change.kind != PRECISION else 0.0
    half = SPREAD + FARTHER * one.distance + (ALONE if alone else 0.0) + hosts
    middle = math.log(one.ratio.estimate)
    below = min(TRUSTED, middle - math.log(one.ratio.low)) if one.ratio.low > 0 else TRUSTED
    above = min(TRUSTED, math.log(one.ratio.high) - middle) if math.isfinite(one.ratio.high) else TRUSTED
    ends = [middle - max(half, below), middle + max(half, above)]
    if change.kind == GRAPH and one.side == "both":
        # The device's time stays the same where only the host differs.
        after = math.log(one.after.p50.estimate / base.p50.estimate)
        ends += [after - half, after + half] if one.before.model == base.model else []
    return math.exp(min(ends)), math.exp(max(ends))


def _side(measured: Measured, base: Cell, other: Cell, change: Change) -> Side:
    """The more the device has to do, the less a batch or a graph brings, and the more smaller floats."""
    more_brings_more = change.after in FLOATS and host_share(base) is not None
    work = work_ratio(measured, other, base)
    if not (change.kind in {BATCH, GRAPH} or more_brings_more) or work is None or 1 / SAME_WORK <= work <= SAME_WORK:
        return "both"
    return "below" if (work < 1) != more_brings_more else "above"


def _pairs(measured: Measured, device: str, change: Change) -> Iterator[tuple[Cell, Cell]]:
    """Every two cells of one model on the device that differ in just this change."""
    if change.kind != BATCH:
        yield from _pairs_at_a_shape(measured).get((device, change), ())
        return
    for before in measured.cells:
        if before.device == device and before.shape.get(BATCH):
            grown = before.shape.with_sizes(batch=round(before.batch * float(change.after)))
            after = measured.find(before, shape=grown)
            if after and change_between(before, after) == change:
                yield before, after


@functools.lru_cache(maxsize=2)
def _pairs_at_a_shape(measured: Measured) -> dict[tuple[str, Change], list[tuple[Cell, Cell]]]:
    """Every two cells of a panel and a shape that differ in one change, by device and change."""
    pairs: dict[tuple[str, Change], list[tuple[Cell, Cell]]] = {}
    for (device, _), panel in measured.panels.items():
        for cells in group_by(panel, lambda cell: cell.shape).values():
            for before, after in itertools.permutations(cells, 2):
                if change := change_between(before, after):
                    pairs.setdefault((device, change), []).append((before, after))
    return pairs


def _distance(base: Cell, other: Cell, change: Change) -> float:
    apart = float(base.model != other.model)
    apart += float(without_axis(base.shape, BATCH) != without_axis(other.shape, BATCH))
    apart += abs(math.log2(base.batch / other.batch)) / 2
    apart += len(base.levers ^ other.levers)
    apart += 0 if change.kind == PRECISION else 2 * float(base.precision != other.precision)
    here, there = host_share(base), host_share(other)
    if here is not None and there is not None and change.kind != STACK:
        apart += 6 * abs(here - there)
    return apart
