"""The product of a few rows with a weight that is read once: ``y = activation(x W^T + bias)``, of a decode step.

At a batch of 1 to 8 the step takes what reading its weights takes. So a program takes some whole rows of the weight
into registers with wide loads, all under way at once and before it waits for the kernel before (``overlap.py``): while
kernels wait for each other, memory works. What stands around the product is in the same launch, since a row of x is
2 KB and every program can make it ready by itself:

| x is | then y is |
|---|---|
| ``Plain``: as it lies there | ``Written`` |
| ``Normed``: LayerNorm of what lies there | ``Added`` to what lies there, the residual |
| ``Parts``: what the parts of attention amount to | ``Cached``: queries written, keys and values into the cache |
| | ``Judged``: logits written in FP32, with each program's largest |

Operands are FP16, all sums FP32. Bytes of the weight (columns x inner) and the bias, of x and y as :func:`work` says;
``2 batch columns inner`` operations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ceilings.kernels.decoder_tiles import StepTile
from ceilings.kernels.launch import Launch, Work, blocks, power_of_two
from ceilings.kernels.overlap import follow
from ceilings.kernels.product import activated

FRESH = tl.constexpr(".cg")
"""How what other kernels wrote is read: from L2, whatever an earlier kernel left in a multiprocessor's own cache."""


class Plain(NamedTuple):
    """x (batch, inner), FP16."""

    x: Any


class Normed(NamedTuple):
    """LayerNorm of x (batch, inner), FP16; ``norm`` has ``gain``, ``offset`` and ``epsilon``."""

    x: Any
    norm: Any


class Parts(NamedTuple):
    """Attention in parts (``cached_attention.py``): x (batch, parts, inner), FP16, and their shares.

    Attributes:
        x: Each part's result as if it were the only one.
        shares: (batch, parts, heads), FP32: base-2 logarithms of what each part weighs.
    """

    x: Any
    shares: Any


class Written(NamedTuple):
    """y (batch, columns), FP16."""

    y: Any


class Added(NamedTuple):
    """y (batch, columns), FP16, to which the product is added."""

    y: Any


class Cached(NamedTuple):
    """Queries, keys and values, a third of the columns each.

    Attributes:
        y: Queries (batch, columns / 3), FP16.
        key: Of the layer, (batch, heads, length, width), FP16; one place of each is written.
        value: The same.
        position: (1,), INT64: which place.
    """

    y: Any
    key: Any
    value: Any
    position: Any


class Judged(NamedTuple):
    """Logits, and of each program's columns the largest.

    Attributes:
        y: (batch, columns), FP32.
        largest: (batch, programs), FP32.
        place: (batch, programs), INT64: its column, the first of equal ones.
    """

    y: Any
    largest: Any
    place: Any


@triton.jit
def normalized_rows(
    x: tl.tensor, gain: tl.tensor, offset: tl.tensor, inside: tl.tensor, WIDTH: tl.constexpr, EPSILON: tl.constexpr
) -> tl.tensor:
    """LayerNorm of each row of FP32 numbers, of which those ``inside`` count and the others are zero."""
    centred = tl.where(inside[None, :], x - (tl.sum(x, 1) / WIDTH)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / WIDTH + EPSILON)
    return centred * scale[:, None] * gain[None, :] + offset[None, :]


