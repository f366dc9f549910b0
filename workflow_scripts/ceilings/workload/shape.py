"""Shapes: sizes of named axes, and how long the inputs in them really are. Parsed and printed here and nowhere else."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from ceilings.errors import UserError

AXES = {
    "batch": "b",
    "sequence": "s",
    "prompt": "p",
    "generated": "g",
    "image": "i",
}
"""Axes with a letter of their own, in the order in which names of shapes give them. Others follow by their whole name.

batch: inputs at once; sequence: tokens an input, padding included; prompt and generated: tokens that a generating model
reads and writes; image: edge of a square image in pixels.
"""

LETTERS = {letter: axis for axis, letter in AXES.items()}

AXIS = r"[a-z][a-z]+"
"""What an axis without a letter may be called."""

PATTERN = r"[a-z]+[1-9][0-9]*(-[a-z]+[1-9][0-9]*)*(\.[a-z][a-z0-9-]*)?"
"""What names of shapes look like, for wildcards of paths."""

_PART = re.compile(r"([a-z]+)([1-9][0-9]*)")


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """Sizes of named axes.

    Attributes:
        sizes: (axis, size) in the order of names.
        lengths: Name of the study's length distribution that inputs follow; empty: every input fills its row.
    """

    sizes: tuple[tuple[str, int], ...]
    lengths: str = ""

    @classmethod
    def of(cls, sizes: Mapping[str, int], lengths: str = "") -> Shape:
        """The shape of these axes, whatever their order.

        >>> str(Shape.of({"sequence": 128, "batch": 8})), str(Shape.of({"batch": 4, "image": 224}))
        ('b8-s128', 'b4-i224')
        """
        return cls(tuple(sorted(sizes.items(), key=lambda item: _order(item[0]))), lengths)

    @classmethod
    def parse(cls, name: str) -> Shape:
        """The shape that a name stands for.

        >>> Shape.parse("b8-s128").sizes, Shape.parse("b1-frames300.short").lengths
        ((('batch', 8), ('sequence', 128)), 'short')

        Raises:
            UserError: It is no name of a shape, or not the one that this shape is printed as.
        """
        if not re.fullmatch(PATTERN, name):
            raise UserError(f"{name!r} is no shape; write one such as b8-s128 or b4-i224")
        axes, _, lengths = name.partition(".")
        sizes: dict[str, int] = {}
        for part in axes.split("-"):
            found = _PART.fullmatch(part)
            assert found is not None
            word, size = found[1], int(found[2])
            if len(word) == 1 and word not in LETTERS:
                raise UserError(f"shape {name!r}: no axis has the letter {word!r}; known: {_letters()}")
            if (axis := LETTERS.get(word, word)) in sizes:
                raise UserError(f"shape {name!r} gives {axis} twice; give it once")
            sizes[axis] = size
        shape = cls.of(sizes, lengths)
        if str(shape) != name:
            raise UserError(f"shape {name!r} is written {str(shape)!r}; use that name")
        return shape

    @classmethod
    def from_json(cls, value: str) -> Shape:
        """Of what records hold: the name."""
        return cls.parse(value)

    def __str__(self) -> str:
        axes = "-".join(f"{AXES.get(axis, axis)}{size}" for axis, size in self.sizes)
        return f"{axes}.{self.lengths}" if self.lengths else axes

    def __getitem__(self, axis: str) -> int:
        return dict(self.sizes)[axis]

    def get(self, axis: str) -> int | None:
        """Size of an axis; None where the shape has none of that name."""
        return dict(self.sizes).get(axis)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(axis for axis, _ in self.sizes)

    @property
    def batch(self) -> int:
        """Inputs at once; 1 where there is no such axis."""
        return self.get("batch") or 1

    @property
    def full(self) -> Shape:
        """The same sizes with every row full: what engines, graphs and operation counts know of a shape."""
        return dataclasses.replace(self, lengths="")

    def with_sizes(self, **sizes: int) -> Shape:
        """The same shape with other sizes of some of its axes."""
        return Shape.of({**dict(self.sizes), **sizes}, self.lengths)


def _order(axis: str) -> tuple[int, str]:
    return (list(AXES).index(axis), "") if axis in AXES else (len(AXES), axis)


def _letters() -> str:
    return ", ".join(f"{letter} ({axis})" for letter, axis in LETTERS.items())
