#!/usr/bin/env python3
"""Tunes the tiles of the fused encoder: on a card by time, without one by what a compiled program takes.

python benchmarks/fused_tiles.py --model distilbert --seconds 300   # on a card: writes tuned_tiles.json and an account
python benchmarks/fused_tiles.py --model distilbert --compile       # anywhere: a table of the tiles that would be tried
python benchmarks/fused_tiles.py --model distilbert --predict FILE  # anywhere: least times, from a peaks.json
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings import gpu
from ceilings.files import write_json
from ceilings.kernels import encoder_weights, tiles
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.launch import blocks
from ceilings.kernels.tiles import AttentionTile, ProductTile, Tiles
from ceilings.models.families import text_encoder

TASK = "sequence-classification"
STEPS = ("qkv", "up", "down", "out", "attention", "row_warps")
"""In the order in which they are tuned: the largest work first."""

REPLAYS, REPEATS = 20, 9
GAIN = 0.995
"""What a tile must at least bring: less is within the noise of such a time."""

PROGRAMS = (48, 1600)
"""Programs of a product worth trying: fewer leave most of 132 multiprocessors idle, more are several waves of them."""

SHAPES = [(64, 32), (64, 64), (128, 32), (128, 64), (32, 64), (64, 128), (16, 64), (128, 128), (128, 256)]
"""Rows and columns of a product's program: from 64 rows on the instructions of a warp group are used."""

DEPTHS = [(64, 4), (64, 6), (128, 3), (128, 4)]
"""Numbers of the inner axis at a time, and loads under way."""


def candidates(step: str, rows: int, columns: int, inner: int) -> list[ProductTile]:
    """Tiles of a product worth trying, by how many programs they make and how much shared memory they ask for."""
    splits = (1, 2, 3, 4, 6) if step in ("out", "down") else (1,)
    made = []
    for (tall, wide), (deep, stages), cuts in itertools.product(SHAPES, DEPTHS, splits):
        programs = blocks(rows, tall) * blocks(columns, wide) * cuts
        fills = PROGRAMS[0] <= programs <= PROGRAMS[1] and inner % (deep * cuts) == 0 and inner // cuts >= 2 * deep
        # A warp's products of fewer rows take their operands from registers, and 128 of the inner axis spill.
        holds = 2 * (tall + wide) * deep * stages <= 200_000 and (tall >= 64 or deep == 64)
        if fills and holds:
            made.append(ProductTile(tall, wide, deep, cuts, 8 if tall * wide >= 128 * 128 else 4, stages))
    return made


def attention_candidates() -> list[AttentionTile]:
    """Tiles of attention worth trying."""
    return [AttentionTile(queries, keys, 4, 2) for queries in (16, 32, 64) for keys in (32, 64, 128)]


def tried(encoder: Encoder, step: str) -> list[Tiles]:
    """The encoder's tiles with one step's replaced by each candidate."""
    if step == "row_warps":
        values: list = [1, 2, 4, 8]
    elif step == "attention":
        values = attention_candidates()
    else:
        weight = getattr(encoder.weights.layers[0], step).weight
        values = candidates(step, encoder.batch * encoder.sequence, *weight.shape)
    return [dataclasses.replace(encoder.tiles, **{step: value}) for value in values]


def with_tiles(encoder: Encoder, cut: Tiles) -> Encoder:
    """The same encoder cut otherwise."""
    return Encoder(encoder.weights, encoder.batch, encoder.sequence, cut, overlapped=encoder.overlapped)


def made(model: str, batch: int, sequence: int, device: str, *, layers: int | None, overlapped: bool) -> Encoder:
    """An encoder with random weights of a model's sizes."""
    changes = {("n_layers" if model == "distilbert" else "num_hidden_layers"): layers} if layers else {}
    module = text_encoder.build(model, TASK, None, changes, seed=0, name=model)
    weights = encoder_weights.of(text_encoder.wrap(module.half().to(device).eval(), TASK))
    cut = tiles.kept(gpu.visible().slug, size_of(weights, batch * sequence)) if device == "cuda" else None
    return Encoder(weights, batch, sequence, cut or tiles.defaults(batch * sequence), overlapped=overlapped)


def size_of(weights: encoder_weights.EncoderWeights, tokens: int) -> str:
    """What the tiles are kept by."""
    return tiles.sizes(tokens, weights.hidden, weights.intermediate, weights.heads)


