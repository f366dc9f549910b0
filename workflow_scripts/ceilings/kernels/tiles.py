"""How each step is cut into programs: defaults, and what was tuned on a device for a shape.

``benchmarks/fused_tiles.py`` tunes on a card and writes ``tuned_tiles.json`` beside this module.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TUNED = Path(__file__).parent / "tuned_tiles.json"
"""Tiles by device, and there by an encoder's sizes and precision, or by those of a decode step (``decoder_tiles.py``).
Where it says nothing, the defaults are used."""


@dataclasses.dataclass(frozen=True)
class ProductTile:
    """How a product is cut.

    Attributes:
        rows: A program's, like ``columns`` and ``inner`` a power of two of 16 and more.
        columns: A program's.
        inner: Numbers of the inner axis at a time.
        splits: Programs that share the inner axis.
        warps: Warps of a program.
        stages: Loads under way at once.
    """

    rows: int
    columns: int
    inner: int
    splits: int = 1
    warps: int = 4
    stages: int = 3

    def span(self, inner: int) -> int:
        """Numbers of the inner axis that a program takes, whole blocks."""
        cut = -(-inner // self.splits)
        return -(-cut // self.inner) * self.inner


@dataclasses.dataclass(frozen=True)
class AttentionTile:
    """How attention is cut: a program's queries, and keys at a time."""

    queries: int
    keys: int
    warps: int = 4
    stages: int = 2


@dataclasses.dataclass(frozen=True)
class ProjectionTile:
    """How attention with its projection is cut: a program's queries, keys at a time, and columns of the projection.

    A program takes ``heads`` one after the other; where they do not divide a model's, the greatest common divisor.
    """

    queries: int
    keys: int
    columns: int
    heads: int = 1
    warps: int = 4
    stages: int = 2

    def group(self, heads: int) -> int:
        """Heads of a program, of a model that has so many."""
        return math.gcd(self.heads, heads)

    def groups(self, heads: int) -> int:
        """Partial sums that are left of a model with so many heads."""
        return heads // self.group(heads)


@dataclasses.dataclass(frozen=True)
class Tiles:
    """A tile for each step of an encoder; the field's name is the step's."""

    qkv: ProductTile = ProductTile(64, 32, 128, warps=4, stages=4)
    attention: AttentionTile = AttentionTile(16, 128)
    out: ProductTile = ProductTile(64, 32, 128, splits=2, warps=4, stages=3)
    up: ProductTile = ProductTile(64, 64, 128, warps=4, stages=3)
    down: ProductTile = ProductTile(64, 64, 128, splits=4, warps=4, stages=4)
    head: ProductTile = ProductTile(16, 16, 128, warps=4, stages=4)
    row_warps: int = 4
    projection: ProjectionTile = ProjectionTile(128, 128, 128, warps=8)


FEW_FP8 = Tiles(
    ProductTile(64, 32, 256, warps=4, stages=3),
    out=ProductTile(64, 32, 128, splits=2, warps=4, stages=3),
    up=ProductTile(64, 64, 256, warps=4, stages=3),
    down=ProductTile(64, 64, 256, splits=4, warps=4, stages=3),
)
"""The same programs in FP8: as many bytes of the inner axis at a time, where it divides."""


def _many(inner: int) -> Tiles:
    large = ProductTile(128, 128, inner, warps=8, stages=4)
    whole = ProjectionTile(128, 64, 128, heads=12, warps=8)  # of up to 12 heads: few partial sums, of many tokens
    return Tiles(large, AttentionTile(64, 64), large, large, large, projection=whole)


MANY = _many(64)
"""In FP16, for many tokens."""

DEFAULTS = {"fp16": (Tiles(), MANY), "fp8": (FEW_FP8, _many(128))}
"""Of each precision, for few tokens and for many: many make many programs, and larger ones load each operand less."""

PERSISTENT = Tiles(
    ProductTile(64, 64, 64, warps=8, stages=4),
    out=ProductTile(64, 64, 64, splits=4, warps=8, stages=4),
    up=ProductTile(64, 64, 64, warps=8, stages=4),
    down=ProductTile(64, 64, 64, splits=4, warps=8, stages=4),
)
"""Of the persistent kernel, in FP16, for few tokens: no step has more programs than a card has multiprocessors."""

MANY_TOKENS = 1024
"""Many: from here on 128 x 128 blocks of the narrowest product, of 768 columns, are 48 programs and more."""


def defaults(tokens: int, precision: str) -> Tiles:
    """The tiles of a request of so many tokens where none were tuned."""
    few, many = DEFAULTS[precision]
    return many if tokens >= MANY_TOKENS else few


def sizes(tokens: int, hidden: int, intermediate: int, heads: int, precision: str) -> str:
    """What tuned tiles are kept by."""
    return f"t{tokens}-h{hidden}-i{intermediate}-n{heads}-{precision}"


def kept(device: str, size: str, tuned: Path = TUNED, kind: type[Any] = Tiles) -> Any:
    """The tiles, of a ``kind``, that were tuned on a device for what :func:`sizes` says; None where none were.

    Raises:
        ValueError: The file does not hold such tiles.
    """
    known = json.loads(tuned.read_text()).get(device, {}).get(size) if tuned.is_file() else None
    return read(known, kind) if known else None


def read(content: Mapping[str, Any], kind: type[Any] = Tiles) -> Any:
    """Tiles of a kind, as :func:`written` left them.

    Raises:
        ValueError: A step or a field that is not known, or lacks.
    """
    kinds: dict[str, Any] = {field.name: type(field.default) for field in dataclasses.fields(kind)}
    try:
        return kind(**{step: kinds[step](**cut) if isinstance(cut, dict) else cut for step, cut in content.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{TUNED.name} has tiles that do not fit ({error}); tune anew") from error


def written(chosen: Any) -> dict[str, Any]:
    """Tiles as JSON holds them."""
    return dataclasses.asdict(chosen)
