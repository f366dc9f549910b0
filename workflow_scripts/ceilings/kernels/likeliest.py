"""Where a decode step ends: the likeliest token of each row, and one position further.

The programs of the head each left the largest of their logits; a program here takes a row's and keeps the first of the
largest. So the next replay of the same graph begins with this token at the next position, and nothing asks the host.
Bytes of a row's largest logits, FP32, and their places, INT64, and of tokens and position, INT64.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.launch import Launch, Work, power_of_two
from ceilings.kernels.overlap import follow
from ceilings.kernels.streaming import FRESH


@triton.jit
def likeliest(
    largest: tl.tensor,
    place: tl.tensor,
    token: tl.tensor,
    position: tl.tensor,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A row."""
    row, numbers = tl.program_id(0), tl.arange(0, BLOCK)
    follow(OVERLAPPED)
    inside = numbers < COUNT
    values = tl.load(largest + row * COUNT + numbers, mask=inside, other=float("-inf"), cache_modifier=FRESH)
    # What is not a number is never chosen: its place would be that of padding. The logits still show it.
    best = tl.argmax(tl.where(values > float("-inf"), values, float("-inf")), 0)
    tl.store(token + row, tl.load(place + row * COUNT + best, cache_modifier=FRESH))
    if row == 0:
        tl.store(position, tl.load(position) + 1)


def work(batch: int, count: int) -> Work:
    """What it does; one of the places is read in each row."""
    moved = batch * (4 * count + 8 + 8) + 2 * 8
    return Work(moved, moved)


def launch(largest: Any, place: Any, token: Any, position: Any, *, overlapped: bool = False) -> Launch:
    """The last launch of a step.

    Args:
        largest: (batch, programs), FP32.
        place: (batch, programs), INT64.
        token: (batch, 1), INT64: where the choice goes.
        position: (1,), INT64: what is advanced.
        overlapped: Whether it starts while the launch before it ends.
    """
    batch, count = largest.shape
    arguments = {
        **{"largest": largest, "place": place, "token": token, "position": position},
        **{"COUNT": count, "BLOCK": power_of_two(count), "OVERLAPPED": overlapped},
    }
    return Launch("likeliest", likeliest, (batch, 1, 1), arguments, work(batch, count), 8)
