"""Sequences of requests whose shapes change: which request comes when. Standard library only.

A sequence knows sizes of axes and no model: a model takes of each request the axes that it has.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.workload.request_log import read_log
from ceilings.workload.shape import Shape
from ceilings.workload.shape_order import Requests

ORDERS = ("alternating", "drawn", "replayed")
"""alternating: the shapes in turn; drawn: at random by their weights; replayed: as a log of requests has them."""

REQUESTS = 200
"""Of a sequence that does not say how many it has."""

MOST_SHAPES = 64
"""Different shapes of a sequence: each has inputs and a reference of its own, and is timed alone."""


def sequence(name: str, given: Mapping[str, Any], seed: int) -> Requests:
    """The sequence that a study describes.

    Args:
        name: Of the sequence, for messages.
        given: Its entry below ``sequences``: ``order``, ``requests``, and ``shapes``, ``axes`` or ``file``.
        seed: Of the study; the entry's own goes first.

    Raises:
        UserError: It describes none.
    """
    where = f"sequences.{name}"
    count, order = int(given.get("requests", REQUESTS)), given["order"]
    multiples = given.get("multiple", {})
    if order == "replayed":
        return _replayed(where, given, count, multiples)
    if "file" in given:
        raise UserError(f"{where}: file needs order: replayed; write that, or leave file out")
    shapes, weights = _alternatives(where, given)
    if order == "alternating":
        if "weights" in given:
            raise UserError(f"{where}: weights need order: drawn; write that, or leave weights out")
        chosen: Iterable[Shape] = itertools.islice(itertools.cycle(shapes), count)
    else:
        chosen = random.Random(given.get("seed", seed)).choices(shapes, weights, k=count)
    return _bounded(where, Requests.of(rounded(shape, multiples) for shape in chosen))


def rounded(shape: Shape, multiples: Mapping[str, int]) -> Shape:
    """The shape with its sizes rounded up to multiples.

    >>> str(rounded(Shape.parse("b1-s17"), {"sequence": 16, "image": 32}))
    'b1-s32'
    """
    up = {axis: -(-size // multiples[axis]) * multiples[axis] for axis, size in shape.sizes if axis in multiples}
    return shape.with_sizes(**up)


def _replayed(where: str, given: Mapping[str, Any], count: int, multiples: Mapping[str, int]) -> Requests:
    if unused := [key for key in ("shapes", "axes", "weights", "seed") if key in given]:
        raise UserError(f"{where}: {unused[0]} has no meaning beside order: replayed; leave it out")
    if "file" not in given:
        raise UserError(f"{where}: order: replayed needs file, a log of requests; add it")
    log = read_log(Path(given["file"]), count)
    requests = (rounded(Shape.of(sizes), multiples) for sizes in log.requests)
    return _bounded(where, Requests.of(requests, log.lines, logged=log.total, sorted=log.sorted))


def _alternatives(where: str, given: Mapping[str, Any]) -> tuple[list[Shape], list[float]]:
    """The shapes to choose from, and how often each is chosen."""
    if ("shapes" in given) == ("axes" in given):
        raise UserError(f"{where}: give either shapes or axes")
    weights = given.get("weights", {})
    axes: dict[str, list[Any]] = {"shapes": given["shapes"]} if "shapes" in given else dict(given["axes"])
    for axis, each in weights.items():
        if axis not in axes:
            raise UserError(f"{where}.weights: {axis!r} is none of {', '.join(axes)}; leave it out")
        if len(each) != len(axes[axis]):
            raise UserError(f"{where}.weights.{axis}: {len(each)} weights of {len(axes[axis])} values; give one each")
        if not sum(each) > 0:
            raise UserError(f"{where}.weights.{axis}: all are 0; give at least one above")
    heavy = [
        [(value, weight) for value, weight in zip(values, weights.get(axis, [1] * len(values)), strict=True) if weight]
        for axis, values in axes.items()
    ]
    shapes, products = [], []
    for combination in itertools.product(*heavy):
        values = [value for value, _ in combination]
        shape = Shape.parse(values[0]) if "shapes" in given else Shape.of(dict(zip(axes, values, strict=True)))
        product = 1.0
        for _, weight in combination:
            product *= weight
        shapes.append(shape)
        products.append(product)
    return shapes, products


def _bounded(where: str, made: Requests) -> Requests:
    """The sequence, if it can be measured."""
    if len(made.shapes) > MOST_SHAPES:
        raise UserError(
            f"{where}: {len(made.shapes)} different shapes in {len(made.order)} requests, and {MOST_SHAPES} can be "
            "measured; round sizes up as a server does, with multiple: {sequence: 64}, or lower requests"
        )
    return made
