"""The product of tokens with a weight matrix, with what follows it: ``y = activation(scale x W^T + bias)``.

QKV, the FFN's first half and the heads are this kernel with a bias and an activation. The projections back to the
hidden size are it without either, cut along the inner axis: at 128 tokens and 768 columns whole products would occupy
a few dozen of 132 multiprocessors. Each cut writes its own FP32 sum, and the normalisation that follows adds them.

Queries, keys and values are one product whose weight holds the three on top of each other. A token's row then has the
three side by side and each head's columns together, which attention reads with strides: no transposition is needed.

Operands are FP16 or E4M3, both alike. E4M3 has a scale for each column, which holds that of the weight's row and that
of x (``fp8_weights.py``). Sums are FP32. Hopper's units add products of E4M3 with some 14 bits, so their sums are taken
from them and added in FP32 after each block of the inner axis. Bytes of x (rows x inner), W (columns x inner), scale,
FP32, and bias, FP16 (columns), and, once a cut, y (rows x columns); ``2 rows columns inner`` operations.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from ceilings.kernels.launch import Launch, Work, blocks
from ceilings.kernels.overlap import follow, prefetch
from ceilings.kernels.tiles import ProductTile

ACTIVATIONS = ("none", "gelu", "gelu_new", "relu", "tanh")
"""What can follow a product; ``gelu`` is the exact one, by erf, ``gelu_new`` GPT-2's, by tanh."""

LINE = 128
"""Bytes of a cache line."""


@triton.jit
def activated(values: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """An activation of FP32 numbers."""
    if ACTIVATION == "gelu":
        values = 0.5 * values * (1.0 + tl.erf(values * 0.7071067811865476))
    if ACTIVATION == "gelu_new":
        cubic = 1.5957691216057308 * (values + 0.044715 * values * values * values)  # twice the tanh's argument
        values = values * tl.sigmoid(cubic)
    if ACTIVATION == "relu":
        values = tl.maximum(values, 0.0)
    if ACTIVATION == "tanh":
        values = 2.0 * tl.sigmoid(2.0 * values) - 1.0
    return values


@triton.jit
def multiplied(
    x: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    added: tl.tensor,
    y: tl.tensor,
    columns: tl.tensor,
    rows: tl.tensor,
    cut: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    X_ROW: tl.constexpr,
    Y_ROW: tl.constexpr,
    Y_COLUMN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    SPAN: tl.constexpr,
    EXACT: tl.constexpr,
) -> None:
    """Writes these columns of these rows over a cut of the inner axis; scales and biases are those of the columns."""
    # Beyond the edge the first rows and columns are read again, and nothing is written.
    row_of, column_of = rows % ROWS, columns % COLUMNS
    inner = cut * SPAN + tl.arange(0, BLOCK_INNER)
    left = x + row_of[:, None] * X_ROW + inner[None, :]
    right = weight + column_of[None, :] * INNER + inner[:, None]
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, SPAN, BLOCK_INNER):
        if EXACT:
            a, b = tl.load(left), tl.load(right)
        else:
            within = inner + start < INNER
            a = tl.load(left, mask=within[None, :], other=0.0)
            b = tl.load(right, mask=within[:, None], other=0.0)
        total += tl.dot(
            a, b
        )  # FP16: the units add to the total itself. E4M3: they start at zero, and this is an addition
        left += BLOCK_INNER
        right += BLOCK_INNER
    if scales is not None:
        total *= scales[None, :]
    if added is not None:
        total += added[None, :]
    target = y + cut * ROWS * COLUMNS + rows[:, None] * Y_ROW + columns[None, :] * Y_COLUMN
    inside = (rows[:, None] < ROWS) & (columns[None, :] < COLUMNS)
    tl.store(target, (activated(total, ACTIVATION) * FACTOR).to(y.dtype.element_ty), mask=inside)


@triton.jit
def product(
    x: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    X_ROW: tl.constexpr,
    Y_ROW: tl.constexpr,
    Y_COLUMN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    SPAN: tl.constexpr,
    LINE_NUMBERS: tl.constexpr,
    SPAN_LINES: tl.constexpr,
    EXACT: tl.constexpr,
    PREFETCHED: tl.constexpr,
    OVERLAPPED: tl.constexpr,
) -> None:
    """A block of rows and columns over a span of the inner axis."""
    columns = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    rows = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cut = tl.program_id(2)
    column_of = columns % COLUMNS
    scales, added = None, None
    if PREFETCHED:
        lines = tl.minimum(cut * SPAN + LINE_NUMBERS * tl.arange(0, SPAN_LINES), INNER - 1)
        prefetch(weight + column_of[:, None] * INNER + lines[None, :])
    if scale is not None:
        scales = tl.load(scale + column_of)
    if bias is not None:
        added = tl.load(bias + column_of).to(tl.float32)
    follow(OVERLAPPED)
    multiplied(
        x,
        weight,
        scales,
        added,
        y,
        columns,
        rows,
        cut,
        ROWS,
        COLUMNS,
        INNER,
        X_ROW,
        Y_ROW,
        Y_COLUMN,
        ACTIVATION,
        FACTOR,
        BLOCK_ROWS,
        BLOCK_COLUMNS,
        BLOCK_INNER,
        SPAN,
        EXACT,
    )


