"""LayerNorm of what a product's cuts left: ``norm(sum of partial sums + bias + residual)``, over the residual's place.

A program takes one token. It adds the FP32 partial sums in their order, so that the result is the same each time,
which atomic additions would not give. Bytes of the partial sums, FP32, and, FP16, of the token's row as read and as
written, of bias, gain and offset. Where products are FP8, the result is written once more in E4M3.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.launch import Launch, Work, power_of_two
from ceilings.kernels.overlap import follow

REGISTERS = 128
"""Of a thread, at most: enough for twelve partial sums of 768 columns to be under way at once. Where the assembler is
free it keeps to 32 registers, and each pair of sums is asked for when the pair before it has come."""


@triton.jit
def normalized(
    row: tl.tensor, gain: tl.tensor, offset: tl.tensor, inside: tl.tensor, WIDTH: tl.constexpr, EPSILON: tl.constexpr
) -> tl.tensor:
    """LayerNorm of a row of FP32 numbers, of which those ``inside`` count and the others are zero."""
    centred = tl.where(inside, row - tl.sum(row) / WIDTH, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred) / WIDTH + EPSILON) * gain + offset


@triton.jit
def summed(
    partial: tl.tensor,
    row: tl.tensor,
    hidden: tl.tensor,
    narrow: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    token: tl.tensor,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    EPSILON: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Writes the normalised sum of a token's partial sums, its residual and ``row``, the bias."""
    numbers = tl.arange(0, BLOCK)
    inside = numbers < WIDTH
    place = token * WIDTH + numbers
    for cut in tl.static_range(SPLITS):
        row += tl.load(partial + cut * TOKENS * WIDTH + place, mask=inside, other=0.0)
    row += tl.load(hidden + place, mask=inside, other=0.0).to(tl.float32)
    result = normalized(row, scale, shift, inside, WIDTH, EPSILON)
    tl.store(hidden + place, result.to(hidden.dtype.element_ty), mask=inside)
    if narrow is not None:
        tl.store(narrow + place, (result * FACTOR).to(narrow.dtype.element_ty), mask=inside)


@triton.jit
def normalization(
    partial: tl.tensor,
    bias: tl.tensor,
    hidden: tl.tensor,
    narrow: tl.tensor,
    gain: tl.tensor,
    offset: tl.tensor,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    EPSILON: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A token."""
    numbers = tl.arange(0, BLOCK)
    inside = numbers < WIDTH
    row = tl.load(bias + numbers, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(gain + numbers, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(offset + numbers, mask=inside, other=0.0).to(tl.float32)
    follow(OVERLAPPED)
    summed(
        partial,
        row,
        hidden,
        narrow,
        scale,
        shift,
        tl.program_id(0),
        TOKENS,
        WIDTH,
        SPLITS,
        EPSILON,
        FACTOR,
        BLOCK,
    )


def work(tokens: int, width: int, splits: int, *, narrow: bool) -> Work:
    """What it does: no operand but the three vectors is read by several programs."""
    rows = tokens * width * (4 * splits + 2 + 2 + narrow)
    return Work(rows + 3 * 2 * width, rows + tokens * 3 * 2 * width)


def launch(
    step: str, partial: Any, bias: Any, hidden: Any, narrow: Any, norm: Any, warps: int, *, overlapped: bool = False
) -> Launch:
    """The launch of a normalisation.

    Args:
        step: Its name.
        partial: (cuts, tokens, width), FP32.
        bias: (width,), FP16, of the product that was cut.
        hidden: (tokens, width), FP16: the residual, and where the result goes.
        narrow: As ``hidden``, E4M3: where the result goes as well, or None.
        norm: Its ``gain``, ``offset`` and ``epsilon``, and the ``factor`` by which ``narrow`` is larger.
        warps: A program's.
        overlapped: Whether it follows the launch before it without a gap.
    """
    splits, tokens, width = partial.shape
    arguments = {
        **{"partial": partial, "bias": bias, "hidden": hidden, "narrow": narrow, "gain": norm.gain},
        **{"offset": norm.offset, "TOKENS": tokens, "WIDTH": width, "SPLITS": splits, "EPSILON": norm.epsilon},
        **{"FACTOR": norm.factor, "BLOCK": power_of_two(width), "OVERLAPPED": overlapped},
    }
    done = work(tokens, width, splits, narrow=narrow is not None)
    return Launch(step, normalization, (tokens, 1, 1), arguments, done, warps, registers=REGISTERS)
