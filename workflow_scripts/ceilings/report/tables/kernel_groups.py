"""The counted kernels of a cell, launches of the same kernel together."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Kernel = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Group:
    """Launches of one kernel at one grid and one block size.

    Attributes:
        launches: As the record has them.
        share: Part of the time of all kernels (0 to 1).
    """

    launches: Sequence[Kernel]
    share: float

    @property
    def first(self) -> Kernel:
        """The launch that took longest, which stands for the others."""
        return max(self.launches, key=lambda kernel: kernel["duration_ns"] or 0)

    @property
    def duration_ns(self) -> float:
        """Of all launches together."""
        return sum(kernel["duration_ns"] or 0 for kernel in self.launches)

    @property
    def operations(self) -> float:
        """Of all launches together, of every type."""
        return sum(sum(kernel["operations"].values()) for kernel in self.launches)

    def bytes(self, level: str) -> float | None:
        """That all launches move at a level; None where one has no counter of it."""
        moved = [kernel["levels"][level]["bytes"] for kernel in self.launches]
        return None if None in moved else sum(moved)

    @property
    def verdict(self) -> str:
        """What limits most of its time."""
        times: dict[str, float] = defaultdict(float)
        for kernel in self.launches:
            times[kernel["verdict"]] += kernel["duration_ns"] or 0
        return max(times, key=lambda name: times[name])


def groups(record: Mapping[str, Any]) -> list[Group]:
    """The kernels of a record of kind ``kernel-limits``, what takes longest first."""
    together: dict[tuple[Any, ...], list[Kernel]] = defaultdict(list)
    for kernel in record["kernels"]:
        together[kernel["name"], tuple(kernel["grid"]), tuple(kernel["block"])].append(kernel)
    whole = sum(kernel["duration_ns"] or 0 for kernel in record["kernels"]) or 1.0
    made = [Group(launches, sum(one["duration_ns"] or 0 for one in launches) / whole) for launches in together.values()]
    return sorted(made, key=lambda group: -group.share)
