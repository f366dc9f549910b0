"""The rest of a shape: what stays as it is while the batch is searched."""

from __future__ import annotations

from ceilings.workload.shape import PATTERN, Shape

BARE = "batch"
"""Stands for the rest of a shape that has no other axis."""

REST = f"{PATTERN}|{BARE}"
"""What names of rests look like, for wildcards of paths."""


def rest_of(shape: Shape) -> str:
    """A shape without its batch.

    >>> rest_of(Shape.parse("b8-s32.short")), rest_of(Shape.parse("b4-i224")), rest_of(Shape.parse("b2"))
    ('s32.short', 'i224', 'batch')
    """
    sizes = {axis: size for axis, size in shape.sizes if axis != "batch"}
    return str(Shape.of(sizes, shape.lengths)) if sizes else BARE


def shape_of(rest: str, batch: int) -> Shape:
    """The shape of a rest at a batch.

    >>> str(shape_of("s32.short", 24)), str(shape_of("batch", 3))
    ('b24-s32.short', 'b3')

    Raises:
        UserError: It is no name of a rest.
    """
    return Shape.of({"batch": batch}) if rest == BARE else Shape.parse(rest).with_sizes(batch=batch)