@triton.jit
def together(
    x: tl.tensor,
    shares: tl.tensor,
    BATCH: tl.constexpr,
    INNER: tl.constexpr,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
) -> tl.tensor:
    """What the parts of attention amount to, by their shares, in FP32: rows of heads beside each other."""
    WIDTH: tl.constexpr = INNER // HEADS
    BLOCK_HEADS: tl.constexpr = BLOCK_INNER // WIDTH
    # Heads first: the compiler then gives each thread the same numbers as in the weight, and nothing is exchanged.
    heads, parts = tl.arange(0, BLOCK_HEADS)[:, None, None], tl.arange(0, PARTS)[None, :, None]
    rows, numbers = tl.arange(0, BLOCK_BATCH)[None, None, :], tl.arange(0, WIDTH)[None, None, None, :]
    there = (heads < HEADS) & (rows < BATCH)
    place = (rows * PARTS + parts) * HEADS + heads
    share = tl.load(shares + place, mask=there, other=0.0, cache_modifier=FRESH)
    taken = x + place[:, :, :, None] * WIDTH + numbers
    result = tl.load(taken, mask=there[:, :, :, None], other=0.0, cache_modifier=FRESH).to(tl.float32)
    weights = tl.exp2(share - tl.max(share, 1, keep_dims=True))
    weights /= tl.sum(weights, 1, keep_dims=True)
    total = tl.sum(weights[:, :, :, None] * result, 1)
    return tl.reshape(tl.permute(total, (1, 0, 2)), (BLOCK_BATCH, BLOCK_INNER))


@triton.jit
def row_of(tile: tl.tensor, rows: tl.tensor, row: tl.constexpr) -> tl.tensor:
    """One row of a tile. All rows lie in each thread's registers, so that it is chosen while compiling."""
    return tl.sum(tl.where(rows[:, None] == row, tile, 0.0), 0)


