"""Embedding of tokens: ``norm(word[id] + position[place])``; the first token type is part of the table of positions.

A program takes one token. Bytes of the ids, INT64, and, FP16, of a row of words and of the result for each token, of
a row of positions for each place, of gain and offset. Where products are FP8, the row once more in E4M3.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.launch import Launch, Work, power_of_two
from ceilings.kernels.normalization import normalized
from ceilings.kernels.overlap import follow


@triton.jit
def embedded(
    ids: tl.tensor,
    words: tl.tensor,
    row: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    hidden: tl.tensor,
    narrow: tl.tensor,
    token: tl.tensor,
    WIDTH: tl.constexpr,
    EPSILON: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Writes the normalised sum of a token's word and ``row``, its position."""
    numbers = tl.arange(0, BLOCK)
    inside = numbers < WIDTH
    row += tl.load(words + tl.load(ids + token) * WIDTH + numbers, mask=inside, other=0.0).to(tl.float32)
    result = normalized(row, scale, shift, inside, WIDTH, EPSILON)
    tl.store(hidden + token * WIDTH + numbers, result.to(hidden.dtype.element_ty), mask=inside)
    if narrow is not None:
        tl.store(narrow + token * WIDTH + numbers, (result * FACTOR).to(narrow.dtype.element_ty), mask=inside)


@triton.jit
def embedding(
    ids: tl.tensor,
    words: tl.tensor,
    positions: tl.tensor,
    gain: tl.tensor,
    offset: tl.tensor,
    hidden: tl.tensor,
    narrow: tl.tensor,
    SEQUENCE: tl.constexpr,
    WIDTH: tl.constexpr,
    EPSILON: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A token."""
    token = tl.program_id(0)
    numbers = tl.arange(0, BLOCK)
    inside = numbers < WIDTH
    scale = tl.load(gain + numbers, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(offset + numbers, mask=inside, other=0.0).to(tl.float32)
    row = tl.load(positions + (token % SEQUENCE) * WIDTH + numbers, mask=inside, other=0.0).to(tl.float32)
    follow(OVERLAPPED)
    embedded(ids, words, row, scale, shift, hidden, narrow, token, WIDTH, EPSILON, FACTOR, BLOCK)


def work(batch: int, sequence: int, width: int, *, narrow: bool) -> Work:
    """What it does, if no two tokens are the same word; positions are shared by the elements of the batch."""
    tokens = batch * sequence
    once = 8 * tokens + (4 + narrow) * tokens * width
    return Work(once + 2 * sequence * width + 4 * width, once + 2 * tokens * width + tokens * 4 * width)


def launch(
    ids: Any, words: Any, positions: Any, norm: Any, hidden: Any, narrow: Any, warps: int, *, overlapped: bool = False
) -> Launch:
    """The launch of the embedding.

    Args:
        ids: (batch, sequence), INT64.
        words: (vocabulary, width), FP16.
        positions: (positions, width), FP16.
        norm: Its ``gain``, ``offset`` and ``epsilon``, and the ``factor`` by which ``narrow`` is larger.
        hidden: (batch x sequence, width), FP16: where the result goes.
        narrow: As ``hidden``, E4M3: where it goes as well, or None.
        warps: A program's.
        overlapped: Whether it follows the launch before it without a gap.
    """
    (batch, sequence), width = ids.shape, words.shape[1]
    arguments = {
        **{"ids": ids, "words": words, "positions": positions, "gain": norm.gain, "offset": norm.offset},
        **{"hidden": hidden, "narrow": narrow, "SEQUENCE": sequence, "WIDTH": width},
        **{"EPSILON": norm.epsilon, "FACTOR": norm.factor},
        **{"BLOCK": power_of_two(width), "OVERLAPPED": overlapped},
    }
    done = work(batch, sequence, width, narrow=narrow is not None)
    return Launch("embedding", embedding, (batch * sequence, 1, 1), arguments, done, warps)
