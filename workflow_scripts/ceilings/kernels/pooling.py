"""Embedding of a text from those of its tokens: their mean without padding, or the first, of length 1 if wanted.

A program takes one text. Bytes of its tokens' rows (of ``cls`` the first alone) and of the result, FP16, and of the
mask, INT64.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.launch import Launch, Work, power_of_two
from ceilings.kernels.overlap import follow

TOKENS_AT_ONCE = 8
"""Rows that a program adds at a time: of 1,024 numbers they fill 64 registers a thread of four warps."""


@triton.jit
def pooling(
    hidden: tl.tensor,
    mask: tl.tensor,
    pooled: tl.tensor,
    SEQUENCE: tl.constexpr,
    READ: tl.constexpr,
    WIDTH: tl.constexpr,
    NORMALIZED: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A text, of which the first ``READ`` tokens are read."""
    text = tl.program_id(0)
    numbers = tl.arange(0, BLOCK)
    follow(OVERLAPPED)
    total = tl.zeros((BLOCK,), tl.float32)
    count = 0.0
    for start in range(0, READ, BLOCK_TOKENS):
        tokens = start + tl.arange(0, BLOCK_TOKENS)
        there = tokens < READ
        if mask is not None:
            there = there & (tl.load(mask + text * SEQUENCE + tokens, mask=there, other=0) != 0)
        inside = there[:, None] & (numbers[None, :] < WIDTH)
        rows = tl.load(hidden + (text * SEQUENCE + tokens[:, None]) * WIDTH + numbers[None, :], mask=inside, other=0.0)
        total += tl.sum(rows.to(tl.float32), 0)
        count += tl.sum(there.to(tl.float32))
    total = total / tl.maximum(count, 1.0)
    if NORMALIZED:
        total = total / tl.maximum(tl.sqrt(tl.sum(total * total)), 1e-12)
    tl.store(pooled + text * WIDTH + numbers, total.to(pooled.dtype.element_ty), mask=numbers < WIDTH)


def work(batch: int, tokens: int, width: int, *, masked: bool) -> Work:
    """What it does: ``tokens`` of each text are read, by one program."""
    moved = batch * (tokens * (2 * width + 8 * masked) + 2 * width)
    return Work(moved, moved)


def launch(hidden: Any, mask: Any, pooled: Any, kind: str, *, normalize: bool, overlapped: bool = False) -> Launch:
    """The launch of a pooling.

    Args:
        hidden: (batch, sequence, width), FP16.
        mask: (batch, sequence), INT64, zero where a token is padding, or None.
        pooled: (batch, width), FP16: where the result goes.
        kind: ``mean`` or ``cls``.
        normalize: Whether the result has length 1.
        overlapped: Whether it follows the launch before it without a gap.
    """
    batch, sequence, width = hidden.shape
    read, masks = (1, None) if kind == "cls" else (sequence, mask)
    arguments = {
        **{"hidden": hidden, "mask": masks, "pooled": pooled, "SEQUENCE": sequence, "READ": read, "WIDTH": width},
        **{"NORMALIZED": normalize, "BLOCK_TOKENS": min(TOKENS_AT_ONCE, power_of_two(read))},
        **{"BLOCK": power_of_two(width), "OVERLAPPED": overlapped},
    }
    return Launch("pooling", pooling, (batch, 1, 1), arguments, work(batch, read, width, masked=masks is not None))
