#!/usr/bin/env python3
"""Tunes the tiles of the fused encoder: on a card by time, without one by what a compiled program takes.

python benchmarks/fused_tiles.py --model distilbert --seconds 120   # on a card: writes tuned_tiles.json and an account
python benchmarks/fused_tiles.py --precision fp8 --seconds 60       # the same in FP8
python benchmarks/fused_tiles.py --batch 32 --peaks FILE            # and the share of a peaks.json's matrix rate
python benchmarks/fused_tiles.py --model distilbert --compile       # anywhere: a table of the tiles that would be tried
python benchmarks/fused_tiles.py --model distilbert --predict FILE  # anywhere: least times, from a peaks.json

Tuning goes over the steps, the largest first, and over a step's tiles, those first that a model of L2's traffic expects
most of, and over both again while something gets faster and time is left. Tiles and account are saved after each
measurement. It measures in a separate process. If a tile crashes or hangs that process, the account says so, and a new
process goes on after that tile.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings import gpu
from ceilings.files import write_json
from ceilings.kernels import fp8_weights, tiles
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.encoder_weights import EncoderWeights, Layer, Linear, Norm
from ceilings.kernels.launch import Launch, blocks
from ceilings.kernels.tiles import AttentionTile, ProductTile, Tiles

LAYERS = {"bert": 12, "distilbert": 6}
"""Of each model at its usual size. Their layers have the same sizes, so they share tiles."""

HIDDEN, INTERMEDIATE, HEADS, WORDS, POSITIONS = 768, 3072, 12, 30_522, 512

STEPS = ("qkv", "down", "up", "out", "attention", "row_warps")
"""In the order in which they are tuned: the largest traffic first."""

REPLAYS, WARM, REPEATS = 20, 3, 9
"""Replays of a block, blocks before those that count, and these."""

GAIN = 0.995
"""What a tile must at least bring: less is within the noise of such a time."""

WITHIN = {"fp16": 1e-2, "fp8": 0.1}
"""How far a token's state may be from that of the first tiles after six layers, and by the root of their number after
others: other orders of rounding, many times over. In FP8 two right answers of six layers were 0.06 apart on an H100,
and each is 0.05 from FP64 (docs/kernels.md)."""

PROGRAMS = (48, 1600)
"""Programs of a product worth trying: fewer leave most of 132 multiprocessors idle, more are several waves of them."""

SHAPES = [(64, 32), (64, 64), (128, 32), (128, 64), (32, 64), (64, 128), (16, 64), (128, 128), (128, 256)]
"""Rows and columns of a product's program: from 64 rows on the instructions of a warp group are used."""

DEPTHS = [(128, 4), (128, 6), (256, 3), (256, 4)]
"""Bytes of the inner axis at a time, and loads under way."""

MULTIPROCESSORS = 132

AT_ONCE = 16
"""Tiles that are compiled beside each other before they are timed."""

PATIENCE = 45.0
"""Seconds without a new measurement after which a process counts as hung; PyTorch and a first compilation take 20."""

PROCESSES = 6
"""At most so many, one after the other."""

FAULT = 3
"""How a process ends on whose device nothing can run any more."""


def candidates(step: str, rows: int, columns: int, inner: int, size: int = 2) -> list[ProductTile]:
    """Tiles of a product worth trying, the least L2 traffic of a multiprocessor first.

    Args:
        step: Its name.
        rows: Tokens.
        columns: Rows of the weight.
        inner: Columns of the weight.
        size: Bytes of one of its numbers.
    """
    splits = (1, 2, 3, 4, 6) if step in ("out", "down") else (1,)
    made = []
    for (tall, wide), (line, stages), cuts in itertools.product(SHAPES, DEPTHS, splits):
        deep = line // size
        programs = blocks(rows, tall) * blocks(columns, wide) * cuts
        fills = PROGRAMS[0] <= programs <= PROGRAMS[1] and inner % (deep * cuts) == 0 and inner // cuts >= 2 * deep
        # A warp's products of fewer rows take their operands from registers, and 256 bytes of the inner axis spill.
        holds = (tall + wide) * line * stages <= 200_000 and (tall >= 64 or line == 128)
        if fills and holds:
            made.append(ProductTile(tall, wide, deep, cuts, 8 if tall * wide >= 128 * 128 else 4, stages))
    return sorted(made, key=lambda tile: traffic(tile, rows, columns, inner, size))


