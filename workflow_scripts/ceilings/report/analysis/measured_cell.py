"""A measured cell, and two of them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.statistics.estimands import Estimand
from ceilings.statistics.intervals import Verdict
from ceilings.statistics.quantiles import Interval
from ceilings.workload.shape import Shape

REFERENCE = "fp32"
"""The precision that others are held against."""

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

    @property
    def batch(self) -> int:
        """Inputs at once."""
        return self.shape.batch

    def axis(self, name: str) -> int:
        """Its size along an axis that its shape has."""
        return self.shape[name]

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
class Comparison:
    """Latency of ``a`` over that of ``b``; below 1: a is faster."""

    a: Cell
    b: Cell
    ratio: Interval
    verdict: Verdict
    floor: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the estimate alone lies beyond the noise floor, whatever its interval."""
        return abs(math.log(self.ratio.estimate)) > math.log1p(self.floor)


@dataclass(frozen=True)
class AAPair:
    """One cell measured twice under two names."""

    cell: Cell
    second: Cell
    ratio: Interval
    floor: float


def carries(groups: Groups, estimand: Estimand) -> bool:
    """Whether there are iterations enough for the estimand."""
    return sum(map(len, groups)) >= estimand.samples


def configuration_label(runtime: str, precision: str) -> str:
    """Runtime and precision; a runtime that has one precision, and a lower one, is not made to name it."""
    known = RUNTIMES.get(runtime)
    alone = known is not None and known.precisions == (precision,) and precision != REFERENCE
    return runtime if alone else f"{runtime} {precision}"


def without_axis(shape: Shape, axis: str) -> Shape:
    """The rest of a shape: what stays the same along an axis."""
    return Shape(tuple(item for item in shape.sizes if item[0] != axis), shape.lengths)


def group_by(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Items by key, keys in the order they first come."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