@triton.jit
def streamed(  # noqa: PLR0915 - one launch holds all that stands around the product
    x: tl.tensor,
    shares: tl.tensor,
    gain: tl.tensor,
    offset: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    position: tl.tensor,
    largest: tl.tensor,
    place: tl.tensor,
    BATCH: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    LENGTH: tl.constexpr,
    EPSILON: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ADDED: tl.constexpr,
    BLOCK_BATCH: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """Some columns of y, in all rows."""
    program = tl.program_id(0)
    columns = program * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inner, rows = tl.arange(0, BLOCK_INNER), tl.arange(0, BLOCK_BATCH)
    inside = columns < COLUMNS
    # Beyond the edge the last column is read again, and nothing is written.
    column_of = tl.minimum(columns, COLUMNS - 1)
    within = inner < INNER
    taken = weight + column_of[:, None] * INNER + inner[None, :]
    if INNER == BLOCK_INNER:
        weights = tl.load(taken, eviction_policy="evict_first")
    else:
        weights = tl.load(taken, mask=within[None, :], other=0.0, eviction_policy="evict_first")
    if bias is not None:
        added = tl.load(bias + column_of).to(tl.float32)
    if gain is not None:
        scale = tl.load(gain + inner, mask=within, other=0.0).to(tl.float32)
        shift = tl.load(offset + inner, mask=within, other=0.0).to(tl.float32)
    if key is not None:
        WIDTH: tl.constexpr = COLUMNS // (3 * HEADS)
        which, number = columns // (HEADS * WIDTH), columns % (HEADS * WIDTH)
        at = tl.load(position)  # the last kernel of a step advances it, and a step's first kernel overlaps with none
    follow(OVERLAPPED, EARLY=True)
    if ADDED:
        held = (rows[:, None] < BATCH) & inside[None, :]
        before = y + rows[:, None] * COLUMNS + columns[None, :]
        residual = tl.load(before, mask=held, other=0.0, cache_modifier=FRESH).to(tl.float32)
    if shares is not None:
        left = together(x, shares, BATCH, INNER, PARTS, HEADS, BLOCK_BATCH, BLOCK_INNER)
    else:
        there = (rows[:, None] < BATCH) & within[None, :]
        asked = x + rows[:, None] * INNER + inner[None, :]
        left = tl.load(asked, mask=there, other=0.0, cache_modifier=FRESH).to(tl.float32)
    if gain is not None:
        left = normalized_rows(left, scale, shift, within, INNER, EPSILON)
    for row in tl.static_range(BATCH):
        total = tl.sum(weights.to(tl.float32) * row_of(left, rows, row)[None, :], 1)
        if bias is not None:
            total += added
        total = activated(total, ACTIVATION)
        if key is not None:
            kept = ((row * HEADS + number // WIDTH) * LENGTH + at) * WIDTH + number % WIDTH
            half = total.to(y.dtype.element_ty)
            tl.store(y + row * HEADS * WIDTH + number, half, mask=inside & (which == 0))
            tl.store(key + kept, half, mask=inside & (which == 1))
            tl.store(value + kept, half, mask=inside & (which == 2))
        else:
            if ADDED:
                total += row_of(residual, rows, row)
            tl.store(y + row * COLUMNS + columns, total.to(y.dtype.element_ty), mask=inside)
        if largest is not None:
            most, index = tl.max(tl.where(inside, total, float("-inf")), 0, return_indices=True)
            judged = row * tl.num_programs(0) + program
            tl.store(largest + judged, most)
            tl.store(place + judged, (program * BLOCK_COLUMNS + index).to(tl.int64))


def work(source: Any, weight: Any, bias: Any, target: Any, tile: StepTile) -> Work:
    """What a product does, by the sizes of its operands; x, vectors and the position are read by every program."""
    columns, inner = weight.shape
    batch, programs = len(source.x), blocks(columns, tile.columns)
    around = source.x.numel() * 2
    if isinstance(source, Normed):
        around += 2 * 2 * inner
    elif isinstance(source, Parts):
        around += source.shares.numel() * 4
    written = batch * columns * (4 if isinstance(target, Judged) else 2)
    if isinstance(target, Added):
        written *= 2  # read and written
    elif isinstance(target, Judged):
        written += batch * programs * (4 + 8)
    position = 8 * isinstance(target, Cached)
    once = 2 * columns * (inner + (bias is not None))
    padded = 2 * programs * tile.columns * (inner + (bias is not None))
    moved = once + around + position + written
    return Work(moved, padded + programs * (around + position) + written, 2 * batch * columns * inner)


def launch(
    step: str,
    source: Plain | Normed | Parts,
    weight: Any,
    bias: Any,
    target: Written | Added | Cached | Judged,
    tile: StepTile,
    activation: str = "none",
    *,
    overlapped: bool = False,
) -> Launch:
    """The launch of a product.

    Args:
        step: Its name.
        source: What x is.
        weight: (columns, inner), FP16, in one piece.
        bias: (columns,), FP16, or None.
        target: What y is.
        tile: Columns of a program.
        activation: One of ``product.ACTIVATIONS``.
        overlapped: Whether it starts while the launch before it ends.

    Raises:
        ValueError: Sizes that do not fit each other.
    """
    columns, inner = weight.shape
    batch, wanted = len(source.x), columns // 3 if isinstance(target, Cached) else columns
    if source.x.shape[-1] != inner or tuple(target.y.shape) != (batch, wanted):
        x, y = tuple(source.x.shape), tuple(target.y.shape)
        raise ValueError(f"{step}: x {x}, W {(columns, inner)}, y {y}: no product")
    shares, norm = getattr(source, "shares", None), getattr(source, "norm", None)
    key, largest = getattr(target, "key", None), getattr(target, "largest", None)
    heads = shares.shape[2] if shares is not None else key.shape[1] if key is not None else 1
    arguments = {
        **{"x": source.x, "shares": shares},
        **{"gain": norm and norm.gain, "offset": norm and norm.offset, "weight": weight, "bias": bias},
        **{"y": target.y, "key": key, "value": getattr(target, "value", None)},
        **{"position": getattr(target, "position", None)},
        **{"largest": largest, "place": getattr(target, "place", None)},
        **{"BATCH": batch, "COLUMNS": columns, "INNER": inner},
        **{"PARTS": 1 if shares is None else shares.shape[1], "HEADS": heads},
        **{"LENGTH": 0 if key is None else key.shape[2], "EPSILON": norm.epsilon if norm else 0.0},
        **{"ACTIVATION": activation, "ADDED": isinstance(target, Added)},
        **{"BLOCK_BATCH": power_of_two(batch), "BLOCK_COLUMNS": tile.columns, "BLOCK_INNER": power_of_two(inner)},
        "OVERLAPPED": overlapped,
    }
    done = work(source, weight, bias, target, tile)
    return Launch(step, streamed, (blocks(columns, tile.columns), 1, 1), arguments, done, tile.warps)
