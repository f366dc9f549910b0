"""Optimisation profiles: the ranges of shapes that an engine takes. Standard library only."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.errors import CellFailure

STATIC = re.compile(r"b([1-9][0-9]*)-s([1-9][0-9]*)")
"""The name of a profile of one shape."""

PARTS = ("min", "opt", "max")


@dataclasses.dataclass(frozen=True)
class Profile:
    """One range of shapes, with the shape that kernels are chosen for.

    Attributes:
        batch: Smallest, optimal and largest batch.
        sequence: The same of the sequence length, in tokens.
    """

    batch: tuple[int, int, int]
    sequence: tuple[int, int, int]

    @classmethod
    def static(cls, batch: int, sequence: int) -> Profile:
        """The profile of exactly one shape."""
        return cls((batch,) * 3, (sequence,) * 3)

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[int]]) -> Profile:
        """Of ``{"batch": [min, opt, max], "sequence": [min, opt, max]}``."""
        batch, sequence = (tuple(value[axis]) for axis in ("batch", "sequence"))
        return cls((batch[0], batch[1], batch[2]), (sequence[0], sequence[1], sequence[2]))

    def to_json(self) -> dict[str, list[int]]:
        """As :meth:`from_json` takes it."""
        return {"batch": list(self.batch), "sequence": list(self.sequence)}

    def covers(self, batch: int, sequence: int) -> bool:
        """Whether the shape lies in the range."""
        return self.batch[0] <= batch <= self.batch[2] and self.sequence[0] <= sequence <= self.sequence[2]

    def shapes(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """(batch, sequence) at min, opt and max."""
        (b0, b1, b2), (s0, s1, s2) = self.batch, self.sequence
        return (b0, s0), (b1, s1), (b2, s2)

    def problem(self) -> str | None:
        """Why no engine can have this profile; None if one can."""
        for axis, (low, best, high) in (("batch", self.batch), ("sequence", self.sequence)):
            if not 1 <= low <= best <= high:
                return f"{axis} has min {low}, opt {best}, max {high}; 1 <= min <= opt <= max must hold"
        return None

    def __str__(self) -> str:
        low, best, high = (f"b{batch}-s{sequence}" for batch, sequence in self.shapes())
        return low if low == high else f"{low} to {high}, best at {best}"


def static(name: str) -> Profile | None:
    """The profile that a static name such as ``b1-s128`` stands for; None for any other name."""
    found = STATIC.fullmatch(name)
    return Profile.static(int(found[1]), int(found[2])) if found else None


def read(profiles: Sequence[Mapping[str, Any]]) -> list[Profile]:
    """The profiles of an engine, in the order in which it has them."""
    return [Profile.from_json(profile) for profile in profiles]


def covering(profiles: Sequence[Profile], batch: int, sequence: int) -> int:
    """Index of the first profile that takes a shape.

    Raises:
        CellFailure: None does.
    """
    for index, profile in enumerate(profiles):
        if profile.covers(batch, sequence):
            return index
    known = "; ".join(map(str, profiles))
    raise CellFailure("outside-profiles", f"shape b{batch}-s{sequence} lies in no profile of the engine: {known}")
