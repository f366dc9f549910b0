#!/usr/bin/env python3
"""Takes the time of the fused encoder apart, on a card that has PyTorch and Triton alone.

python benchmarks/kernel_chain.py --output kernel_chain.json                     # DistilBERT, batch 1, 128 tokens
python benchmarks/kernel_chain.py --precision fp8 --output kernel_chain.fp8.json
python benchmarks/kernel_chain.py --projected --output projected.json          # attention and projection as one kernel

Each line is one change of the whole encoder, in a CUDA graph: what is left out, and what the rest then takes. Nobody
reads the answers of these; only the times mean something.

- whole: the encoder as it runs.
- resident: every layer has the weights of the first, which then stay in L2.
- first tile: products read one block of the inner axis. What is left is launching, waiting for the kernel before, one
  way to memory or L2 and back, and writing.
- idle: products and attention take their registers and shared memory, wait and end; the others are empty. Between
  launches of different shared memory a multiprocessor divides its memory anew, which the next line leaves out.
- empty: the same programs and warps, and no body.
- one program: empty kernels of one program.
- kind alone: the launches of one step, in their order and again, so many as the encoder has launches.

With ``--projected`` these chains are whole encoders, whose answers count, each timed in two turns over all of them:

- apart: attention and its projection are two launches, 45 in all.
- projected, and a tile (queries x keys x columns x heads x warps x stages): they are one, 39 in all.
- sums in turn: as apart, but the assembler is free to save registers in a normalisation, which then asks for a few
  partial sums at a time, as all encoders did before.

Of each, the states are held against those of apart, and 50 replays against each other by their bits. After them the
launches of one step alone, of each tile.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from fused_tiles import AT_ONCE, LAYERS, WITHIN, projection_candidates, request, weights_of, with_tiles, within
from triton import AsyncCompileMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings import gpu
from ceilings.files import write_json
from ceilings.kernels import tiles
from ceilings.kernels.attention import attention as whole_attention
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.launch import Launch, Work, blocks, power_of_two
from ceilings.kernels.overlap import follow
from ceilings.kernels.product import product as whole_product

REPLAYS, WARM, REPEATS = 50, 3, 11
"""Replays of a block in a row, blocks before those that count, and these; as many replays one at a time."""


@triton.jit
def nothing(OVERLAPPED: tl.constexpr) -> None:
    """An empty kernel that waits for the one before it."""
    follow(OVERLAPPED)


@triton.jit
def idle_product(  # noqa: PLR0917
    gate: tl.tensor,
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
    """The product where ``gate`` is not zero: with zero its program starts, with all that it takes, waits and ends."""
    if gate != 0:
        whole_product(
            x,
            weight,
            scale,
            bias,
            y,
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
            LINE_NUMBERS,
            SPAN_LINES,
            EXACT,
            PREFETCHED,
            OVERLAPPED,
        )
    else:
        follow(OVERLAPPED)


@triton.jit
def idle_attention(  # noqa: PLR0917
    gate: tl.tensor,
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
    """Attention, as ``idle_product`` is the product."""
    if gate != 0:
        whole_attention(
            query,
            key,
            value,
            mask,
            result,
            STRIDE,
            RESULT_STRIDE,
            SEQUENCE,
            HEADS,
            WIDTH,
            SCALE,
            FACTOR,
            BLOCK_QUERIES,
            BLOCK_KEYS,
            BLOCK_WIDTH,
            OVERLAPPED,
        )
    else:
        follow(OVERLAPPED)


def idle(launch: Launch) -> Launch:
    """The same program without work: its registers and its shared memory are taken, and nothing is read or written."""
    kernels = {whole_product: idle_product, whole_attention: idle_attention}
    if launch.kernel not in kernels:
        return emptied(launch)
    arguments = {"gate": 0, **launch.arguments}
    return dataclasses.replace(launch, kernel=kernels[launch.kernel], arguments=arguments, work=Work(0, 0))


def emptied(launch: Launch, grid: tuple[int, int, int] | None = None) -> Launch:
    """The same launch without a body, or of another grid."""
    arguments = {"OVERLAPPED": launch.arguments["OVERLAPPED"]}
    return Launch(launch.step, nothing, grid or launch.grid, arguments, Work(0, 0), launch.warps)


def shortened(launch: Launch) -> Launch:
    """A product that reads one block of the inner axis; other launches as they are."""
    if launch.kernel is not whole_product:
        return launch
    block, line = launch.arguments["BLOCK_INNER"], launch.arguments["LINE_NUMBERS"]
    lines = power_of_two(blocks(block, line))
    return dataclasses.replace(
        launch, arguments={**launch.arguments, "SPAN": block, "EXACT": True, "SPAN_LINES": lines}, work=Work(0, 0)
    )


def resident(encoder: Encoder) -> Encoder:
    """The encoder with the first layer's weights in all layers."""
    layers = (encoder.weights.layers[0],) * len(encoder.weights.layers)
    weights = dataclasses.replace(encoder.weights, layers=layers)
    return with_tiles(encoder, encoder.tiles, weights)


