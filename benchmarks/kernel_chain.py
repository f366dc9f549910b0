#!/usr/bin/env python3
"""Takes the time of the fused encoder apart, on a card that has PyTorch and Triton alone.

python benchmarks/kernel_chain.py --output kernel_chain.json                     # DistilBERT, batch 1, 128 tokens
python benchmarks/kernel_chain.py --precision fp8 --output kernel_chain.fp8.json

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
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from fused_tiles import AT_ONCE, LAYERS, WITHIN, request, weights_of
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
    return Encoder(weights, encoder.batch, encoder.sequence, encoder.tiles, overlapped=encoder.overlapped)


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


def compile_beside(encoder: Encoder) -> None:
    """Compile every kernel of the variants beside each other."""
    launches = [one for _, chain in variants(encoder) for one in chain]
    distinct = {(one.step, one.kernel.fn.__name__, str(one.arguments.get("SPAN"))): one for one in launches}
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


def main() -> None:
    """Time every variant, overlapped and one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(LAYERS), default="distilbert")
    parser.add_argument("--precision", choices=sorted(WITHIN), default="fp16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--tiles", type=Path, default=tiles.TUNED, help="tuned tiles")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    device, weights = gpu.visible().slug, weights_of(LAYERS[given.model], given.precision, "cuda")
    tokens = given.batch * given.sequence
    tuned = tiles.kept(device, weights.sizes(tokens), given.tiles)
    cut = tuned or tiles.defaults(tokens, given.precision)
    rows = []
    print("| chain | launches | overlapped | in a row, us (least to most) | a launch, us | closed loop, us | TFLOP/s |")
    print("|---|---|---|---|---|---|---|")
    with torch.inference_mode():
        for overlapped in (True, False):
            encoder = Encoder(weights, given.batch, given.sequence, cut, overlapped=overlapped)
            compile_beside(encoder)
            for name, launches in variants(encoder):
                took = timed(captured(launches))
                operations = sum(one.work.operations for one in launches)
                head = {"chain": name, "overlapped": overlapped, "launches": len(launches), "operations": operations}
                rows.append({**head, **took})
                queued, closed = took["queued"], statistics.median(took["closed"])
                middle = statistics.median(queued)
                print(
                    f"| {name} | {len(launches)} | {overlapped} | {middle:.1f} ({min(queued):.1f} to {max(queued):.1f})"
                    f" | {middle / len(launches):.2f} | {closed:.1f} | {operations / middle / 1e6:.0f} |",
                    flush=True,
                )
                content = {"device": device, "size": weights.sizes(tokens), "tiles": tiles.written(cut)}
                write_json(given.output, content | {"tuned": tuned is not None, "chains": rows})


if __name__ == "__main__":
    main()
