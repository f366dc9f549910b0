"""Optimisation profiles: the ranges of named axes that an engine takes. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.errors import CellFailure, UserError
from ceilings.workload import generation
from ceilings.workload.shape import Shape

PARTS = ("min", "opt", "max")

Range = tuple[int, int, int]
"""Smallest, optimal and largest size of an axis."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """One range of shapes, with the shape that kernels are chosen for.

    Attributes:
        ranges: Of each axis.
    """

    ranges: Mapping[str, Range]

    @classmethod
    def static(cls, shape: Shape) -> Profile:
        """The profile of exactly one shape."""
        return cls({axis: (size, size, size) for axis, size in shape.sizes})

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[int]]) -> Profile:
        """Of ``{"batch": [min, opt, max], "sequence": [min, opt, max]}``."""
        ranges: dict[str, Range] = {}
        for axis in Shape.of(dict.fromkeys(value, 1)).axes:
            low, best, high = value[axis]
            ranges[axis] = (low, best, high)
        return cls(ranges)

    def to_json(self) -> dict[str, list[int]]:
        """As :meth:`from_json` takes it."""
        return {axis: list(sizes) for axis, sizes in self.ranges.items()}

    def completed(self, fixed: Mapping[str, int]) -> Profile:
        """The same with the axes that a model has in one size only, where it gives no range of them.

        >>> Profile({"batch": (1, 4, 8)}).completed({"image": 224}).to_json()
        {'batch': [1, 4, 8], 'image': [224, 224, 224]}
        """
        return Profile.from_json({**{axis: [size] * 3 for axis, size in fixed.items()}, **self.to_json()})

    def covers(self, shape: Shape) -> bool:
        """Whether the shape has the axes of the profile and lies in their ranges."""
        return set(shape.axes) == set(self.ranges) and all(
            low <= shape[axis] <= high for axis, (low, _, high) in self.ranges.items()
        )

    def shapes(self) -> tuple[Shape, Shape, Shape]:
        """The shape at min, opt and max."""
        low, best, high = (Shape.of({axis: sizes[part] for axis, sizes in self.ranges.items()}) for part in range(3))
        return low, best, high

    @classmethod
    def of(cls, shape: Shape) -> list[Profile]:
        """The profiles of an engine for one shape: of that shape, or of the forward passes of a request.

        Of a request first the decode steps, whose past grows from the prompt on, best at the step in the middle; then
        the prefill, which has no past. A request for one token is a prefill alone.

        >>> [str(one) for one in Profile.of(Shape.parse("b1-p128-g32"))][0]
        'b1-past128-tokens1 to b1-past158-tokens1, best at b1-past143-tokens1'
        """
        if not generation.is_request(shape):
            return [cls.static(shape)]
        prefill = {"batch": shape.batch, "tokens": shape["prompt"], "past": 0}
        passes = [cls.static(Shape.of(prefill))]
        if generation.phase(shape) == "decode":
            middle = dict(generation.step_shape(shape).sizes)
            # The last token of a request is never read.
            past = (shape["prompt"], middle["past"], generation.context(shape) - 2)
            passes.insert(0, cls({"batch": (shape.batch,) * 3, "past": past, "tokens": (1, 1, 1)}))
        return passes

    def problem(self) -> str | None:
        """Why no engine can have this profile; None if one can."""
        for axis, (low, best, high) in self.ranges.items():
            least = 0 if axis == "past" else 1  # a prefill reads nothing before its prompt
            if not least <= low <= best <= high:
                return f"{axis} has min {low}, opt {best}, max {high}; {least} <= min <= opt <= max must hold"
        return None

    def __str__(self) -> str:
        low, best, high = self.shapes()
        return str(low) if low == high else f"{low} to {high}, best at {best}"


def static(name: str) -> Profile | None:
    """The profile that a static name such as ``b1-s128`` stands for; None for any other name."""
    try:
        shape = Shape.parse(name)
    except UserError:
        return None
    return None if shape.lengths else Profile.static(shape)


def read(profiles: Sequence[Mapping[str, Any]]) -> list[Profile]:
    """The profiles of an engine, in the order in which it has them."""
    return [Profile.from_json(profile) for profile in profiles]


def covering(profiles: Sequence[Profile], shape: Shape) -> int:
    """Index of the first profile that takes a shape.

    Raises:
        CellFailure: None does.
    """
    for index, profile in enumerate(profiles):
        if profile.covers(shape):
            return index
    known = "; ".join(map(str, profiles))
    raise CellFailure("outside-profiles", f"shape {shape} lies in no profile of the engine: {known}")
