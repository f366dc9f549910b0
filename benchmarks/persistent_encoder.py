#!/usr/bin/env python3
"""Times the encoder as one persistent launch beside the encoder of many, on a card with PyTorch and Triton alone.

PYTHONPATH=workflow_scripts python benchmarks/persistent_encoder.py --output persistent_encoder.json

It prints what a barrier of all programs takes, each encoder's time in a CUDA graph, in a row and in a closed loop,
and how far the persistent answer is from that of one launch a step (equal bits) and of the encoder of many kernels.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import sys
import traceback
from pathlib import Path

import torch
import triton
import triton.language as tl
from fused_tiles import request, weights_of
from kernel_chain import captured, timed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings import gpu
from ceilings.files import write_json
from ceilings.kernels import tiles
from ceilings.kernels.barrier import PATIENCE, arrive, await_all
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.launch import Launch, Work
from ceilings.kernels.persistent import PersistentEncoder
from ceilings.kernels.tiles import AttentionTile, ProductTile, Tiles

BARRIERS = (100, 1100)
"""Barriers of two launches: their difference leaves the launch out."""


@triton.jit(do_not_specialize=["barriers", "patience"])
def only_barriers(
    counter: tl.tensor, given_up: tl.tensor, barriers: tl.tensor, patience: tl.tensor, PROGRAMS: tl.constexpr
) -> None:
    """So many barriers, and nothing between them; says in ``given_up`` if a program lost patience."""
    for _ in range(barriers):
        count = arrive(counter, PROGRAMS)
        patience = await_all(counter, count, patience)
    if patience == 0:
        tl.store(given_up, 1)


def barrier(programs: int, warps: int) -> float:
    """Microseconds of a barrier.

    Raises:
        RuntimeError: A program gave up.
    """
    counter = torch.zeros(1, dtype=torch.int64, device="cuda")
    given_up = torch.zeros(1, dtype=torch.int32, device="cuda")
    took = []
    for barriers in BARRIERS:
        arguments = {"counter": counter, "given_up": given_up, "barriers": barriers, "patience": PATIENCE}
        launch = Launch(
            *("barriers", only_barriers, (programs, 1, 1), {**arguments, "PROGRAMS": programs}, Work(0, 0), warps),
            cooperative=True,
        )
        singly = []
        for _ in range(11):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            launch()
            end.record()
            torch.cuda.synchronize()
            singly.append(begin.elapsed_time(end) * 1000)
        took.append(statistics.median(singly[3:]))
    if given_up.item():
        raise RuntimeError(f"a barrier of {programs} programs was not passed within {PATIENCE} looks at its counter")
    return (took[1] - took[0]) / (BARRIERS[1] - BARRIERS[0])


def tiles_of(columns: int, inner: int, stages: int, warps: int, *, out: int, down: int) -> Tiles:
    """Tiles of one size for all products: blocks of 64 rows, and cuts for the two that are narrow."""
    tile = ProductTile(64, columns, inner, 1, warps, stages)
    cut = {"out": dataclasses.replace(tile, splits=out), "down": dataclasses.replace(tile, splits=down)}
    return Tiles(tile, AttentionTile(16, 128), up=tile, **cut)


CHOICES = [
    tiles_of(64, 64, 4, 8, out=4, down=4),
    tiles_of(64, 64, 6, 8, out=4, down=4),
    tiles_of(64, 64, 4, 4, out=4, down=4),
    tiles_of(64, 128, 4, 8, out=3, down=4),
    tiles_of(64, 128, 3, 4, out=3, down=4),
]


def main() -> None:
    """Measure all, one line each as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--sequence", type=int, default=128)
    given = parser.parse_args()
    device = gpu.visible().slug
    programs = torch.cuda.get_device_properties(0).multi_processor_count
    account: dict = {"device": device, "programs": programs, "barriers": {}, "encoders": []}
    for warps in (4, 8):
        account["barriers"][warps] = barrier(programs, warps)
        print(f"barrier, {programs} programs of {warps} warps: {account['barriers'][warps]:.3f} us", flush=True)
        write_json(given.output, account)
    weights = weights_of(given.layers, "fp16", "cuda")
    kept = tiles.kept(device, weights.sizes(given.sequence)) or tiles.defaults(given.sequence, "fp16")
    with torch.inference_mode():
        many = Encoder(weights, 1, given.sequence, kept, overlapped=True)
        inputs = request(many)

        def measured(name: str, encoder: Encoder, equal: Encoder | None = None) -> None:
            line: dict = {"name": name, "tiles": tiles.written(encoder.tiles)}
            try:
                launches = encoder.launches(*inputs)
                took = timed(captured(launches))
                line |= took | {"launches": len(launches)}
                off = (encoder.states.float() - many.states.float()).abs().max().item()
                if not math.isfinite(off):
                    raise RuntimeError("the answer has numbers that are none: a program gave up at a barrier")
                line["off"] = off
                if equal is not None:
                    equal(*inputs)
                    torch.cuda.synchronize()
                    line["equal"] = torch.equal(equal.states, encoder.states)
                row, closed = statistics.median(took["queued"]), statistics.median(took["closed"])
                print(
                    f"{name}: {len(launches)} launches, in a row {row:.1f} us ({min(took['queued']):.1f} to "
                    f"{max(took['queued']):.1f}), closed loop {closed:.1f} us, from the encoder of many at most "
                    f"{line['off']:.4g}, as one launch a step: {line.get('equal')}",
                    flush=True,
                )
            except Exception as error:
                line["error"] = f"{type(error).__name__}: {error}"[:500]
                traceback.print_exc()
            account["encoders"].append(line)
            write_json(given.output, account)

        measured("many kernels", many)
        for index, cut in enumerate(CHOICES):
            size = {"programs": programs, "ahead": True}
            stepwise = PersistentEncoder(weights, 1, given.sequence, cut, at_once=False, **size)
            measured(f"persistent {index}", PersistentEncoder(weights, 1, given.sequence, cut, **size), stepwise)
        without = PersistentEncoder(weights, 1, given.sequence, CHOICES[0], programs=programs, ahead=False)
        measured("persistent 0, no weights ahead", without)


if __name__ == "__main__":
    main()
