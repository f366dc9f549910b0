"""Requests whose shapes change, in their order: what a process that measures them is given. Standard library only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ceilings.errors import UserError
from ceilings.workload.shape import Shape


@dataclasses.dataclass(frozen=True)
class Requests:
    """Requests in their order.

    Attributes:
        shapes: The different shapes, in the order of their first appearance.
        order: For each request the index of its shape.
        logged: Requests of the log that it comes from; None where it comes from none.
        sorted: Whether the log had to be sorted by arrival.
        lines: For each shape the line of the log on which it comes first; empty of what is read back from a record.
    """

    shapes: tuple[Shape, ...]
    order: tuple[int, ...]
    logged: int | None = None
    sorted: bool = False
    lines: tuple[int, ...] = dataclasses.field(default=(), compare=False)

    @classmethod
    def of(cls, requests: Iterable[Shape], lines: Sequence[int] = (), **facts: Any) -> Requests:
        """The sequence of these requests; ``lines`` are those of the log that they come from.

        >>> Requests.of([Shape.parse("b2"), Shape.parse("b1"), Shape.parse("b2")]).order
        (0, 1, 0)
        """
        indices: dict[Shape, int] = {}
        order = tuple(indices.setdefault(shape, len(indices)) for shape in requests)
        first = tuple(lines[order.index(index)] for index in indices.values()) if lines else ()
        return cls(tuple(indices), order, lines=first, **facts)

    def at(self, axes: Sequence[str], fixed: Mapping[str, int]) -> Requests:
        """The same for a model with these axes: others are dropped, ``fixed`` sizes fill in what no request gives.

        Raises:
            UserError: A request gives no size of an axis.
        """
        taken = [self._taken(index, axes, fixed) for index in range(len(self.shapes))]
        lines = [self.lines[index] for index in self.order] if self.lines else ()
        return Requests.of((taken[index] for index in self.order), lines, logged=self.logged, sorted=self.sorted)

    def named(self, index: int) -> str:
        """A shape in words, with the line of the log that it comes from."""
        return f"{self.shapes[index]}" + (f" (line {self.lines[index]})" if self.lines else "")

    def _taken(self, index: int, axes: Sequence[str], fixed: Mapping[str, int]) -> Shape:
        shape = self.shapes[index]
        sizes = {**fixed, **dict(shape.sizes)}
        if missing := [axis for axis in axes if axis not in sizes]:
            raise UserError(f"{self.named(index)} gives no size of {missing[0]}; add it to every request")
        return Shape.of({axis: sizes[axis] for axis in axes}, shape.lengths if "sequence" in axes else "")

    @property
    def changes(self) -> int:
        """Requests whose predecessor has another shape."""
        return sum(before != after for before, after in itertools.pairwise(self.order))

    def to_json(self) -> dict[str, Any]:
        """As records and slices hold it."""
        return {
            "shapes": list(map(str, self.shapes)),
            "order": list(self.order),
            "logged": self.logged,
            "sorted": self.sorted,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Requests:
        """Of what records and slices hold."""
        shapes = tuple(map(Shape.parse, value["shapes"]))
        return cls(shapes, tuple(value["order"]), value["logged"], value["sorted"])

    def padded(self, runs_at: Mapping[str, str]) -> Requests:
        """The same with each shape in place of another, by their names.

        >>> requests = Requests.of([Shape.parse("s4"), Shape.parse("s8"), Shape.parse("s16")])
        >>> padded = requests.padded({"s4": "s8", "s8": "s8", "s16": "s16"})
        >>> [str(shape) for shape in padded.shapes], padded.order
        (['s8', 's16'], (0, 0, 1))
        """
        shapes = [Shape.parse(runs_at[str(shape)]) for shape in self.shapes]
        return Requests.of((shapes[index] for index in self.order), logged=self.logged, sorted=self.sorted)
