"""Pad to bucket: the sizes to pad requests up to, so that they take the least time in all. Pure functions of numbers.

A group holds requests that differ in one size only, such as the sequence lengths of one batch size. A bucket is one of
the group's sizes, and a request runs at the smallest chosen bucket that holds it, as servers choose. Each bucket costs
memory (a graph, an engine, buffers); the limit counts the buckets of all groups together.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

Label = tuple[int, float, float]
"""Buckets, memory and time of a choice."""


@dataclasses.dataclass(frozen=True)
class Size:
    """One size of a group.

    Attributes:
        size: Along the axis that is padded.
        count: Requests of exactly this size.
        latency: Of one request that runs at this size.
        memory: That a bucket of this size takes.
    """

    size: int
    count: int
    latency: float
    memory: float = 0.0


@dataclasses.dataclass(frozen=True)
class Choice:
    """Buckets of each group.

    Attributes:
        buckets: For each group the chosen sizes, ascending.
        time: Of all requests at their buckets.
        memory: Of all buckets.
    """

    buckets: tuple[tuple[int, ...], ...]
    time: float
    memory: float


def choose(groups: Sequence[Sequence[Size]], most: int, memory: float | None = None) -> Choice | None:
    """The buckets of the least time, by dynamic programming; of equal ones those of the least memory, then the fewest.

    A state is how far the sizes are covered. Of all ways to it only those are kept that no other one beats in number,
    memory and time at once, so that the choice is the optimum and no heuristic.

    Args:
        groups: Sizes of each group, ascending and each once.
        most: Buckets of all groups together, at most.
        memory: Memory of all of them, at most; None: any.

    Returns:
        The choice; None where no choice keeps the limits.
    """
    at: dict[Label, tuple[tuple[int, ...], ...]] = {(0, 0.0, 0.0): ()}
    for sizes in groups:
        _refuse_disorder(sizes)
        at = _extended(at, sizes, most, memory)
    if not at:
        return None
    best = min(at, key=lambda label: (label[2], label[1], label[0]))
    return Choice(at[best], best[2], best[1])


def _extended(
    at: dict[Label, tuple[tuple[int, ...], ...]], sizes: Sequence[Size], most: int, memory: float | None
) -> dict[Label, tuple[tuple[int, ...], ...]]:
    """The ways to have covered one group more."""
    counts = [0]
    for each in sizes:
        counts.append(counts[-1] + each.count)
    # ways[k]: those that cover the first k sizes of this group, the last of them a bucket (k > 0).
    ways: list[dict[Label, tuple[tuple[int, ...], ...]]] = [{label: (*chosen, ()) for label, chosen in at.items()}]
    for end in range(1, len(sizes) + 1):
        bucket = sizes[end - 1]
        made: dict[Label, tuple[tuple[int, ...], ...]] = {}
        for begin in range(end):
            time = (counts[end] - counts[begin]) * bucket.latency
            for (number, used, spent), chosen in ways[begin].items():
                label = (number + 1, used + bucket.memory, spent + time)
                if number < most and (memory is None or label[1] <= memory):
                    made.setdefault(label, (*chosen[:-1], (*chosen[-1], bucket.size)))
        ways.append(_unbeaten(made))
    return ways[-1]


def _unbeaten(ways: dict[Label, tuple[tuple[int, ...], ...]]) -> dict[Label, tuple[tuple[int, ...], ...]]:
    """Those that no other one equals or beats in all three."""
    kept: list[Label] = []
    for label in sorted(ways):
        if not any(other[1] <= label[1] and other[2] <= label[2] for other in kept):  # sorted: its number is no larger
            kept.append(label)
    return {label: ways[label] for label in kept}


def _refuse_disorder(sizes: Sequence[Size]) -> None:
    if not sizes or any(a.size >= b.size for a, b in itertools.pairwise(sizes)):
        raise ValueError("a group needs sizes, ascending and each once")


def bucket_of(size: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds a size.

    >>> bucket_of(17, (16, 32, 64))
    32
    """
    return buckets[bisect.bisect_left(buckets, size)]


def curve(groups: Sequence[Sequence[Size]], most: int, memory: float | None = None) -> Iterator[tuple[int, Choice]]:
    """The best choice for each limit on the number of buckets, up to ``most``, where there is one."""
    for number in range(len(groups), most + 1):
        if choice := choose(groups, number, memory):
            yield number, choice
