"""The best batch under a latency limit, from few measurements. Pure functions of numbers.

Candidates are the sizes ``multiple``, ``2 * multiple`` and so on up to ``most``. A larger batch seldom takes less time,
while throughput goes up and down with tiles, waves and caches. So the limit is searched, and the throughput looked at:

1. Sizes double until one does not keep the limit.
2. Between the largest that keeps it and the next one measured the middle is measured, until they are neighbours.
3. Multiples of 8 and 16 up to the largest that keeps the limit are measured: kernels like them.
4. Sizes that the intervals leave undecided are closed in from above too.
5. The neighbour above the smallest that exceeds the limit is measured: a single slow size hides none behind it. If it
   keeps the limit, the search goes on above it.

No size is measured twice, and no search measures more than :func:`most_measurements`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from numpy.typing import ArrayLike

from ceilings.statistics.intervals import median_over_processes, pooled_quantile
from ceilings.statistics.quantiles import Interval

MEDIAN = 0.5

Verdict = Literal["keeps", "exceeds", "undecided", "fails"]
"""What a batch does with the limit: its whole interval is below, or above; or it does not run at all."""

Bound = Literal["limit", "throughput", "most", "failure", "undecided"]

WITHOUT: Mapping[Verdict, Bound] = {"exceeds": "limit", "fails": "failure", "undecided": "undecided", "keeps": "limit"}
"""What bounds a search of which no batch keeps the limit and none is undecided, by its smallest batch."""

LIKED = (8, 16)
"""Multiples that kernels like."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A batch that was measured.

    Attributes:
        verdict: What it does with the limit.
        latency: Median latency in ms; None where it does not run.
        judged: The percentile that is held against the limit; None where its iterations do not carry that.
    """

    batch: int
    verdict: Verdict
    latency: Interval | None = None
    judged: Interval | None = None

    @property
    def throughput(self) -> Interval:
        """Inputs a second, one batch after another: batch over median latency."""
        if self.latency is None:
            raise ValueError(f"batch {self.batch} was not timed")
        return self.latency.inverted(self.batch * 1e3)


def timed(batch: int, groups: Sequence[ArrayLike], limit: float, q: float = 0.5) -> Measured:
    """A batch by the latencies of its processes.

    Args:
        groups: Latencies in ms, an array a process.
        limit: In ms.
        q: The percentile that must keep the limit, as a share. The median is that of the processes' medians, others are
            of all iterations together.
    """
    latency = median_over_processes(groups)
    judged = latency if q == MEDIAN else pooled_quantile(groups, q)
    return Measured(batch, verdict(judged, limit), latency, judged)


def verdict(latency: Interval | None, limit: float) -> Verdict:
    """What a latency does with a limit in its unit; None is one that its iterations do not carry."""
    if latency is None:
        return "undecided"
    if latency.high <= limit:
        return "keeps"
    return "exceeds" if latency.low > limit else "undecided"


def most_measurements(most: int, multiple: int = 1) -> int:
    """How many batches a search measures at most, the second measurement of its answer included.

    >>> most_measurements(256), most_measurements(256, 8), most_measurements(1)
    (20, 14, 4)
    """
    return 2 * math.ceil(math.log2(most // multiple)) + 4


def next_batch(seen: Mapping[int, Verdict], most: int, multiple: int = 1) -> int | None:
    """The batch to measure next; None where the search is over.

    Args:
        seen: What each batch that was measured does with the limit.
        most: The largest batch.
        multiple: Of which every batch is a multiple.
    """
    if len(seen) >= most_measurements(most, multiple) - 1:
        return None
    steps = {batch // multiple: what for batch, what in seen.items()}
    step = _next(steps, most // multiple, multiple)
    return None if step is None else step * multiple


def _next(seen: Mapping[int, Verdict], count: int, multiple: int) -> int | None:
    lower, undecided, upper = edges(seen)
    top = max(seen, default=0)
    if upper is None and top < count:
        return min(count, 2 * top or 1)
    first = min([*undecided, *([upper] if upper else [])], default=lower)
    if first - lower > 1:
        return (lower + first) // 2
    liked = (lower * multiple // grain * grain for grain in LIKED)
    for batch in liked:
        if batch and batch % multiple == 0 and batch // multiple not in seen:
            return batch // multiple
    if undecided and upper and upper - undecided[-1] > 1:
        return (undecided[-1] + upper) // 2
    if upper and upper < count and seen[upper] == "exceeds" and upper + 1 not in seen:
        return upper + 1
    return None


def edges(seen: Mapping[int, Verdict]) -> tuple[int, list[int], int | None]:
    """The largest batch that keeps the limit (0: none), the undecided ones above it, and the smallest above that does
    not keep it (None: none was measured)."""
    lower = max((batch for batch, what in seen.items() if what == "keeps"), default=0)
    upper = min((batch for batch, what in seen.items() if batch > lower and what in ("exceeds", "fails")), default=None)
    between = sorted(
        batch for batch, what in seen.items() if what == "undecided" and lower < batch and (not upper or batch < upper)
    )
    return lower, between, upper


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a search says.

    Attributes:
        best: The batch of the highest throughput among those measured that keep the limit; None: none keeps it.
        largest: The largest batch that keeps the limit; 0: none.
        undecided: First and last batch above that which are undecided or were not measured; None: there are none.
        exceeds: The smallest batch above these that does not keep the limit; None: none was measured.
        outliers: Smaller batches than ``largest`` that do not keep the limit.
        level_from: The smallest batch that keeps the limit and whose throughput is not below the best's: their
            intervals overlap.
        bounded_by: What keeps the throughput from growing: ``limit`` (a larger batch has more), ``throughput`` (no
            larger batch that was measured has), ``most`` (a larger batch was not asked for), ``failure`` (a larger one
            does not run), or ``undecided`` (a larger batch has more, and may keep the limit).
        unseen: No batch up to ``largest`` that was not measured has more than so many times the best's throughput, if
            no larger batch takes less time.
    """

    best: int | None
    largest: int
    undecided: tuple[int, int] | None
    exceeds: int | None
    outliers: tuple[int, ...]
    level_from: int | None
    bounded_by: Bound
    unseen: float = 1.0


