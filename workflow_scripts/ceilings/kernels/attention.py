"""Attention of encoders for short sequences: ``softmax(scale Q K^T + mask) V`` in one kernel.

A program takes one block of queries of one head of one element and goes over all keys. Its result may take the place
of the queries, which it alone has read: then no buffer and no copy stands between attention and the product after it,
which reads the same rows. The softmax is the online one: the largest score so far is subtracted, and sums are scaled
when it grows.

Scores, sums and softmax are FP32, the softmax's numbers FP16 where they multiply V. Bytes of Q, K and V, FP16, of the
result in its type, and of the mask, INT64; ``4 batch sequence^2 hidden`` operations.
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
def averaged(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    mask: tl.tensor,
    queries: tl.tensor,
    head: tl.tensor,
    element: tl.tensor,
    STRIDE: tl.constexpr,
    SEQUENCE: tl.constexpr,
    WIDTH: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
) -> tl.tensor:
    """The averages of V that these queries of a head of an element ask for, FP32."""
    numbers = tl.arange(0, BLOCK_WIDTH)
    start_of = element * SEQUENCE * STRIDE + head * WIDTH
    inside = (queries[:, None] < SEQUENCE) & (numbers[None, :] < WIDTH)
    asked = tl.load(query + start_of + queries[:, None] * STRIDE + numbers[None, :], mask=inside, other=0.0)
    largest = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
    weights = tl.zeros((BLOCK_QUERIES,), tl.float32)
    total = tl.zeros((BLOCK_QUERIES, BLOCK_WIDTH), tl.float32)
    for start in range(0, SEQUENCE, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        there = (keys[:, None] < SEQUENCE) & (numbers[None, :] < WIDTH)
        place = start_of + keys[:, None] * STRIDE + numbers[None, :]
        offered = tl.load(key + place, mask=there, other=0.0)
        numbers_of = tl.load(value + place, mask=there, other=0.0)
        real = keys < SEQUENCE
        if mask is not None:  # asked for beside the keys: after the product it would be waited for alone
            real = tl.load(mask + element * SEQUENCE + keys, mask=keys < SEQUENCE, other=0) != 0
        scores = tl.dot(asked, tl.trans(offered)) * (SCALE * 1.4426950408889634)
        if mask is not None:
            # A number, not infinity: an element without any token is then an average, as in Transformers, and no NaN.
            scores = tl.where(real[None, :], scores, -1e30)
        scores = tl.where(keys[None, :] < SEQUENCE, scores, float("-inf"))
        grown = tl.maximum(largest, tl.max(scores, 1))
        shares, kept = tl.exp2(scores - grown[:, None]), tl.exp2(largest - grown)
        weights = weights * kept + tl.sum(shares, 1)
        total = tl.dot(shares.to(numbers_of.dtype), numbers_of, total * kept[:, None])
        largest = grown
    return total / weights[:, None]


@triton.jit
def attended(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    mask: tl.tensor,
    result: tl.tensor,
    block: tl.tensor,
    head: tl.tensor,
    element: tl.tensor,
    STRIDE: tl.constexpr,
    RESULT_STRIDE: tl.constexpr,
    SEQUENCE: tl.constexpr,
    WIDTH: tl.constexpr,
    SCALE: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
) -> None:
    """Writes the result of a block of queries of a head of an element."""
    queries = block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    numbers = tl.arange(0, BLOCK_WIDTH)
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
    written = result + element * SEQUENCE * RESULT_STRIDE + head * WIDTH
    written += queries[:, None] * RESULT_STRIDE + numbers[None, :]
    inside = (queries[:, None] < SEQUENCE) & (numbers[None, :] < WIDTH)
    tl.store(written, (average * FACTOR).to(result.dtype.element_ty), mask=inside)


@triton.jit
def attention(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    mask: tl.tensor,
    result: tl.tensor,
    STRIDE: tl.constexpr,
    RESULT_STRIDE: tl.constexpr,
    SEQUENCE: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SCALE: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A block of queries of a head."""
    block, head, element = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    follow(OVERLAPPED)
    attended(
        query,
        key,
        value,
        mask,
        result,
        block,
        head,
        element,
        STRIDE,
        RESULT_STRIDE,
        SEQUENCE,
        WIDTH,
        SCALE,
        FACTOR,
        BLOCK_QUERIES,
        BLOCK_KEYS,
        BLOCK_WIDTH,
    )


def work(batch: int, sequence: int, hidden: int, heads: int, tile: AttentionTile, *, masked: bool, size: int) -> Work:
    """What attention of a layer does.

    Args:
        batch: Texts.
        sequence: Tokens of a text.
        hidden: Width of a token, of all heads together.
        heads: They share it.
        tile: How it is cut.
        masked: Whether there is a mask.
        size: Bytes of a number of the result.
    """
    tokens = batch * sequence
    masks, groups = 8 * tokens * masked, heads * blocks(sequence, tile.queries)
    loaded = (2 + size) * tokens * hidden + blocks(sequence, tile.queries) * 4 * tokens * hidden + groups * masks
    return Work((6 + size) * tokens * hidden + masks, loaded, 4 * tokens * sequence * hidden)


def launch(
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    result: Any,
    heads: int,
    tile: AttentionTile,
    *,
    factor: float = 1.0,
    overlapped: bool = False,
) -> Launch:
    """The launch of a layer's attention.

    Args:
        query: (batch, sequence, hidden), FP16: rows of tokens, a head's numbers beside each other. Rows may stand
            apart, as where one product gives all three; elements follow each other.
        key: As ``query``, its rows as far apart.
        value: The same.
        mask: (batch, sequence), INT64, zero where a token is padding, or None.
        result: As ``query``; its rows may stand otherwise, and its type may be E4M3. It may be ``query``.
        heads: They share the hidden size alike.
        tile: Blocks of queries and keys.
        factor: What the result is multiplied by as it is written.
        overlapped: Whether it follows the launch before it without a gap.
    """
    batch, sequence, hidden = query.shape
    width = hidden // heads
    arguments = {
        **{"query": query, "key": key, "value": value, "mask": mask, "result": result},
        **{"STRIDE": query.stride(1), "RESULT_STRIDE": result.stride(1), "SEQUENCE": sequence},
        **{"HEADS": heads, "WIDTH": width, "SCALE": width**-0.5, "FACTOR": factor},
        **{"BLOCK_QUERIES": tile.queries, "BLOCK_KEYS": min(tile.keys, power_of_two(sequence, LEAST))},
        **{"BLOCK_WIDTH": power_of_two(width, LEAST), "OVERLAPPED": overlapped},
    }
    grid = (blocks(sequence, tile.queries), heads, batch)
    done = work(batch, sequence, hidden, heads, tile, masked=mask is not None, size=result.element_size())
    return Launch("attention", attention, grid, arguments, done, tile.warps, tile.stages)
