"""Iterations of like work: groups, and trends within them."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ceilings.traces.explained.submissions import Hashes

Integers = NDArray[np.int64]

MOST = 8
"""So many groups at most; the last one then holds all others."""

LIKE = 0.95
"""Iterations that share this part of their kernels are of one group."""

GAP = 0.1
"""A gap between sorted lengths splits a group only if it is this share of the length before it."""

GROWTH = 0.05
"""A trend is worth a word from this change on."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Iterations that do the same.

    Attributes:
        label: What they have in common: ``412 kernels``, ``412 kernels, 3.1 to 3.3 ms of work``.
        count: How many there are.
        trend: How their lengths change in their order, in words; None where they do not.
        others: Whether they have nothing in common but that they fit no other group.
    """

    label: str
    count: int
    trend: str | None = None
    others: bool = False


@dataclasses.dataclass(frozen=True)
class Work:
    """What each iteration launched.

    Attributes:
        content: Hash of the kernels.
        kernels: How many.
        busy: Sum of the lengths of its operations, in ns.
        counts: Function of an iteration's index to the counts of its kernels, an array by kernel.
    """

    content: Hashes
    kernels: Integers
    busy: Integers
    owner: Integers
    symbol: Integers
    weight: Integers

    def counts(self, iteration: int) -> dict[int, int]:
        """How often each kernel occurs in an iteration. ``owner`` is ascending."""
        low, high = np.searchsorted(self.owner, [iteration, iteration + 1])
        symbols, inverse = np.unique(self.symbol[low:high], return_inverse=True)
        times = np.bincount(inverse, self.weight[low:high], len(symbols))
        return dict(zip(symbols.tolist(), times.tolist(), strict=True))


def shared(one: dict[int, int], other: dict[int, int]) -> float:
    """The part of their kernels that two iterations share."""
    both = sum(min(times, other.get(symbol, 0)) for symbol, times in one.items())
    return both / max(sum(one.values()), sum(other.values()), 1)


def groups(work: Work, length: Integers) -> tuple[Integers, tuple[Group, ...]]:
    """The group of each iteration, and the groups, those of most iterations first.

    Args:
        length: Of each iteration, in ns.
    """
    if not len(length):
        return np.empty(0, np.int64), ()
    of_content = _by_kernels(work)
    parts = []
    for number in np.unique(of_content):
        parts += _by_length(np.flatnonzero(of_content == number), work.busy)
    parts.sort(key=lambda part: (-len(part), int(part[0])))
    rest = parts[MOST - 1 :] if len(parts) > MOST else []
    parts = parts[: MOST - 1] if rest else parts
    group = np.full(len(length), len(parts), np.int64)
    for number, part in enumerate(parts):
        group[part] = number
    kernels = [_label_kernels(work.kernels[part]) for part in parts]
    made = []
    for number, part in enumerate(parts):
        label = kernels[number]
        if kernels.count(label) > 1:
            label += f", {_milliseconds(work.busy[part])} of work"
        made.append(Group(label, len(part), _trend(part, group, length)))
    labels = [one.label for one in made]
    made = [
        dataclasses.replace(one, label=f"{one.label} ({labels[:number].count(one.label) + 1})")
        if labels.count(one.label) > 1
        else one
        for number, one in enumerate(made)
    ]
    if rest:
        made.append(Group(f"others: {len(rest)} kinds of iterations", sum(map(len, rest)), None, True))
    return group, tuple(made)


def _by_kernels(work: Work) -> Integers:
    """A number for each iteration: the same for those that share nearly all their kernels."""
    values, first, inverse, times = np.unique(work.content, return_index=True, return_inverse=True, return_counts=True)
    heads: list[tuple[int, dict[int, int]]] = []
    number = np.zeros(len(values), np.int64)
    for one in np.lexsort((first, -times)):
        counts = work.counts(int(first[one]))
        near = next((head for head, known in heads if shared(counts, known) >= LIKE), None)
        if near is None and len(heads) >= 50:
            near = heads[-1][0]  # beyond so many kinds they are "others" in any case
        if near is None:
            near = len(heads)
            heads.append((near, counts))
        number[one] = near
    return number[inverse]


def _by_length(part: Integers, busy: Integers) -> list[Integers]:
    """A group, split where the work on the device is clearly longer: the gap exceeds the spread on both sides."""
    order = part[np.argsort(busy[part], kind="stable")]
    sorted_busy = busy[order].astype(np.float64)
    if len(order) < 3:
        return [part]
    gap = np.diff(sorted_busy)
    at = int(np.argmax(gap))
    low, high = sorted_busy[: at + 1], sorted_busy[at + 1 :]
    spread = max(low[-1] - low[0], high[-1] - high[0])
    clear = gap[at] > spread and gap[at] > GAP * low[-1]
    if min(len(low), len(high)) == 1:
        clear = clear and high[0] > 1.5 * low[-1]
    if not clear:
        return [part]
    return _by_length(np.sort(order[: at + 1]), busy) + _by_length(np.sort(order[at + 1 :]), busy)


def _label_kernels(kernels: Integers) -> str:
    low, high = int(kernels.min()), int(kernels.max())
    return f"{low:,} kernels" if low == high else f"{low:,} to {high:,} kernels"


def _milliseconds(busy: Integers) -> str:
    low, high = busy.min() / 1e6, busy.max() / 1e6
    return f"{low:.3g} ms" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} ms"


def _trend(part: Integers, group: Integers, length: Integers) -> str | None:
    """How lengths grow, or shrink, from one iteration to the next; each run between other iterations begins anew."""
    if len(part) < 8:
        return None
    breaks = np.diff(part, prepend=part[0] - 2) != 1
    start = np.maximum.accumulate(np.where(breaks, np.arange(len(part)), 0))
    place = (np.arange(len(part)) - start).astype(np.float64)
    if place.max() < 4:
        place = np.arange(len(part), dtype=np.float64)
    values = length[part].astype(np.float64)
    agreement = float(np.corrcoef(place, _ranks(values))[0, 1])
    if abs(agreement) < 0.8:
        return None
    edge = np.quantile(place, [0.1, 0.9])
    first, last = np.median(values[place <= edge[0]]), np.median(values[place >= edge[1]])
    if abs(last / first - 1) < GROWTH:
        return None
    return f"they {'grow' if last > first else 'shrink'} from {first / 1e6:.3g} to {last / 1e6:.3g} ms in their order"


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place of each value among all, from 0."""
    return np.argsort(np.argsort(values, kind="stable")).astype(np.float64)
