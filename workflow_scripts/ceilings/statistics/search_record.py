"""What a record of a search for the best batch (kind ``best-batch``) says: its limit, and its batches as measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from ceilings.statistics.limit_search import Measured, timed

NS_PER_MS = 1e6


def share_of(percentile: str) -> float:
    """A percentile as a share.

    >>> share_of("p50"), share_of("p99")
    (0.5, 0.99)
    """
    return int(percentile[1:]) / 100


def limit_ms(search: Any, steps: Any) -> float:
    """The limit; one of so many times the smallest batch's latency follows from its first measurement.

    That is an estimate with an interval of its own, which the verdicts leave out: the limit is what it gives.
    """
    if search["limit_ms"] is not None:
        return float(search["limit_ms"])
    if steps[0]["status"] != "ok":
        return float("inf")  # nothing is judged by it
    first = timed(steps[0]["batch"], _groups(steps[0]), float("inf"))
    assert first.latency is not None
    return float(search["limit_times"] * first.latency.estimate)


def measured(search: Any, steps: Any) -> list[Measured]:
    """Each step, in their order: the batches, and last, where there is a best one, that once more."""
    limit = limit_ms(search, steps) if steps else 0.0
    return [judged(search, step, limit) for step in steps]


def judged(search: Any, step: Any, limit: float) -> Measured:
    """One step by the limit."""
    if step["status"] != "ok":
        return Measured(step["batch"], "fails")
    return timed(step["batch"], _groups(step), limit, share_of(search["percentile"]))


def _groups(step: Any) -> list[Any]:
    return [np.asarray(run["latency_ns"], float) / NS_PER_MS for run in step["runs"]]