def work(
    rows: int, columns: int, inner: int, tile: ProductTile, *, bias: bool, scaled: bool, read: int, size: int
) -> Work:
    """What a product does.

    Args:
        rows: Of x and y.
        columns: Of y, rows of the weight.
        inner: Columns of x and of the weight.
        tile: How it is cut.
        bias: Whether there is one.
        scaled: Whether columns have scales.
        read: Bytes of a number of x and of the weight.
        size: Bytes of a number of y.
    """
    column, written = 2 * bias + 4 * scaled, tile.splits * rows * columns * size
    across, down = blocks(columns, tile.columns), blocks(rows, tile.rows)
    span = tile.span(inner) * tile.splits
    loaded = across * down * (read * (tile.rows + tile.columns) * span + column * tile.columns * tile.splits)
    moved = read * (rows + columns) * inner + column * columns + written
    return Work(moved, loaded + written, 2 * rows * columns * inner)


def launch(
    step: str,
    x: Any,
    weight: Any,
    bias: Any,
    y: Any,
    tile: ProductTile,
    activation: str = "none",
    *,
    scale: Any = None,
    factor: float = 1.0,
    transposed: bool = False,
    overlapped: bool = False,
) -> Launch:
    """The launch of a product.

    Args:
        step: Its name.
        x: (rows, inner), FP16 or E4M3; rows may lie apart, numbers of a row may not.
        weight: (columns, inner), as x, in one piece.
        bias: (columns,), FP16, or None.
        y: (rows, columns), or (cuts, rows, columns) where the tile cuts the inner axis or partial sums are wanted;
            (columns, rows) if ``transposed``.
        tile: Blocks and cuts.
        activation: One of ``ACTIVATIONS``.
        scale: (columns,), FP32: what sums of a column are multiplied by, where x and weight are E4M3; else None.
        factor: What y is multiplied by as it is written.
        transposed: Whether y is.
        overlapped: Whether it follows the launch before it without a gap.

    Raises:
        ValueError: Sizes or types that do not fit each other, or an activation of partial sums.
    """
    (rows, inner), columns = x.shape, weight.shape[0]
    sizes = tuple(y.shape[-2:][::-1] if transposed else y.shape[-2:])
    if weight.shape[1] != inner or sizes != (rows, columns) or y.numel() != tile.splits * rows * columns:
        raise ValueError(f"{step}: x {tuple(x.shape)}, W {tuple(weight.shape)}, y {tuple(y.shape)}: no product")
    if x.dtype != weight.dtype or (x.element_size() == 1) != (scale is not None):
        raise ValueError(f"{step}: x {x.dtype}, W {weight.dtype}: no product; E4M3 has scales, and FP16 has none")
    if tile.splits > 1 and (bias is not None or activation != "none" or transposed):
        raise ValueError(f"{step}: partial sums have no bias, no activation and no transposed form")
    span, line = tile.span(inner), LINE // x.element_size()
    arguments = {
        **{"x": x, "weight": weight, "scale": scale, "bias": bias, "y": y},
        **{"ROWS": rows, "COLUMNS": columns, "INNER": inner},
        **{"X_ROW": x.stride(0), "Y_ROW": 1 if transposed else columns, "Y_COLUMN": rows if transposed else 1},
        **{"ACTIVATION": activation, "FACTOR": factor, "BLOCK_ROWS": tile.rows, "BLOCK_COLUMNS": tile.columns},
        **{"BLOCK_INNER": tile.inner, "SPAN": span},
        # Without it the last cut ends beyond the inner axis, and further cuts may lie beyond it altogether.
        **{"EXACT": tile.splits * span == inner},
        **{"LINE_NUMBERS": line, "SPAN_LINES": triton.next_power_of_2(blocks(span, line))},
        **{"PREFETCHED": overlapped, "OVERLAPPED": overlapped},
    }
    grid = (blocks(columns, tile.columns), blocks(rows, tile.rows), tile.splits)
    sides = {"bias": bias is not None, "scaled": scale is not None, "read": x.element_size(), "size": y.element_size()}
    done = work(rows, columns, inner, tile, **sides)
    return Launch(step, product, grid, arguments, done, tile.warps, tile.stages)
