"""What a co-location is: which instances share a device, how they share it, and which of them compute in which window.

Standard library only: plans are made of it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

THREADS, PROCESSES, MPS, CARDS = "threads", "processes", "mps", "cards"

HOWS = (THREADS, PROCESSES, MPS, CARDS)
"""A thread of one process for each instance, with a session and a stream; a process for each; that under CUDA's MPS; a
process for each with a separate card of one host, so that they share the host alone."""

UNSPLIT = {MPS, CARDS}
"""Ways of GPUs alone, which have no cores to split."""

SHARED, SPLIT = "shared", "split"

CORES = (SHARED, SPLIT)
"""All instances share all cores, or each has separate cores."""

ROUNDS = 3
"""Windows of company, each between references of every instance alone."""

SETTLING_SECONDS = {"cpu": 0.1, "cuda": 0.2}
"""Instances are at work for so long before a window opens."""

LOOKING_BACK_SECONDS = 1.0
"""The same where NVML's utilisation says what is used, which looks back for up to a second: until a first window has
shown that the hardware's counters say it."""

Cores = Sequence[tuple[int, ...]]
"""Physical cores, each as the processors of it."""


@dataclasses.dataclass(frozen=True)
class Sharing:
    """How instances share a device.

    Attributes:
        how: One of ``HOWS``.
        cores: One of ``CORES``; on a GPU always shared.
    """

    how: str
    cores: str = SHARED

    def __str__(self) -> str:
        return self.how if self.cores == SHARED else f"{self.how}-{self.cores}"

    @classmethod
    def parse(cls, name: str) -> Sharing:
        """Of its name in a path.

        >>> Sharing.parse("processes-split")
        Sharing(how='processes', cores='split')
        """
        how, _, cores = name.partition("-")
        return cls(how, cores or SHARED)


NAMES = tuple(str(Sharing(how, cores)) for how in HOWS for cores in CORES if how not in UNSPLIT or cores == SHARED)
"""The name of each way to share."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """An instance and where it may compute.

    Attributes:
        cell: The cell that it is an instance of, as runtime/model/precision/shape.
        threads: Of its CPU kernels.
        processors: Where it may run; empty: everywhere.
        member: Whether it is of the group. Else it is there for reference: the same cell with the whole machine.
    """

    cell: str
    threads: int
    processors: tuple[int, ...] = ()
    member: bool = True


def placed(cells: Sequence[str], cores: str, threads: int, machine: Cores) -> list[Placed]:
    """The instances of a group: its members in order, then what is there for reference.

    Shared cores: each member has ``threads`` threads on all cores. Split ones: equal shares of whole cores, and no more
    threads than cores; what is left over stays idle. A member's part of the machine says nothing of what the cell does
    with all of it, so each cell has an instance for reference then.

    Raises:
        ValueError: There are fewer cores than members.
    """
    if cores == SHARED:
        return [Placed(cell, threads) for cell in cells]
    each = len(machine) // len(cells)
    if not each:
        raise ValueError(f"{len(machine)} cores cannot be split among {len(cells)} instances")
    parts = [machine[index * each : (index + 1) * each] for index in range(len(cells))]
    members = [
        Placed(cell, min(threads, each), tuple(one for core in part for one in core))
        for cell, part in zip(cells, parts, strict=True)
    ]
    return members + [Placed(cell, threads, (), member=False) for cell in dict.fromkeys(cells)]


def company(instances: Sequence[Placed]) -> list[tuple[int, ...]]:
    """Who computes together: all members, and of more than two also two of each pair of cells.

    >>> company([Placed("a", 1), Placed("a", 1), Placed("b", 1)])
    [(0, 1), (0, 2), (0, 1, 2)]
    """
    everyone = tuple(at for at, one in enumerate(instances) if one.member)
    pairs: dict[tuple[str, ...], tuple[int, ...]] = {}
    for pair in itertools.combinations(everyone, 2):
        pairs.setdefault(tuple(sorted(instances[at].cell for at in pair)), pair)
    return [*pairs.values(), everyone] if len(everyone) > 2 else [everyone]


def schedule(together: Sequence[Sequence[int]], count: int) -> Iterator[tuple[int, bool, tuple[int, ...]]]:
    """Each window of a run: its round, whether it is a reference, and who computes in it.

    References are round 0, then company and references take turns; each second one is in the other order.

    Args:
        together: Who computes in company, as :func:`company` has it.
        count: Instances; each of them has references.
    """
    for number in range(ROUNDS + 1):
        for of in (together if number % 2 else reversed(together)) if number else ():
            yield number, False, tuple(of)
        for at in range(count) if number % 2 else reversed(range(count)):
            yield number, True, (at,)
