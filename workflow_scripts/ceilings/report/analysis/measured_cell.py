"""A measured cell, and two of them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ceilings.statistics.estimands import Estimand
from ceilings.statistics.intervals import Verdict
from ceilings.statistics.quantiles import Interval

T = TypeVar("T")
Groups = tuple[NDArray[np.int64], ...]
Shape = tuple[int, int]
"""Batch and sequence."""


@dataclass(frozen=True)
class Cell:
    """A cell that was measured.

    Attributes:
        row: The cell's row of the table, for what is only shown.
        groups: Latencies in ns, one array a process.
    """

    device: str
    runtime: str
    model: str
    precision: str
    batch: int
    sequence: int
    twin_of: str | None
    row: dict[str, Any] = field(compare=False, repr=False)
    groups: Groups = field(compare=False, repr=False)

    @property
    def shape(self) -> Shape:
        return self.batch, self.sequence

    @property
    def size(self) -> str:
        """The shape in short: b1-s128."""
        return f"b{self.batch}-s{self.sequence}"

    @property
    def configuration(self) -> tuple[str, str]:
        return self.runtime, self.precision

    @property
    def label(self) -> str:
        return configuration_label(self.runtime, self.precision)

    @property
    def name(self) -> str:
        """As a path would name it; unique within a study."""
        return f"{self.device}/{self.runtime}/{self.model}/{self.precision}/{self.size}"

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
class TwinPair:
    """One cell measured twice under two names."""

    cell: Cell
    twin: Cell
    ratio: Interval
    floor: float


def carries(groups: Groups, estimand: Estimand) -> bool:
    """Whether there are iterations enough for the estimand."""
    return sum(map(len, groups)) >= estimand.samples


def configuration_label(runtime: str, precision: str) -> str:
    """A runtime that names its precision is not made to say it twice."""
    return runtime if precision in runtime.split("-") else f"{runtime} {precision}"


def group_by(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Items by key, keys in the order they first come."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
