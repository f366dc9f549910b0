"""When a warm-up is over and when enough has been measured. Pure functions of numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ceilings.statistics.quantiles import quantile_interval

NS = 1_000_000_000
WINDOW_NS = 50_000_000
"""A warm-up is judged by the medians of windows of at least this length (or one iteration, if that is longer)."""

STABLE_FRACTION = 0.05
"""Two windows whose medians differ by no more than this lie on a plateau."""

MAX_ITERATIONS = 200_000
"""Bounds the memory and the size of a record; 20 s of a 0.1 ms cell."""

FEWEST_REQUESTS = 3
"""Requests of a series of them, however slow."""

SECONDARY_SHARE = 0.25
"""Part of the main series' minimum and maximum time that each further series gets."""

SECONDARY_WARMUP_SECONDS = 0.05
"""Warm-up of a further series: clocks are up already, only its path is new."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How one process measures one cell; the fields are those of the study's ``protocol``."""

    warmup_seconds: float
    warmup_max_seconds: float
    min_iterations: int
    min_seconds: float
    max_seconds: float
    precision: float
    saturated_seconds: float
    concurrency: int
    time_limit_seconds: float

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Protocol:
        """Of a slice of the study."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    def stop_reason(self, latencies_ns: Sequence[int], elapsed_ns: int) -> str | None:
        """Why to stop now: ``precise``, ``time-cap`` or ``iteration-cap``; None to go on.

        Precise: enough iterations and time, and the median's 95% interval reaches no more than ``precision`` of the
        median to either side on average.
        """
        if len(latencies_ns) < self.min_iterations:
            return None
        if elapsed_ns >= self.min_seconds * NS:
            interval = quantile_interval(np.asarray(latencies_ns), 0.5)
            if interval is not None and interval.half_width_fraction <= self.precision:
                return "precise"
        if elapsed_ns >= self.max_seconds * NS:
            return "time-cap"
        if len(latencies_ns) >= MAX_ITERATIONS:
            return "iteration-cap"
        return None

    def warm(self, latencies_ns: Sequence[int]) -> bool:
        """Whether the last two windows lie on a plateau and at least ``warmup_seconds`` have passed."""
        if sum(latencies_ns) < self.warmup_seconds * NS:
            return False
        last, rest = _last_window(latencies_ns)
        before, _ = _last_window(rest)
        if not last or not before:
            return False
        a, b = float(np.median(last)), float(np.median(before))
        return abs(a - b) <= STABLE_FRACTION * min(a, b)


def secondary(protocol: Protocol) -> Protocol:
    """The protocol of the series beside the main one: the same stop rule within ``SECONDARY_SHARE`` of its time."""
    return dataclasses.replace(
        protocol,
        warmup_seconds=min(protocol.warmup_seconds, SECONDARY_WARMUP_SECONDS),
        warmup_max_seconds=max(SECONDARY_WARMUP_SECONDS, protocol.warmup_max_seconds * SECONDARY_SHARE),
        min_iterations=max(2, min(protocol.min_iterations, round(protocol.min_iterations * SECONDARY_SHARE))),
        min_seconds=protocol.min_seconds * SECONDARY_SHARE,
        max_seconds=protocol.max_seconds * SECONDARY_SHARE,
    )


def _last_window(latencies_ns: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    total, start = 0, len(latencies_ns)
    while start and total < WINDOW_NS:
        start -= 1
        total += latencies_ns[start]
    return latencies_ns[start:], latencies_ns[:start]