def variants(encoder: Encoder) -> Iterator[tuple[str, list[Launch]]]:
    """Each chain of launches by its name, as many as the encoder has."""
    inputs = request(encoder)
    whole = encoder.launches(*inputs)
    yield "whole", whole
    hot = resident(encoder).launches(*inputs)
    yield "resident", hot
    yield "first tile", [shortened(one) for one in whole]
    yield "first tile, resident", [shortened(one) for one in hot]
    yield "idle", [idle(one) for one in whole]
    yield "empty", [emptied(one) for one in whole]
    yield "one program", [emptied(one, (1, 1, 1)) for one in whole]
    for step in dict.fromkeys(one.step for one in whole):
        for name, chain in (("alone", whole), ("alone, resident", hot)):
            same = [one for one in chain if one.step == step]
            yield f"{step} {name}", (same * len(whole))[: len(whole)]


class Freed(Encoder):
    """The encoder whose normalisations leave registers to the assembler."""

    def launches(self, ids: torch.Tensor, mask: torch.Tensor | None) -> list[Launch]:
        """Every launch of a request, in order."""
        made = super().launches(ids, mask)
        return [dataclasses.replace(one, registers=None) if one.step in ("norm", "end") else one for one in made]


def encoders(encoder: Encoder) -> dict[str, Encoder]:
    """Whole encoders by their names: attention and projection apart, and as one kernel of each tile."""
    sides = encoder.weights, encoder.batch, encoder.sequence
    made = {"apart": encoder, "sums in turn": Freed(*sides, encoder.tiles, overlapped=encoder.overlapped)}
    for tile in projection_candidates():
        cut = dataclasses.replace(encoder.tiles, projection=tile)
        name = " x ".join(str(value) for value in dataclasses.astuple(tile))
        made[f"projected {name}"] = Encoder(*sides, cut, overlapped=encoder.overlapped, projected=True)
    return made


def steps_alone(made: Mapping[str, Encoder]) -> Iterator[tuple[str, list[Launch]]]:
    """What lies between qkv and up, and the other normalisation, step by step, as often as ``apart`` has launches."""
    for name, one in made.items():
        launches = one.launches(*request(one))
        wanted = ("projection", "norm") if one.projected else ("attention", "out", "norm", "end")
        for step in wanted:
            same = [launch for launch in launches if launch.step == step]
            yield f"{name}, {step} alone", (same * 45)[:45]


def answer(graph: torch.cuda.CUDAGraph, encoder: Encoder, expected: torch.Tensor) -> dict[str, float | bool]:
    """How far a token's state is from the expected one, at most, and whether replays give the same bits."""
    graph.replay()
    first, equal = encoder.states.clone(), True
    for _ in range(REPLAYS):
        encoder.states.fill_(float("nan"))
        graph.replay()
        equal = equal and torch.equal(encoder.states, first)
    off = (first.float() - expected).norm(dim=-1) / expected.norm(dim=-1)
    return {"off": off.max().item(), "equal": equal}


def compile_beside(launches: Iterable[Launch]) -> None:
    """Compile every kernel of these beside each other."""
    distinct = {}
    for one in launches:
        constants = [value for name, value in one.arguments.items() if not hasattr(value, "data_ptr")]
        distinct[one.kernel.fn.__name__, str(one.options), str(constants)] = one
    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool, AsyncCompileMode(pool, ignore_errors=True):
        for launch in distinct.values():
            launch.compile()


