"""All layers of an encoder in one launch: as many programs as multiprocessors, and a barrier after each step.

A program takes blocks of each step in turn, with the code of the kernels of these steps. Launching and draining of
kernels is replaced by barriers (``barrier.py``). Before it waits at a barrier, a program asks for its share of the
weights of steps to come, so that memory works while programs wait.

The steps have numbers: 0 is the embedding, then seven a layer. A launch takes those from ``first`` to ``last``. One
launch a step computes the same numbers in the same order, without any barrier: Triton's interpreter, which runs one
program after the other, can do that alone. FP16 only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ceilings.errors import CellFailure
from ceilings.kernels import attention
from ceilings.kernels.attention import attended
from ceilings.kernels.barrier import PATIENCE, arrive, await_all
from ceilings.kernels.embedding import embedded
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.encoder_weights import EncoderWeights, Layer, Linear
from ceilings.kernels.launch import Launch, Work, power_of_two
from ceilings.kernels.normalization import summed
from ceilings.kernels.overlap import prefetch
from ceilings.kernels.product import multiplied
from ceilings.kernels.tiles import ProductTile, Tiles

STEPS = ("qkv", "attention", "out", "norm", "up", "down", "end")
"""Of a layer, in order."""

PARTS = {
    **dict.fromkeys(("qkv", "out", "up", "down"), ("weight", "bias")),
    **dict.fromkeys(("norm", "end"), ("gain", "offset")),
}
"""What of a layer has numbers, and their names."""


@triton.jit
def request_weights(
    weight: tl.tensor, NUMBERS: tl.constexpr, PROGRAMS: tl.constexpr, LINES: tl.constexpr, AHEAD: tl.constexpr
) -> None:
    """Asks for this program's share of a weight, in lines of the cache."""
    if AHEAD:
        CHUNK: tl.constexpr = 64 * LINES
        for turn in range((NUMBERS + PROGRAMS * CHUNK - 1) // (PROGRAMS * CHUNK)):
            start = (tl.program_id(0) + turn * PROGRAMS) * CHUNK
            if start < NUMBERS:
                prefetch(weight + tl.minimum(start + 64 * tl.arange(0, LINES), NUMBERS - 1))


@triton.jit
def all_blocks(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    program: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    X_ROW: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    SPLITS: tl.constexpr,
    SPAN: tl.constexpr,
    PROGRAMS: tl.constexpr,
) -> None:
    """Writes this program's blocks of a product; without a bias they are partial sums."""
    ACROSS: tl.constexpr = (COLUMNS + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    DOWN: tl.constexpr = (ROWS + BLOCK_ROWS - 1) // BLOCK_ROWS
    BLOCKS: tl.constexpr = ACROSS * DOWN * SPLITS
    for turn in range((BLOCKS + PROGRAMS - 1) // PROGRAMS):
        block = program + turn * PROGRAMS
        if block < BLOCKS:
            columns = (block % ACROSS) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
            rows = (block // ACROSS % DOWN) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
            added = None
            if bias is not None:
                added = tl.load(bias + columns % COLUMNS).to(tl.float32)
            multiplied(
                x,
                weight,
                None,
                added,
                y,
                columns,
                rows,
                block // (ACROSS * DOWN),
                ROWS,
                COLUMNS,
                INNER,
                X_ROW,
                COLUMNS,
                1,
                ACTIVATION,
                1.0,
                BLOCK_ROWS,
                BLOCK_COLUMNS,
                BLOCK_INNER,
                SPAN,
                SPLITS * SPAN == INNER,
            )


@triton.jit
def all_rows(
    partial: tl.tensor,
    bias: tl.tensor,
    hidden: tl.tensor,
    gain: tl.tensor,
    offset: tl.tensor,
    program: tl.tensor,
    TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
    PROGRAMS: tl.constexpr,
) -> None:
    """Normalises this program's tokens."""
    numbers = tl.arange(0, BLOCK)
    inside = numbers < WIDTH
    row = tl.load(bias + numbers, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(gain + numbers, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(offset + numbers, mask=inside, other=0.0).to(tl.float32)
    for turn in range((TOKENS + PROGRAMS - 1) // PROGRAMS):
        token = program + turn * PROGRAMS
        if token < TOKENS:
            summed(partial, row, hidden, None, scale, shift, token, TOKENS, WIDTH, SPLITS, EPSILON, 1.0, BLOCK)


@triton.jit
def passed(counter: tl.tensor, count: tl.tensor, here: tl.tensor, patience: tl.tensor) -> tl.tensor:
    """Waits at a barrier that lies between two steps of this launch."""
    if here:
        patience = await_all(counter, count, patience)
    return patience


@triton.jit
def counted(counter: tl.tensor, here: tl.tensor, PROGRAMS: tl.constexpr) -> tl.tensor:
    """Counts this program in at a barrier that lies between two steps of this launch."""
    count = tl.full((), 0, tl.int64)
    if here:
        count = arrive(counter, PROGRAMS)
    return count


@triton.jit(do_not_specialize=["first", "last", "patience"])
def persistent(  # noqa: PLR0915 - a step after the other
    ids: tl.tensor,
    mask: tl.tensor,
    words: tl.tensor,
    positions: tl.tensor,
    start_gain: tl.tensor,
    start_offset: tl.tensor,
    qkv_weight: tl.tensor,
    qkv_bias: tl.tensor,
    out_weight: tl.tensor,
    out_bias: tl.tensor,
    norm_gain: tl.tensor,
    norm_offset: tl.tensor,
    up_weight: tl.tensor,
    up_bias: tl.tensor,
    down_weight: tl.tensor,
    down_bias: tl.tensor,
    end_gain: tl.tensor,
    end_offset: tl.tensor,
    hidden: tl.tensor,
    qkv: tl.tensor,
    wide: tl.tensor,
    out_sums: tl.tensor,
    down_sums: tl.tensor,
    counter: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    patience: tl.tensor,
    LAYERS: tl.constexpr,
    BATCH: tl.constexpr,
    SEQUENCE: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    HEADS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SCALE: tl.constexpr,
    START_EPSILON: tl.constexpr,
    NORM_EPSILON: tl.constexpr,
    END_EPSILON: tl.constexpr,
    QKV: tl.constexpr,
    OUT: tl.constexpr,
    UP: tl.constexpr,
    DOWN: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
    PROGRAMS: tl.constexpr,
    LINES: tl.constexpr,
    AHEAD: tl.constexpr,
) -> None:
    """Steps from ``first`` to ``last``; ``QKV`` and the like: rows, columns, inner, cuts and span of their tiles."""
    TOKENS: tl.constexpr = BATCH * SEQUENCE
    QUERIES: tl.constexpr = (SEQUENCE + BLOCK_QUERIES - 1) // BLOCK_QUERIES
    GROUPS: tl.constexpr = QUERIES * HEADS * BATCH
    request_weights(qkv_weight, 3 * WIDTH * WIDTH, PROGRAMS, LINES, AHEAD)
    if first == 0:
        numbers = tl.arange(0, BLOCK)
        inside = numbers < WIDTH
        scale = tl.load(start_gain + numbers, mask=inside, other=0.0).to(tl.float32)
        shift = tl.load(start_offset + numbers, mask=inside, other=0.0).to(tl.float32)
        for turn in range((TOKENS + PROGRAMS - 1) // PROGRAMS):
            token = tl.program_id(0) + turn * PROGRAMS
            if token < TOKENS:
                place = positions + (token % SEQUENCE) * WIDTH + numbers
                row = tl.load(place, mask=inside, other=0.0).to(tl.float32)
                embedded(ids, words, row, scale, shift, hidden, None, token, WIDTH, START_EPSILON, 1.0, BLOCK)
    here = (first <= 0) & (last > 0)
    count = counted(counter, here, PROGRAMS)
    patience = passed(counter, count, here, patience)
    # Patience is never negative, which the compiler cannot know: a program whose number follows from it computes its
    # addresses in each step. Known before the loop, those of all steps would fill the registers.
    step = 1
    for layer in range(LAYERS):
        square = layer * WIDTH * WIDTH
        oblong = layer * WIDTH * WIDE

        program = tl.program_id(0) + tl.minimum(patience, 0)
        if (first <= step) & (step <= last):
            all_blocks(
                hidden,
                qkv_weight + 3 * square,
                qkv_bias + layer * 3 * WIDTH,
                qkv,
                program,
                TOKENS,
                3 * WIDTH,
                WIDTH,
                WIDTH,
                "none",
                QKV[0],
                QKV[1],
                QKV[2],
                QKV[3],
                QKV[4],
                PROGRAMS,
            )
        here = (first <= step) & (step < last)
        count = counted(counter, here, PROGRAMS)
        request_weights(out_weight + square, WIDTH * WIDTH, PROGRAMS, LINES, AHEAD)
        request_weights(up_weight + oblong, WIDTH * WIDE, PROGRAMS, LINES, AHEAD)
        patience = passed(counter, count, here, patience)
        step += 1

        program = tl.program_id(0) + tl.minimum(patience, 0)
        if (first <= step) & (step <= last):
            for turn in range((GROUPS + PROGRAMS - 1) // PROGRAMS):
                block = program + turn * PROGRAMS
                if block < GROUPS:
                    attended(
                        qkv,
                        qkv + WIDTH,
                        qkv + 2 * WIDTH,
                        mask,
                        qkv,
                        block % QUERIES,
                        block // QUERIES % HEADS,
                        block // (QUERIES * HEADS),
                        3 * WIDTH,
                        3 * WIDTH,
                        SEQUENCE,
                        WIDTH // HEADS,
                        SCALE,
                        1.0,
                        BLOCK_QUERIES,
                        BLOCK_KEYS,
                        BLOCK_HEAD,
                    )
        here = (first <= step) & (step < last)
        count = counted(counter, here, PROGRAMS)
        patience = passed(counter, count, here, patience)
        step += 1

        program = tl.program_id(0) + tl.minimum(patience, 0)
        if (first <= step) & (step <= last):
            all_blocks(
                qkv,
                out_weight + square,
                None,
                out_sums,
                program,
                TOKENS,
                WIDTH,
                WIDTH,
                3 * WIDTH,
                "none",
                OUT[0],
                OUT[1],
                OUT[2],
                OUT[3],
                OUT[4],
                PROGRAMS,
            )
        here = (first <= step) & (step < last)
        count = counted(counter, here, PROGRAMS)
        request_weights(down_weight + oblong, WIDTH * WIDE, PROGRAMS, LINES, AHEAD)
        patience = passed(counter, count, here, patience)
        step += 1

        program = tl.program_id(0) + tl.minimum(patience, 0)
        if (first <= step) & (step <= last):
            all_rows(
                out_sums,
                out_bias + layer * WIDTH,
                hidden,
                norm_gain + layer * WIDTH,
                norm_offset + layer * WIDTH,
                program,
                TOKENS,
                WIDTH,
                OUT[3],
                NORM_EPSILON,
                BLOCK,
                PROGRAMS,
            )
        here = (first <= step) & (step < last)
        count = counted(counter, here, PROGRAMS)
        patience = passed(counter, count, here, patience)
        step += 1

        program = tl.program_id(0) + tl.minimum(patience, 0)
        if (first <= step) & (step <= last):
            all_blocks(
                hidden,
                up_weight + oblong,
                up_bias + layer * WIDE,
                wide,
                program,
                TOKENS,
                WIDE,
                WIDTH,
                WIDTH,
                ACTIVATION,
                UP[0],
                UP[1],
                UP[2],
                UP[3],
                UP[4],
                PROGRAMS,
            )
        here = (first <= step) & (step < last)
        count = counted(counter, here, PROGRAMS)
        if layer + 1 < LAYERS:
            request_weights(qkv_weight + 3 * square + 3 * WIDTH * WIDTH, 3 * WIDTH * WIDTH, PROGRAMS, LINES, AHEAD)
        patience = passed(counter, count, here, patience)
        step += 1

        program = tl.program_id(0) + tl.minimum(patience, 0)
        if (first <= step) & (step <= last):
            all_blocks(
                wide,
                down_weight + oblong,
                None,
                down_sums,
                program,
                TOKENS,
                WIDTH,
                WIDE,
                WIDE,
                "none",
                DOWN[0],
                DOWN[1],
                DOWN[2],
                DOWN[3],
                DOWN[4],
                PROGRAMS,
            )
        here = (first <= step) & (step < last)
        count = counted(counter, here, PROGRAMS)
        patience = passed(counter, count, here, patience)
        step += 1

        program = tl.program_id(0) + tl.minimum(patience, 0)
        if (first <= step) & (step <= last):
            all_rows(
                down_sums,
                down_bias + layer * WIDTH,
                hidden,
                end_gain + layer * WIDTH,
                end_offset + layer * WIDTH,
                program,
                TOKENS,
                WIDTH,
                DOWN[3],
                END_EPSILON,
                BLOCK,
                PROGRAMS,
            )
        here = (first <= step) & (step < last)
        count = counted(counter, here, PROGRAMS)
        patience = passed(counter, count, here, patience)
        step += 1
    if patience == 0:  # some program did not come: no number of the answer may pass for one
        for token in range(TOKENS):
            numbers = tl.arange(0, BLOCK)
            wrong = tl.full((BLOCK,), float("nan"), tl.float16)
            tl.store(hidden + token * WIDTH + numbers, wrong, mask=numbers < WIDTH)


def stacked(weights: EncoderWeights) -> EncoderWeights:
    """The same weights, those of all layers in one piece each: layers are then views of it, one after the other.

    Raises:
        CellFailure: ``unsupported``: FP8, or layers that differ in more than their numbers.
    """
    layers = weights.layers
    alike = {(one.qkv.activation, one.up.activation, one.norm.epsilon, one.end.epsilon) for one in layers}
    if weights.precision != "fp16" or len(alike) != 1:
        raise CellFailure("unsupported", "the persistent kernel computes FP16 alone, and layers that are alike")

    pieces = {
        (part, field): torch.stack([getattr(getattr(layer, part), field) for layer in layers])
        for part, fields in PARTS.items()
        for field in fields
    }

    def layer_of(index: int, layer: Layer) -> Layer:
        changed = {
            part: getattr(layer, part)._replace(
                **{field: pieces[part, field][index] for name, field in pieces if name == part}
            )
            for part in PARTS
        }
        return layer._replace(**changed)

    return dataclasses.replace(weights, layers=tuple(layer_of(*one) for one in enumerate(layers)))


class PersistentEncoder(Encoder):
    """An encoder whose layers are one launch; the head's launches follow it.

    Args:
        weights: Of the model, on the device, FP16.
        batch: Texts of a request.
        sequence: Tokens of a text, padding included.
        tiles: How each step is cut; warps and stages are those of ``tiles.qkv`` for all steps.
        programs: Of the launch: at most one a multiprocessor.
        at_once: Whether one launch takes all steps; else a launch takes one.
        ahead: Whether programs ask for weights of steps to come.

    Raises:
        CellFailure: ``unsupported``: FP8, or more tokens than the model has positions.
    """

    def __init__(
        self,
        weights: EncoderWeights,
        batch: int,
        sequence: int,
        tiles: Tiles,
        *,
        programs: int,
        at_once: bool = True,
        ahead: bool = True,
    ) -> None:
        super().__init__(stacked(weights), batch, sequence, tiles)
        self.programs, self.at_once, self.ahead = programs, at_once, ahead
        self._counter = torch.zeros(1, dtype=torch.int64, device=weights.words.device)

    def launches(self, ids: torch.Tensor, mask: torch.Tensor | None) -> list[Launch]:
        """Every launch of a request, in order."""
        final = len(STEPS) * len(self.weights.layers)
        spans = [(0, final)] if self.at_once else [(step, step) for step in range(final + 1)]
        works = [launch.work for launch in super().launches(ids, mask)]
        return [self._launch(ids, mask, first, last, works[first : last + 1]) for first, last in spans] + self._head(
            mask
        )

    def _launch(self, ids: torch.Tensor, mask: torch.Tensor | None, first: int, last: int, works: list[Work]) -> Launch:
        weights, tiles = self.weights, self.tiles
        layer, width = weights.layers[0], weights.hidden // weights.heads
        cuts = {
            step.upper(): cut_of(getattr(tiles, step), getattr(layer, step)) for step in ("qkv", "out", "up", "down")
        }
        arguments = {
            **{"ids": ids, "mask": mask, "words": weights.words, "positions": weights.positions},
            **{"start_gain": weights.norm.gain, "start_offset": weights.norm.offset},
            **{"qkv_weight": layer.qkv.weight, "qkv_bias": layer.qkv.bias},
            **{"out_weight": layer.out.weight, "out_bias": layer.out.bias},
            **{"norm_gain": layer.norm.gain, "norm_offset": layer.norm.offset},
            **{"up_weight": layer.up.weight, "up_bias": layer.up.bias},
            **{"down_weight": layer.down.weight, "down_bias": layer.down.bias},
            **{"end_gain": layer.end.gain, "end_offset": layer.end.offset},
            **{"hidden": self._hidden, "qkv": self._qkv, "wide": self._wide},
            **{"out_sums": self._out, "down_sums": self._down, "counter": self._counter},
            **{"first": first, "last": last, "patience": PATIENCE},
            **{"LAYERS": len(weights.layers), "BATCH": self.batch, "SEQUENCE": self.sequence},
            **{"WIDTH": weights.hidden, "WIDE": weights.intermediate, "HEADS": weights.heads},
            **{"ACTIVATION": layer.up.activation, "SCALE": width**-0.5, "START_EPSILON": weights.norm.epsilon},
            **{"NORM_EPSILON": layer.norm.epsilon, "END_EPSILON": layer.end.epsilon},
            **cuts,
            **{"BLOCK_QUERIES": tiles.attention.queries},
            **{"BLOCK_KEYS": min(tiles.attention.keys, power_of_two(self.sequence, attention.LEAST))},
            **{"BLOCK_HEAD": power_of_two(width, attention.LEAST), "BLOCK": power_of_two(weights.hidden)},
            **{"PROGRAMS": self.programs, "LINES": 32 * tiles.qkv.warps, "AHEAD": self.ahead},
        }
        return Launch(
            *("encoder", persistent, (self.programs, 1, 1), arguments, total(works), tiles.qkv.warps, tiles.qkv.stages),
            cooperative=True,
        )


def total(works: Sequence[Work]) -> Work:
    """What several steps do together; LayerNorm's vectors count for each token, as where a program has one."""
    return Work(*map(sum, zip(*works, strict=True)))


def cut_of(tile: ProductTile, linear: Linear) -> tuple[int, int, int, int, int]:
    """Rows, columns, inner, cuts and span of a product's tile, as the kernel reads them."""
    return tile.rows, tile.columns, tile.inner, tile.splits, tile.span(linear.weight.shape[1])