def request(encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and a mask of ones, on the weights' device."""
    size, device = (encoder.batch, encoder.sequence), encoder.weights.words.device
    ids = torch.arange(size[0] * size[1], device=device).reshape(size) * 37 % len(encoder.weights.words)
    return ids, torch.ones(size, dtype=torch.int64, device=device)


def timed(encoder: Encoder) -> tuple[float, torch.Tensor]:
    """Microseconds of a replay among others in a CUDA graph, median of several blocks, and the output."""
    inputs, side = request(encoder), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        encoder(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        encoder(*inputs)
    took = []
    for _ in range(REPEATS + 1):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(REPLAYS):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        took.append(begin.elapsed_time(end) * 1000 / REPLAYS)
    return statistics.median(took[1:]), encoder.outputs()[0].float().clone()


def tune(encoder: Encoder, seconds: float) -> tuple[Tiles, list[dict]]:
    """One step after the other, each by the time of the whole encoder; a tile that changes the answer is refused."""
    from triton.runtime.errors import OutOfResources

    until, account = time.monotonic() + seconds, []
    best, answer = timed(encoder)
    account.append({"step": "start", "tiles": tiles.written(encoder.tiles), "us": best})
    for step in STEPS:
        for cut in tried(encoder, step):
            if time.monotonic() > until:
                return encoder.tiles, [*account, {"step": step, "stopped": f"after {seconds:g} s"}]
            entry = {"step": step, "tile": tiles.written(cut)[step]}
            try:
                entry["us"], got = timed(with_tiles(encoder, cut))
            except OutOfResources as error:
                entry["refused"] = str(error)
            else:
                off = float((got - answer).norm() / answer.norm())
                entry["off"] = off
                if off > 2e-2:
                    entry["refused"] = "another answer"
                elif entry["us"] < GAIN * best:
                    best, encoder, entry["chosen"] = entry["us"], with_tiles(encoder, cut), True
            account.append(entry)
            print(json.dumps(entry), flush=True)
    return encoder.tiles, account


def compiled(encoder: Encoder) -> None:
    """Print what each candidate takes of a multiprocessor of compute capability 9.0."""
    from ceilings.kernels.resources import resources

    print("| step | tile | programs | registers | shared memory | spilled | product |\n|---|---|---|---|---|---|---|")
    for step in STEPS[:-1]:
        for cut in tried(encoder, step):
            launch = next(one for one in with_tiles(encoder, cut).launches(*request(encoder)) if one.step == step)
            taken, tile = resources(launch), getattr(cut, step)
            name = " x ".join(str(value) for value in dataclasses.astuple(tile))
            programs = launch.grid[0] * launch.grid[1] * launch.grid[2]
            fits = "" if taken.fits(90) else " (does not fit)"
            print(
                f"| {step} | {name} | {programs} | {taken.registers} | {taken.shared:,} | {taken.spilled}{fits} | "
                f"{taken.instructions} |",
                flush=True,
            )


def predicted(encoder: Encoder, peaks: dict) -> None:
    """Print the least times of each step in us: by memory, by L2 and by the matrix units."""
    rates = {name: peaks[key]["median"] for name, key in RATES.items()}
    print("| step | launches | moved, MB | from L2, MB | GFLOP | memory, us | L2, us | compute, us |\n|" + "---|" * 8)
    launches, rows = encoder.launches(*request(encoder)), []
    for step in dict.fromkeys(launch.step for launch in launches):
        same = [launch.work for launch in launches if launch.step == step]
        moved, loaded, operations = (sum(one[index] for one in same) for index in range(3))
        times = moved / rates["memory"] / 1e3, loaded / rates["l2"] / 1e3, operations / rates["compute"] / 1e6
        rows.append([len(same), moved / 1e6, loaded / 1e6, operations / 1e9, *times])
        print(f"| {step} | {len(same)} | " + " | ".join(f"{value:.3g}" for value in rows[-1][1:]) + " |")
    print(f"| all | {len(launches)} | " + " | ".join(f"{sum(row[k] for row in rows):.3g}" for k in range(1, 7)) + " |")
    kernels, nodes = sum(max(row[5:]) for row in rows), len(launches) * rates["node"]
    print(
        f"\nAt least {kernels:.3g} us of kernels if operands come from L2; {len(launches)} graph nodes {nodes:.3g} us"
    )


RATES = {
    "memory": "read_bandwidth",
    "l2": "l2_read_bandwidth",
    "node": "graph_node",
    "compute": "matrix_rate.fp16.8192x8192x8192",
}
"""Entries of a peaks.json."""


def main() -> None:
    """Tune, compile or predict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(encoder_weights.READERS), default="distilbert")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=300.0, help="time after which tuning stops")
    parser.add_argument("--serial", action="store_true", help="kernels that do not overlap")
    parser.add_argument("--account", type=Path, default=Path("fused_tiles.json"), help="every time that was measured")
    parser.add_argument("--output", type=Path, default=tiles.TUNED, help="the tiles, beside those already there")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--predict", type=Path, metavar="PEAKS")
    given = parser.parse_args()
    without_card = given.compile or given.predict
    encoder = made(
        *(given.model, given.batch, given.sequence, "cpu" if without_card else "cuda"),
        layers=1 if given.compile else None,
        overlapped=not given.serial,
    )
    if given.compile:
        compiled(encoder)
    elif given.predict:
        predicted(encoder, json.loads(given.predict.read_text())["peaks"])
    else:
        with torch.inference_mode():
            chosen, account = tune(encoder, given.seconds)
        device, size = gpu.visible().slug, size_of(encoder.weights, given.batch * given.sequence)
        kept = json.loads(given.output.read_text()) if given.output.is_file() else {}
        kept.setdefault(device, {})[size] = tiles.written(chosen)
        write_json(given.output, kept)
        write_json(given.account, {"device": device, "size": size, "model": given.model, "account": account})
        print(f"{device}, {size}: {json.dumps(tiles.written(chosen))}")


if __name__ == "__main__":
    main()