def traffic(tile: ProductTile, rows: int, columns: int, inner: int, size: int) -> float:
    """Bytes through the busiest multiprocessor: operands of its programs, and its share of partial sums, both ways."""
    programs = blocks(rows, tile.rows) * blocks(columns, tile.columns) * tile.splits
    operands = size * (tile.rows + tile.columns) * tile.span(inner)
    return blocks(programs, MULTIPROCESSORS) * operands + 8 * tile.splits * rows * columns / MULTIPROCESSORS


def attention_candidates() -> list[AttentionTile]:
    """Tiles of attention worth trying."""
    return [AttentionTile(queries, keys, 4, 2) for queries in (16, 32, 64) for keys in (128, 64, 32)]


def tried(encoder: Encoder, step: str) -> list[Tiles]:
    """The encoder's tiles with one step's replaced by each candidate."""
    if step == "row_warps":
        values: list = [1, 2, 4, 8]
    elif step == "attention":
        values = attention_candidates()
    else:
        weight = getattr(encoder.weights.layers[0], step).weight
        values = candidates(step, encoder.batch * encoder.sequence, *weight.shape, weight.element_size())
    return [dataclasses.replace(encoder.tiles, **{step: value}) for value in values]


def with_tiles(encoder: Encoder, cut: Tiles) -> Encoder:
    """The same encoder cut otherwise."""
    return Encoder(encoder.weights, encoder.batch, encoder.sequence, cut, overlapped=encoder.overlapped)


def weights_of(
    layers: int,
    precision: str,
    device: str,
    *,
    hidden: int = HIDDEN,
    intermediate: int = INTERMEDIATE,
    heads: int = HEADS,
) -> EncoderWeights:
    """Random weights of an encoder with a classifier of texts, without Transformers, which takes long to import."""
    torch.manual_seed(0)

    def half(*size: int, scale: float = 0.02, shift: float = 0.0) -> torch.Tensor:
        return (shift + scale * torch.randn(*size, device=device)).half()

    def linear(columns: int, inner: int, activation: str = "none") -> Linear:
        return Linear(half(columns, inner, scale=inner**-0.5), half(columns), activation)

    def norm() -> Norm:
        return Norm(half(hidden, shift=1.0), half(hidden), 1e-12)

    def layer() -> Layer:
        first = linear(3 * hidden, hidden), linear(hidden, hidden), norm()
        return Layer(*first, linear(intermediate, hidden, "gelu"), linear(hidden, intermediate), norm())

    made = EncoderWeights(
        *(heads, half(WORDS, hidden, scale=1.0), half(POSITIONS, hidden, scale=1.0), norm()),
        *(tuple(layer() for _ in range(layers)), (linear(hidden, hidden, "relu"), linear(2, hidden)), "first"),
    )
    return fp8_weights.quantised(made) if precision == "fp8" else made


