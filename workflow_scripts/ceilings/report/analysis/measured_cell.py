"""A measured cell, and two of them side by side."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ceilings.report.analysis.stack_levers import base_levers
from ceilings.runtimes.catalogue import PYTORCH, RUNTIMES
from ceilings.statistics.decisions import equivalence_interval
from ceilings.statistics.estimands import P50, Estimand
from ceilings.statistics.intervals import Verdict, ratio
from ceilings.statistics.levels import log_bounds, widened
from ceilings.statistics.quantiles import Interval
from ceilings.workload import generation
from ceilings.workload.shape import Shape

REFERENCE = "fp32"
"""The precision that others are held against."""

GENERATED = "generated"
"""The axis of generated tokens: nothing is compared along it, since its size 1 is the other phase."""

T = TypeVar("T")
Groups = tuple[NDArray[np.int64], ...]


@dataclass(frozen=True)
class Cell:
    """A cell that was measured.

    Attributes:
        stack, levers, artifact: What its runtime is: what executes, what is done to it, what it executes.
        aa_of: The runtime that it repeats, where it is the second cell of an A/A pair.
        row: The cell's row of the table, for what is only shown.
        groups: Latencies in ns, one array a process.
    """

    device: str
    runtime: str
    model: str
    precision: str
    shape: Shape
    stack: str
    levers: frozenset[str]
    artifact: str
    aa_of: str | None
    row: dict[str, Any] = field(compare=False, repr=False)
    groups: Groups = field(compare=False, repr=False)

    @property
    def key(self) -> tuple[str, ...]:
        """What names it in every table."""
        return self.device, self.runtime, self.model, self.precision, str(self.shape)

    @functools.cached_property
    def level_bounds(self) -> tuple[float, float]:
        """Logarithms of how far its median could lie lower and higher, had no process changed its level."""
        return log_bounds(self.groups)

    @property
    def batch(self) -> int:
        """Inputs at once."""
        return self.shape.batch

    def axis(self, name: str) -> int:
        """Its size along an axis that its shape has."""
        return self.shape[name]

    @property
    def phase(self) -> generation.Phase | None:
        """What an iteration of a generating model is, a prefill or a decode step; None of every other model.

        Nothing is compared across phases: their work, their floors and what bounds them differ.
        """
        return phase_of(self.shape)

    @property
    def unit(self) -> str:
        """What a row of an iteration's batch gives: a token of a generating model, else an inference."""
        return "token" if self.phase else "inference"

    @property
    def per(self) -> str:
        """What its latency is of, to stand behind the milliseconds; empty of a model that answers at once."""
        return {"prefill": " to the first token", "decode": " per output token"}.get(self.phase or "", "")

    @property
    def per_unit(self) -> str:
        """What latency over batch is of. A step gives each row a token: it is less than the time per output token."""
        return " per token of all rows" if self.phase else " per inference"

    @property
    def volume(self) -> int:
        """Product of its sizes: in the order of the work, but not in its proportion."""
        return math.prod(size for _, size in self.shape.sizes)

    @property
    def configuration(self) -> tuple[str, str]:
        """Runtime and precision."""
        return self.runtime, self.precision

    @property
    def label(self) -> str:
        """Runtime and precision in words."""
        return configuration_label(self.runtime, self.precision)

    @property
    def name(self) -> str:
        """As a path would name it; unique within a study."""
        return "/".join(self.key)

    @property
    def as_it_is(self) -> bool:
        """Whether no lever was pulled on its stack but the precision."""
        return self.levers == base_levers(self.stack)

    @property
    def is_eager(self) -> bool:
        """Whether PyTorch runs it operator by operator, with the weights as they are."""
        return self.stack == PYTORCH and not self.levers and not lower_precisions_only(self.runtime)

    @property
    def submits(self) -> bool:
        """Whether the time in which its host submits work is known."""
        return bool(pd.notna(self.row["enqueue_p50_ms"]))

    @property
    def p50(self) -> Interval:
        """Median latency over processes in ms."""
        low, high = self.row["p50_low_ms"], self.row["p50_high_ms"]
        bounded = pd.notna(low) and pd.notna(high)
        return Interval(low if bounded else 0.0, self.row["p50_ms"], high if bounded else math.inf)

    @property
    def p50_per_inference(self) -> Interval:
        """Median latency over batch, in ms."""
        return self.p50.scaled(1 / self.batch)


@dataclass(frozen=True)
class Judged:
    """A ratio of latencies with the verdict on it.

    Attributes:
        floor: Noise floor that it was held against, a fraction; None without an A/A pair, infinite if each cell of the
            pair has one process only. Both are unknown floors: without a pair the interval alone decides.
    """

    ratio: Interval
    verdict: Verdict
    floor: float | None

    @property
    def decided(self) -> bool:
        """Whether it is a difference."""
        return self.verdict in {"faster", "slower"}

    @property
    def below_floor(self) -> bool:
        """Whether the estimate, whatever its interval, lies within a noise floor that is known."""
        if self.floor is None or not math.isfinite(self.floor):
            return False
        return abs(math.log(self.ratio.estimate)) <= math.log1p(self.floor)


@dataclass(frozen=True)
class Comparison(Judged):
    """Latency of ``a`` over that of ``b``; below 1: a is faster."""

    a: Cell
    b: Cell


@dataclass(frozen=True)
class AAPair:
    """One cell measured twice under two names."""

    cell: Cell
    second: Cell
    ratio: Interval
    floor: float


def latency_ratio(a: Cell, b: Cell, estimand: Estimand = P50) -> Interval:
    """How many times the latency of b that of a is; where processes changed their level, at any of their levels."""
    return _at_any_level(a, b, estimand, ratio(a.groups, b.groups, estimand=estimand))


def equivalence(a: Cell, b: Cell, estimand: Estimand = P50) -> Interval:
    """The same ratio with the narrower interval by which cells are called the same or different by a margin."""
    return _at_any_level(a, b, estimand, equivalence_interval(a.groups, b.groups, estimand))


def _at_any_level(a: Cell, b: Cell, estimand: Estimand, factor: Interval) -> Interval:
    # What follows from all iterations, such as a mean or a p99, has both levels in it.
    return widened(factor, [a.level_bounds, b.level_bounds], [1.0, -1.0]) if estimand is P50 else factor


def carries(groups: Groups, estimand: Estimand) -> bool:
    """Whether there are iterations enough for the estimand."""
    return sum(map(len, groups)) >= estimand.samples


def lower_precisions_only(runtime: str) -> bool:
    """Whether a runtime of the catalogue cannot run in FP32 at all."""
    known = RUNTIMES.get(runtime)
    return known is not None and REFERENCE not in known.precisions


def configuration_label(runtime: str, precision: str) -> str:
    """Runtime and precision; a runtime that has one precision, and a lower one, is not made to name it."""
    known = RUNTIMES.get(runtime)
    alone = known is not None and known.precisions == (precision,) and precision != REFERENCE
    return runtime if alone else f"{runtime} {precision}"


def phase_of(shape: Shape) -> generation.Phase | None:
    """The phase of a shape's iterations; None of a shape without generated tokens.

    >>> phase_of(Shape.parse("b1-p128-g1")), phase_of(Shape.parse("b1-s128"))
    ('prefill', None)
    """
    return generation.phase(shape) if GENERATED in shape.axes else None


def without_axis(shape: Shape, axis: str) -> Shape:
    """The rest of a shape: what stays the same along an axis."""
    return Shape(tuple(item for item in shape.sizes if item[0] != axis), shape.lengths)


def group_by(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Items by key, keys in the order they first come."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
