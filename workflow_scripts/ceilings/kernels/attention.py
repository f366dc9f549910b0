"""Attention of encoders for short sequences: ``softmax(scale Q K^T + mask) V`` in one kernel.

A program takes one block of queries of one head of one element, goes over all keys, and writes its result over the
queries that it alone has read. So no buffer and no copy stands between attention and the product after it, which
reads the same rows. The softmax is the online one: the largest score so far is subtracted, and sums are scaled when
it grows.

Scores, sums and softmax are FP32, the softmax's numbers FP16 where they multiply V. Bytes of Q, K, V and the result,
FP16, and of the mask, INT64; ``4 batch sequence^2 hidden`` operations.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.launch import Launch, Work, blocks, power_of_two
from ceilings.kernels.overlap import follow
from ceilings.kernels.tiles import AttentionTile

LEAST = 16
"""The smallest side of a matrix product in Triton."""


@triton.jit
def attention(
    qkv: tl.tensor,
    mask: tl.tensor,
    SEQUENCE: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A block of queries of a head."""
    HIDDEN: tl.constexpr = HEADS * WIDTH
    queries = tl.program_id(0) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    head, element = tl.program_id(1), tl.program_id(2)
    numbers = tl.arange(0, BLOCK_WIDTH)
    follow(OVERLAPPED)
    rows = qkv + element * SEQUENCE * 3 * HIDDEN + head * WIDTH
    place = rows + queries[:, None] * 3 * HIDDEN + numbers[None, :]
    inside = (queries[:, None] < SEQUENCE) & (numbers[None, :] < WIDTH)
    query = tl.load(place, mask=inside, other=0.0)
    largest = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
    weights = tl.zeros((BLOCK_QUERIES,), tl.float32)
    total = tl.zeros((BLOCK_QUERIES, BLOCK_WIDTH), tl.float32)
    for start in range(0, SEQUENCE, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        there = (keys[:, None] < SEQUENCE) & (numbers[None, :] < WIDTH)
        source = rows + keys[:, None] * 3 * HIDDEN + numbers[None, :]
        key = tl.load(source + HIDDEN, mask=there, other=0.0)
        value = tl.load(source + 2 * HIDDEN, mask=there, other=0.0)
        scores = tl.dot(query, tl.trans(key)) * (SCALE * 1.4426950408889634)
        if mask is not None:
            # A number, not infinity: an element without any token is then an average, as in Transformers, and no NaN.
            real = tl.load(mask + element * SEQUENCE + keys, mask=keys < SEQUENCE, other=0) != 0
            scores = tl.where(real[None, :], scores, -1e30)
        scores = tl.where(keys[None, :] < SEQUENCE, scores, float("-inf"))
        grown = tl.maximum(largest, tl.max(scores, 1))
        shares, kept = tl.exp2(scores - grown[:, None]), tl.exp2(largest - grown)
        weights = weights * kept + tl.sum(shares, 1)
        total = tl.dot(shares.to(value.dtype), value, total * kept[:, None])
        largest = grown
    tl.store(place, (total / weights[:, None]).to(qkv.dtype.element_ty), mask=inside)


def work(batch: int, sequence: int, hidden: int, heads: int, tile: AttentionTile, *, masked: bool) -> Work:
    """What attention of a layer does: sizes of the model and the request, the tile, and whether there is a mask."""
    tokens = batch * sequence
    masks, groups = 8 * tokens * masked, heads * blocks(sequence, tile.queries)
    loaded = 4 * tokens * hidden + blocks(sequence, tile.queries) * 4 * tokens * hidden + groups * masks
    return Work(8 * tokens * hidden + masks, loaded, 4 * tokens * sequence * hidden)


def launch(qkv: Any, mask: Any, heads: int, tile: AttentionTile, *, overlapped: bool = False) -> Launch:
    """The launch of a layer's attention.

    Args:
        qkv: (batch, sequence, 3 hidden), FP16, in one piece; the result takes the place of the queries.
        mask: (batch, sequence), INT64, zero where a token is padding, or None.
        heads: They share the hidden size alike.
        tile: Blocks of queries and keys.
        overlapped: Whether it follows the launch before it without a gap.
    """
    batch, sequence, hidden = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    width = hidden // heads
    arguments = {
        **{"qkv": qkv, "mask": mask, "SEQUENCE": sequence, "HEADS": heads, "WIDTH": width, "SCALE": width**-0.5},
        **{"BLOCK_QUERIES": tile.queries, "BLOCK_KEYS": min(tile.keys, power_of_two(sequence, LEAST))},
        **{"BLOCK_WIDTH": power_of_two(width, LEAST), "OVERLAPPED": overlapped},
    }
    grid = (blocks(sequence, tile.queries), heads, batch)
    done = work(batch, sequence, hidden, heads, tile, masked=mask is not None)
    return Launch("attention", attention, grid, arguments, done, tile.warps, tile.stages)
