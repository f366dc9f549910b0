"""Attention of one new token a row to a static cache: ``softmax(scale q K^T) V``, the context shared by programs.

A program takes some blocks of the keys and values of one head, every so many blocks one, so that all programs have
work whatever the context is. It leaves its own result and what that weighs; the projection after it puts the parts
together (``streaming.py``), so that no launch stands between. Keys and values of earlier steps were written before
this step began: the first block is asked for before the kernel waits for the one before, which writes the newest only.

Scores, softmax and sums are FP32, a part's result FP16. Bytes of the queries, of keys and values up to the newest
token, and of the parts; ``4 batch context hidden`` operations.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.decoder_tiles import ContextTile
from ceilings.kernels.launch import Launch, Work
from ceilings.kernels.overlap import follow
from ceilings.kernels.streaming import FRESH


@triton.jit
def cached_attention(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    position: tl.tensor,
    parts: tl.tensor,
    shares: tl.tensor,
    LENGTH: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A part of the context of a head of a row."""
    part, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    numbers = tl.arange(0, WIDTH)
    before = tl.load(position)
    of_head = row * HEADS + head
    keys = part * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    place = of_head * LENGTH * WIDTH + keys[:, None] * WIDTH + numbers[None, :]
    offered = tl.load(key + place, mask=keys[:, None] < before, other=0.0)
    held = tl.load(value + place, mask=keys[:, None] < before, other=0.0)
    follow(OVERLAPPED, EARLY=True)
    asked = tl.load(query + of_head * WIDTH + numbers, cache_modifier=FRESH).to(tl.float32)
    asked *= SCALE * 1.4426950408889634
    # The first part begins with the newest token.
    newest = (of_head * LENGTH + before) * WIDTH + numbers
    score = tl.sum(asked * tl.load(key + newest, cache_modifier=FRESH).to(tl.float32))
    largest = tl.where(part == 0, score, -1e30)
    weights = tl.where(part == 0, 1.0, 0.0)
    total = tl.load(value + newest, cache_modifier=FRESH).to(tl.float32) * weights
    for _ in range(0, LENGTH, PARTS * BLOCK_KEYS):
        there = keys < before
        scores = tl.where(there, tl.sum(offered.to(tl.float32) * asked[None, :], 1), -1e30)
        grown = tl.maximum(largest, tl.max(scores, 0))
        exponents, kept = tl.where(there, tl.exp2(scores - grown), 0.0), tl.exp2(largest - grown)
        weights = weights * kept + tl.sum(exponents, 0)
        total = total * kept + tl.sum(held.to(tl.float32) * exponents[:, None], 0)
        largest = grown
        keys += PARTS * BLOCK_KEYS
        place += PARTS * BLOCK_KEYS * WIDTH
        offered = tl.load(key + place, mask=keys[:, None] < before, other=0.0)
        held = tl.load(value + place, mask=keys[:, None] < before, other=0.0)
    result = total / tl.where(weights > 0.0, weights, 1.0)
    share = tl.where(weights > 0.0, largest + tl.log2(tl.where(weights > 0.0, weights, 1.0)), -1e30)
    left = row * PARTS + part
    tl.store(parts + (left * HEADS + head) * WIDTH + numbers, result.to(parts.dtype.element_ty))
    tl.store(shares + left * HEADS + head, share)


def work(batch: int, context: int, hidden: int, heads: int, tile: ContextTile) -> Work:
    """What attention does of ``context`` tokens, the newest among them, as every part reads that one."""
    reads = 2 * batch * hidden + 2 * 2 * batch * context * hidden
    written = batch * tile.parts * (2 * hidden + 4 * heads)
    again = (tile.parts - 1) * 3 * 2 * batch * hidden + (tile.parts * batch * heads - 1) * 8
    return Work(8 + reads + written, 8 + reads + written + again, 4 * batch * context * hidden)


def launch(
    query: Any,
    key: Any,
    value: Any,
    position: Any,
    parts: Any,
    shares: Any,
    tile: ContextTile,
    *,
    context: int,
    overlapped: bool = False,
) -> Launch:
    """The launch of a layer's attention.

    Args:
        query: (batch, hidden), FP16.
        key: (batch, heads, length, width), FP16; the width a power of two.
        value: As ``key``.
        position: (1,), INT64: tokens before the newest one, whose keys and values stand at this place.
        parts: (batch, parts, hidden), FP16: results.
        shares: (batch, parts, heads), FP32: base-2 logarithms of their weights; -1e30 of a part without tokens.
        tile: Keys at a time and parts.
        context: Tokens, the newest among them, for which the work is counted; the launch takes any.
        overlapped: Whether it starts while the launch before it ends.
    """
    batch, heads, length, width = key.shape
    arguments = {
        **{"query": query, "key": key, "value": value, "position": position, "parts": parts, "shares": shares},
        **{"LENGTH": length, "HEADS": heads, "WIDTH": width, "PARTS": tile.parts, "SCALE": width**-0.5},
        **{"BLOCK_KEYS": tile.keys, "OVERLAPPED": overlapped},
    }
    done = work(batch, context, heads * width, heads, tile)
    return Launch("attention", cached_attention, (tile.parts, heads, batch), arguments, done, tile.warps)