def request(encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and a mask of ones, on the weights' device."""
    size, device = (encoder.batch, encoder.sequence), encoder.weights.words.device
    ids = torch.arange(size[0] * size[1], device=device).reshape(size) * 37 % len(encoder.weights.words)
    return ids, torch.ones(size, dtype=torch.int64, device=device)


def timed(encoder: Encoder) -> tuple[float, torch.Tensor]:
    """Microseconds of a replay among others in a CUDA graph, median of several blocks, and the states of all tokens."""
    inputs, side = request(encoder), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        encoder(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        encoder(*inputs)
    took = []
    for _ in range(WARM + REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(REPLAYS):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        took.append(begin.elapsed_time(end) * 1000 / REPLAYS)
    return statistics.median(took[WARM:]), encoder.states.float().clone()


def within(weights: EncoderWeights) -> float:
    """How far a token's state may be from that of other tiles (``WITHIN``)."""
    return WITHIN[weights.precision] * math.sqrt(len(weights.layers) / LAYERS["distilbert"])


def usable() -> bool:
    """Whether the device still runs anything in this process."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def compile_beside(encoders: list[Encoder]) -> None:
    """Compile the kernels of encoders beside each other; what fails, fails again where it is timed, which says why."""
    from triton import AsyncCompileMode

    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool, AsyncCompileMode(pool, ignore_errors=True):
        for encoder in encoders:
            for launch in {one.step: one for one in encoder.launches(*request(encoder))}.values():
                launch.compile()


@dataclasses.dataclass
class Account:
    """What was tried, and the best tiles so far; both are saved as they change.

    Attributes:
        path: Where the account goes.
        output: Where the tiles go, beside those already there.
        device: The card.
        size: What the tiles are kept by.
        entries: One for each measurement, in order.
    """

    path: Path
    output: Path
    device: str
    size: str
    entries: list[dict] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        known = json.loads(self.path.read_text()) if self.path.is_file() else {}
        if (known.get("device"), known.get("size")) == (self.device, self.size):
            self.entries = known["account"]
        for entry in self.entries:
            if entry.pop("running", False):
                entry["refused"] = "the process ended or hung while it ran"

    def add(self, entry: dict) -> dict:
        """Save an entry as running, so that it is known should the process end."""
        self.entries.append({**entry, "running": True})
        self.save()
        return self.entries[-1]

    def done(self, entry: dict) -> None:
        """Save an entry with its result."""
        del entry["running"]
        self.save()

    def save(self) -> None:
        """Write the account."""
        write_json(self.path, {"device": self.device, "size": self.size, "account": self.entries})

    def keep(self, cut: Tiles) -> None:
        """Write the best tiles."""
        kept = json.loads(self.output.read_text()) if self.output.is_file() else {}
        kept.setdefault(self.device, {})[self.size] = tiles.written(cut)
        write_json(self.output, kept)

    def knows(self, entry: dict) -> bool:
        """Whether this tile was tried in this round."""
        return any(all(one.get(key) == value for key, value in entry.items()) for one in self.entries)


class Card:
    """What tuning needs of a card; a test has another one."""

    timed = staticmethod(timed)
    compile_beside = staticmethod(compile_beside)
    usable = staticmethod(usable)


class Tuning:
    """Goes over steps and tiles.

    Args:
        encoder: With the tiles to begin with.
        account: Where results go.
        until: When to stop, by ``time.monotonic``.
        card: Where kernels are compiled and timed.
        beside: Whether tiles are compiled beside each other.
    """

    def __init__(
        self, encoder: Encoder, account: Account, until: float, card: type[Card] = Card, *, beside: bool = True
    ) -> None:
        self.encoder, self.account, self.until, self.card, self.beside = encoder, account, until, card, beside
        self.best, self.states = self._first()

    def run(self) -> Tiles:
        """The best tiles when time is up or nothing gets faster."""
        turn = max(entry.get("round", 1) for entry in self.account.entries)
        while self._round(turn):
            turn += 1
        return self.encoder.tiles

    def _first(self) -> tuple[float, torch.Tensor]:
        entry = self.account.add({"step": "start", "tiles": tiles.written(self.encoder.tiles)})
        for _ in range(5):  # a card that has been idle is slow at first
            entry["us"], states = self.card.timed(self.encoder)
        self.account.done(entry)
        self.account.keep(self.encoder.tiles)
        return entry["us"], states

    def _round(self, turn: int) -> bool:
        """Whether there should be another one: something got faster, and time is left."""
        before = self.best
        for step in STEPS:
            self.best = self.card.timed(self.encoder)[0]  # clocks and temperatures change
            new = [cut for cut in tried(self.encoder, step) if not self.account.knows(named(turn, step, cut))]
            for place, cut in enumerate(new):
                if time.monotonic() > self.until:
                    return False
                if place % AT_ONCE == 0:
                    self._compile(new[place : place + AT_ONCE])
                self._try(turn, step, dataclasses.replace(self.encoder.tiles, **{step: getattr(cut, step)}))
        return self.best < GAIN * before

    def _compile(self, cuts: list[Tiles]) -> None:
        if not self.beside:
            return
        try:
            self.card.compile_beside([with_tiles(self.encoder, cut) for cut in cuts])
        except Exception as error:  # then each is compiled where it is timed
            print(f"compiled one after the other: {type(error).__name__}: {error}", flush=True)

    def _try(self, turn: int, step: str, cut: Tiles) -> None:
        entry = self.account.add(named(turn, step, cut))
        try:
            entry["us"], states = self.card.timed(with_tiles(self.encoder, cut))
            off = float(((states - self.states).norm(dim=-1) / self.states.norm(dim=-1)).max())
        except Exception as error:  # a tile that does not compile or does not fit is no reason to end
            entry["refused"] = f"{type(error).__name__}: {error}"[:300]
        else:
            entry["off"] = off if math.isfinite(off) else None  # JSON has no other numbers
            if not off <= within(self.encoder.weights):
                entry["refused"] = "another answer"
            elif entry["us"] < GAIN * self.best and self._again(entry, cut):
                self.best, self.encoder, entry["chosen"] = entry["again"], with_tiles(self.encoder, cut), True
                self.account.keep(cut)
        self.account.done(entry)
        print(json.dumps(entry), flush=True)
        if "us" not in entry and not self.card.usable():
            print("the device runs nothing any more; a new process goes on", flush=True)
            os._exit(FAULT)  # what cleans up would call the device

    def _again(self, entry: dict, cut: Tiles) -> bool:
        """Whether it is faster once more: of many tiles one looks fast by chance."""
        entry["again"] = self.card.timed(with_tiles(self.encoder, cut))[0]
        return entry["again"] < GAIN * self.best


def named(turn: int, step: str, cut: Tiles) -> dict:
    """How an account calls a measurement."""
    return {"round": turn, "step": step, "tile": tiles.written(cut)[step]}


def supervised(command: list[str], account: Path, until: float, patience: float = PATIENCE) -> int:
    """Run the process that tunes, again after a fault or a hang, until it ends by itself or time is up.

    Args:
        command: Without the seconds that are left, which are added, as is that a process goes on after another.
        account: What it writes after each measurement.
        until: When it should be done, by ``time.monotonic``; a third of ``patience`` later it is ended.
        patience: Seconds without a change of the account after which it counts as hung.

    Returns:
        0 where the account holds what was tuned, else the last process's exit status.
    """
    more: list[str] = []
    for _ in range(PROCESSES):
        process = subprocess.Popen([*command, *more, "--seconds", f"{max(0.0, until - time.monotonic()):.1f}"])
        changed, seen, more = time.monotonic(), None, ["--resumed"]
        while process.poll() is None:
            time.sleep(0.1)
            if (stamp := account.stat().st_mtime_ns if account.is_file() else None) != seen:
                changed, seen = time.monotonic(), stamp
            if time.monotonic() - changed > patience or time.monotonic() > until + patience / 3:
                process.kill()
        status = process.wait()
        if status in (0, 1, 2):  # done, or an error of the program's that would come again
            return status
        if time.monotonic() > until:
            break
        print(f"the process ended with {status}; another goes on after the tile that it tried", flush=True)
    return 0 if account.is_file() else 1


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
    rates = rates_of(peaks)
    print("| step | launches | moved, MB | from L2, MB | GFLOP | memory, us | L2, us | compute, us |\n|" + "---|" * 8)
    launches, rows = encoder.launches(*request(encoder)), []
    for step in dict.fromkeys(launch.step for launch in launches):
        same = [launch.work for launch in launches if launch.step == step]
        moved, loaded, operations = (sum(one[index] for one in same) for index in range(3))
        compute = sum(matrix_us(launch, rates) for launch in launches if launch.step == step)
        times = moved / rates["memory"] / 1e3, loaded / rates["l2"] / 1e3, compute
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
    "narrow": "matrix_rate.fp8.8192x8192x8192",
}
"""Entries of a peaks.json."""


def rates_of(peaks: dict) -> dict[str, float]:
    """The rates of a peaks.json by the names of ``RATES``."""
    return {name: peaks[key]["median"] for name, key in RATES.items()}


def matrix_us(launch: Launch, rates: dict[str, float]) -> float:
    """What a launch's products take in us at the matrix rate of their type."""
    narrow = launch.arguments.get("scale") is not None
    return launch.work.operations / rates["narrow" if narrow else "compute"] / 1e6


def reached(encoder: Encoder, microseconds: float, peaks: dict | None) -> str:
    """The rate at which an encoder multiplied matrices, and its share of the measured one where that is known."""
    launches = encoder.launches(*request(encoder))
    rate = f"{sum(one.work.operations for one in launches) / microseconds / 1e6:.0f} TFLOP/s"
    if peaks is None:
        return rate
    share = sum(matrix_us(one, rates_of(peaks)) for one in launches) / microseconds
    return f"{rate}, {share:.0%} of the matrix rate in the peaks.json"


def tuned(given: argparse.Namespace) -> None:
    """Tune in this process."""
    device, weights = gpu.visible().slug, weights_of(LAYERS[given.model], given.precision, "cuda")
    tokens, until = given.batch * given.sequence, time.monotonic() + given.seconds
    size = weights.sizes(tokens)
    cut = tiles.kept(device, size, given.output) or tiles.defaults(tokens, given.precision)
    encoder = Encoder(weights, given.batch, given.sequence, cut, overlapped=not given.serial)
    account = Account(given.account, given.output, device, size)
    try:
        with torch.inference_mode():
            # What ended a process while it compiled several tiles is met again alone, and is then known.
            tuning = Tuning(encoder, account, until, beside=not given.resumed)
            chosen = tuning.run()
    except Exception:
        if not usable():
            traceback.print_exc()
            os._exit(FAULT)
        raise
    peaks = json.loads(given.peaks.read_text())["peaks"] if given.peaks else None
    print(f"{device}, {size}: {json.dumps(tiles.written(chosen))}")
    print(f"{tuning.best:.1f} us in a row, {reached(tuning.encoder, tuning.best, peaks)}")


def main() -> None:
    """Tune, compile or predict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(LAYERS), default="distilbert")
    parser.add_argument("--precision", choices=sorted(WITHIN), default="fp16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=300.0, help="time after which tuning stops")
    parser.add_argument("--serial", action="store_true", help="kernels that do not overlap")
    parser.add_argument("--account", type=Path, help="every time; fused_tiles.MODEL.PRECISION.bB-sS.json")
    parser.add_argument("--peaks", type=Path, help="a peaks.json: what share of its matrix rate is reached")
    parser.add_argument("--output", type=Path, default=tiles.TUNED, help="the tiles, beside those already there")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--predict", type=Path, metavar="PEAKS")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--resumed", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    shape = f"b{given.batch}-s{given.sequence}"
    given.account = given.account or Path(f"fused_tiles.{given.model}.{given.precision}.{shape}.json")
    if given.compile or given.predict:
        layers = 1 if given.compile else LAYERS[given.model]
        weights, cut = (
            weights_of(layers, given.precision, "cpu"),
            tiles.defaults(given.batch * given.sequence, given.precision),
        )
        encoder = Encoder(weights, given.batch, given.sequence, cut, overlapped=not given.serial)
        if given.compile:
            compiled(encoder)
        else:
            predicted(encoder, json.loads(given.predict.read_text())["peaks"])
    elif given.in_this_process:
        tuned(given)
    else:
        given.account.unlink(missing_ok=True)
        command = [sys.executable, __file__, *sys.argv[1:], "--account", str(given.account), "--in-this-process"]
        sys.exit(supervised(command, given.account, time.monotonic() + given.seconds))


if __name__ == "__main__":
    main()
