"""How each part of a decode step is cut into programs: defaults, kept and tuned as those of encoders (``tiles.py``).

A product's program holds its rows of the weight in registers: ``columns x inner`` FP16 numbers over ``32 warps``
threads. Memory of 3 TB/s that answers after 0.7 us wants 2 MB under way, 16 KB a multiprocessor; the defaults have 16
to 64 KB of one kernel there, and registers are left for the kernel after it, which waits beside it.
"""

from __future__ import annotations

import dataclasses

from ceilings.kernels.launch import blocks

MOST_PARTS = 8
"""Parts of attention at most: each program of the projection after it reads 2 KB of every part."""


MULTIPROCESSORS = 132
"""Of an H100 or H200 (SXM): attention gets no more programs."""


@dataclasses.dataclass(frozen=True)
class StepTile:
    """How a product of a step is cut.

    Attributes:
        columns: Of y, rows of the weight, that a program takes; a power of two.
        warps: Warps of a program.
    """

    columns: int
    warps: int = 4


@dataclasses.dataclass(frozen=True)
class ContextTile:
    """How attention of a step is cut.

    Attributes:
        keys: Tokens of the context that a program takes at a time; a power of two.
        parts: Programs that share a head's context; a power of two.
        warps: Warps of a program.
    """

    keys: int = 64
    parts: int = 4
    warps: int = 4


@dataclasses.dataclass(frozen=True)
class StepTiles:
    """A tile for each part of a step; the field's name is the part's."""

    qkv: StepTile = StepTile(8)
    attention: ContextTile = ContextTile()
    out: StepTile = StepTile(8)
    up: StepTile = StepTile(8)
    down: StepTile = StepTile(8, warps=8)
    head: StepTile = StepTile(16)


def defaults(batch: int, length: int, heads: int) -> StepTiles:
    """The tiles of a step where none were tuned.

    Args:
        batch: Rows of a request.
        length: Tokens of the longest context.
        heads: Of attention: with the batch they are the programs of attention before its context is shared out.
    """
    attention = ContextTile()
    most = min(blocks(length, attention.keys), MOST_PARTS, max(1, MULTIPROCESSORS // (batch * heads)))
    parts = 1 << (most.bit_length() - 1)
    return dataclasses.replace(StepTiles(), attention=dataclasses.replace(attention, parts=parts))


def sizes(batch: int, length: int, hidden: int, layers: int) -> str:
    """What tuned tiles are kept by."""
    return f"decode-b{batch}-l{length}-h{hidden}-n{layers}"