def captured(launches: Sequence[Callable[[], Any]]) -> torch.cuda.CUDAGraph:
    """A CUDA graph of launches, or of other calls that enqueue work; each has run once before."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for launch in launches:
            launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        for launch in launches:
            launch()
    return graph


def timed(graph: torch.cuda.CUDAGraph) -> dict[str, list[float]]:
    """Microseconds of a replay, one a block: ``queued`` by events, many in a row; ``closed`` by the host's clock."""
    took: dict[str, list[float]] = {"queued": [], "closed": []}
    for _ in range(WARM + REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(REPLAYS):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        took["queued"].append(begin.elapsed_time(end) * 1000 / REPLAYS)
        singly = []
        for _ in range(REPLAYS):
            before = time.perf_counter_ns()
            graph.replay()
            torch.cuda.synchronize()
            singly.append((time.perf_counter_ns() - before) / 1000)
        took["closed"].append(statistics.median(singly))
    return {name: values[WARM:] for name, values in took.items()}


def chains(encoder: Encoder, *, projected: bool) -> Iterator[tuple[str, list[Launch], Encoder | None]]:
    """Each chain by its name, and of a whole encoder, whose answer counts, this."""
    if not projected:
        for name, launches in variants(encoder):
            yield name, launches, None
        return
    made = encoders(encoder)
    for turn in (1, 2):
        for name, one in made.items():
            yield f"{name}, turn {turn}", one.launches(*request(one)), one
    for name, launches in steps_alone(made):
        yield name, launches, None


def measured(launches: list[Launch], encoder: Encoder | None, expected: torch.Tensor) -> dict:
    """Times of a chain, and of an encoder its answer."""
    graph = captured(launches)
    return timed(graph) | (answer(graph, encoder, expected) if encoder else {})


def shown(name: str, overlapped: bool, launches: list[Launch], took: dict, allowed: float) -> str:
    """A chain's line in the table."""
    queued, middle = took["queued"], statistics.median(took["queued"])
    operations = sum(one.work.operations for one in launches)
    said = ""
    if "off" in took:
        right = "right" if took["off"] <= allowed and took["equal"] else "WRONG"
        said = f"{right}: {took['off']:.2g} off, equal bits: {took['equal']}"
    return (
        f"| {name} | {len(launches)} | {overlapped} | {middle:.1f} ({min(queued):.1f} to {max(queued):.1f})"
        f" | {middle / len(launches):.2f} | {statistics.median(took['closed']):.1f} | {operations / middle / 1e6:.0f}"
        f" | {said} |"
    )


def main() -> None:
    """Time every chain, overlapped and one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(LAYERS), default="distilbert")
    parser.add_argument("--precision", choices=sorted(WITHIN), default="fp16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--projected", action="store_true", help="compare attention with its projection in one kernel")
    parser.add_argument("--tiles", type=Path, default=tiles.TUNED, help="tuned tiles")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    device, weights = gpu.visible().slug, weights_of(LAYERS[given.model], given.precision, "cuda")
    tokens = given.batch * given.sequence
    tuned = tiles.kept(device, weights.sizes(tokens), given.tiles)
    cut = tuned or tiles.defaults(tokens, given.precision)
    content = {"device": device, "size": weights.sizes(tokens), "tiles": tiles.written(cut), "tuned": tuned is not None}
    rows: list[dict] = []
    print(
        "| chain | launches | overlapped | in a row, us (least to most) | a launch, us | closed loop, us | TFLOP/s"
        " | answer |\n" + "|---" * 8 + "|"
    )
    with torch.inference_mode():
        for overlapped in (True, False):
            encoder = Encoder(weights, given.batch, given.sequence, cut, overlapped=overlapped)
            made = list(chains(encoder, projected=given.projected))
            compile_beside(launch for _, launches, _ in made for launch in launches)
            encoder(*request(encoder))
            expected = encoder.states.float().clone()
            for name, launches, whole in made:
                operations = sum(one.work.operations for one in launches)
                row = {"chain": name, "overlapped": overlapped, "launches": len(launches), "operations": operations}
                try:
                    row |= measured(launches, whole, expected)
                    print(shown(name, overlapped, launches, row, within(weights)), flush=True)
                except Exception as error:  # a tile that does not fit is no reason to end
                    row["error"] = f"{type(error).__name__}: {error}"[:500]
                    print(f"| {name} | {row['error']} |", flush=True)
                rows.append(row)
                write_json(given.output, content | {"chains": rows})


if __name__ == "__main__":
    main()
