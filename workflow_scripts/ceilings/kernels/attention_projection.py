"""Attention and its output projection in one kernel: what each head's result adds to the projection, as partial sums.

The projection is a sum over heads: ``x W^T = sum_h x_h W_h^T``, where ``W_h`` are the columns of W that a head's
numbers meet. A program takes a block of queries, a group of heads, one after the other, and a block of the projection's
columns. It computes attention of a head as ``attention.py`` does, in registers, and multiplies it at once. A group of
heads is a cut of the inner axis, as the product's cuts are, so the normalisation that follows adds them as it does
those. One launch stands where two stood, and attention's result is never written.

Each block of columns computes attention anew: with few tokens that is little beside a launch.

Attention's result is rounded to FP16 before it is multiplied, as where it is written between two kernels; sums are
FP32. FP16 only. Bytes of Q, K and V, FP16, of the mask, INT64, of W, FP16, and of a partial sum a group, FP32;
``4 batch sequence^2 hidden + 2 tokens hidden^2`` operations, each counted once.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.attention import LEAST, averaged
from ceilings.kernels.launch import Launch, Work, blocks, power_of_two
from ceilings.kernels.overlap import follow, prefetch
from ceilings.kernels.product import LINE
from ceilings.kernels.tiles import ProjectionTile

REGISTERS = 255
"""Of a thread, at most, which is the hardware's limit: all of Q, K, V and W of a head are then asked for at once."""


@triton.jit
def attention_projection(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    mask: tl.tensor,
    weight: tl.tensor,
    partial: tl.tensor,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    STRIDE: tl.constexpr,
    SEQUENCE: tl.constexpr,
    WIDTH: tl.constexpr,
    SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    LINE_NUMBERS: tl.constexpr,
    GROUP_LINES: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A block of queries and of columns over a group of heads."""
    columns = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    queries = tl.program_id(1) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    group, element = tl.program_id(2) % (INNER // (GROUP * WIDTH)), tl.program_id(2) // (INNER // (GROUP * WIDTH))
    numbers = tl.arange(0, BLOCK_WIDTH)
    # Beyond the edge the first columns are read again, and nothing is written.
    row_of_weight = weight + columns % COLUMNS * INNER
    if OVERLAPPED:
        lines = tl.minimum(group * GROUP * WIDTH + LINE_NUMBERS * tl.arange(0, GROUP_LINES), INNER - 1)
        prefetch(row_of_weight[:, None] + lines[None, :])
    follow(OVERLAPPED)
    total = tl.zeros((BLOCK_QUERIES, BLOCK_COLUMNS), tl.float32)
    for turn in range(GROUP):
        head = group * GROUP + turn
        # Asked for before attention, so that they are there after it.
        right = tl.load(
            row_of_weight[None, :] + head * WIDTH + numbers[:, None], mask=numbers[:, None] < WIDTH, other=0.0
        )
        average = averaged(
            query,
            key,
            value,
            mask,
            queries,
            head,
            element,
            STRIDE,
            SEQUENCE,
            WIDTH,
            SCALE,
            BLOCK_QUERIES,
            BLOCK_KEYS,
            BLOCK_WIDTH,
        )
        total = tl.dot(average.to(right.dtype), right, total)
    rows = element * SEQUENCE + queries
    target = partial + group * TOKENS * COLUMNS + rows[:, None] * COLUMNS + columns[None, :]
    tl.store(target, total, mask=(queries[:, None] < SEQUENCE) & (columns[None, :] < COLUMNS))


def work(batch: int, sequence: int, hidden: int, heads: int, tile: ProjectionTile, *, masked: bool) -> Work:
    """What attention of a layer with its projection does.

    Args:
        batch: Texts.
        sequence: Tokens of a text.
        hidden: Width of a token, of all heads together, and of the projection's result.
        heads: They share it.
        tile: How it is cut.
        masked: Whether there is a mask.
    """
    tokens = batch * sequence
    across, down = blocks(hidden, tile.columns), blocks(sequence, tile.queries)
    masks, written = 8 * tokens * masked, 4 * tile.groups(heads) * tokens * hidden
    loaded = across * ((2 + 4 * down) * tokens * hidden + heads * down * masks)
    loaded += batch * down * 2 * across * tile.columns * hidden
    moved = 6 * tokens * hidden + masks + 2 * hidden * hidden + written
    return Work(moved, loaded + written, 4 * tokens * sequence * hidden + 2 * tokens * hidden * hidden)


def launch(
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    weight: Any,
    partial: Any,
    heads: int,
    tile: ProjectionTile,
    *,
    overlapped: bool = False,
) -> Launch:
    """The launch of a layer's attention with its output projection.

    Args:
        query: (batch, sequence, hidden), FP16: rows of tokens, a head's numbers beside each other. Rows may stand
            apart, as where one product gives all three; elements follow each other.
        key: As ``query``, its rows as far apart.
        value: The same.
        mask: (batch, sequence), INT64, zero where a token is padding, or None.
        weight: (hidden, hidden), FP16, in one piece: a row for each of the projection's columns.
        partial: (groups of heads, tokens, hidden), FP32.
        heads: They share the hidden size alike.
        tile: Blocks, and heads of a program.
        overlapped: Whether it follows the launch before it without a gap.

    Raises:
        ValueError: Partial sums or weights of another size or type.
    """
    batch, sequence, hidden = query.shape
    width, group, groups, tokens = hidden // heads, tile.group(heads), tile.groups(heads), batch * sequence
    fits = tuple(weight.shape) == (hidden, hidden) and tuple(partial.shape) == (groups, tokens, hidden)
    if not fits or weight.dtype != query.dtype:
        sizes = f"W {tuple(weight.shape)} of {weight.dtype}, sums {tuple(partial.shape)}"
        raise ValueError(f"attention of {hidden} numbers in {query.dtype}, {groups} sums: no projection by {sizes}")
    line = LINE // weight.element_size()
    arguments = {
        **{"query": query, "key": key, "value": value, "mask": mask, "weight": weight, "partial": partial},
        **{"TOKENS": tokens, "COLUMNS": hidden, "INNER": hidden, "STRIDE": query.stride(1), "SEQUENCE": sequence},
        **{"WIDTH": width, "SCALE": width**-0.5, "GROUP": group, "BLOCK_QUERIES": tile.queries},
        **{"BLOCK_KEYS": min(tile.keys, power_of_two(sequence, LEAST)), "BLOCK_WIDTH": power_of_two(width, LEAST)},
        **{"BLOCK_COLUMNS": tile.columns, "LINE_NUMBERS": line},
        **{"GROUP_LINES": power_of_two(blocks(group * width, line)), "OVERLAPPED": overlapped},
    }
    grid = (blocks(hidden, tile.columns), blocks(sequence, tile.queries), groups * batch)
    done = work(batch, sequence, hidden, heads, tile, masked=mask is not None)
    return Launch(
        "projection", attention_projection, grid, arguments, done, tile.warps, tile.stages, registers=REGISTERS
    )
