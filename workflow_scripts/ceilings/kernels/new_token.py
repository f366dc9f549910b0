"""Where a decode step begins: ``hidden = word[token] + place[position]``.

A program takes a row. Bytes of the tokens and the position, INT64, and, FP16, of a row of words and of the result for
each token and of one row of places.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.launch import Launch, Work, power_of_two


@triton.jit
def new_token(
    token: tl.tensor,
    position: tl.tensor,
    words: tl.tensor,
    places: tl.tensor,
    hidden: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A row."""
    row, numbers = tl.program_id(0), tl.arange(0, BLOCK)
    inside = numbers < WIDTH
    result = tl.load(words + tl.load(token + row) * WIDTH + numbers, mask=inside, other=0.0).to(tl.float32)
    result += tl.load(places + tl.load(position) * WIDTH + numbers, mask=inside, other=0.0).to(tl.float32)
    tl.store(hidden + row * WIDTH + numbers, result.to(hidden.dtype.element_ty), mask=inside)


def work(batch: int, width: int) -> Work:
    """What it does, if no two tokens are the same word."""
    moved = batch * (8 + 4 * width) + 8 + 2 * width
    return Work(moved, moved + (batch - 1) * (8 + 2 * width))


def launch(token: Any, position: Any, words: Any, places: Any, hidden: Any) -> Launch:
    """The first launch of a step, which overlaps with nothing: the step before has written what this one begins with.

    Args:
        token: (batch, 1), INT64: the newest ones.
        position: (1,), INT64: theirs.
        words: (vocabulary, width), FP16.
        places: (positions, width), FP16.
        hidden: (batch, width), FP16: where the result goes.
    """
    batch, width = hidden.shape
    arguments = {
        **{"token": token, "position": position, "words": words, "places": places, "hidden": hidden},
        **{"WIDTH": width, "BLOCK": power_of_two(width), "OVERLAPPED": False},
    }
    return Launch("token", new_token, (batch, 1, 1), arguments, work(batch, width))