def answer(measured: Sequence[Measured], most: int, multiple: int = 1) -> Answer:
    """The answer of a search, whether it is over or not.

    Args:
        measured: Each batch once, at least one.
        most, multiple: As the search had them.
    """
    ordered = sorted(measured, key=lambda one: one.batch)
    largest, _, upper = edges({one.batch: one.verdict for one in ordered})
    last = most // multiple * multiple if upper is None else upper - multiple
    undecided = (largest + multiple, last) if last > largest else None
    outliers = tuple(one.batch for one in ordered if one.batch < largest and one.verdict in ("exceeds", "fails"))
    keeping = [one for one in ordered if one.verdict == "keeps"]
    if not keeping:
        bound = "undecided" if any(one.verdict == "undecided" for one in ordered) else WITHOUT[ordered[0].verdict]
        return Answer(None, 0, undecided, upper, (), None, bound)
    best = max(keeping, key=lambda one: one.throughput.estimate)
    level = next(one.batch for one in keeping if one.throughput.high >= best.throughput.low)
    larger = [one for one in ordered if one.batch > best.batch]
    return Answer(
        best.batch, largest, undecided, upper, outliers, level, _bound(best, larger), _unseen(keeping, best, multiple)
    )


def _bound(best: Measured, larger: Sequence[Measured]) -> Bound:
    timed = [one for one in larger if one.latency is not None]
    if more := {one.verdict for one in timed if one.throughput.low > best.throughput.high}:
        return "limit" if "exceeds" in more else "undecided"
    if timed:
        return "throughput"
    return "failure" if larger else "most"


def _unseen(keeping: Sequence[Measured], best: Measured, multiple: int) -> float:
    """A batch between two that were measured has fewer inputs than the larger and takes as long as the smaller."""
    between = (
        low.throughput.estimate * (high.batch - multiple) / low.batch / best.throughput.estimate
        for low, high in itertools.pairwise(keeping)
        if high.batch - low.batch > multiple
    )
    return max(1.0, *between, 1.0)
