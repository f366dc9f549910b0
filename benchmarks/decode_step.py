#!/usr/bin/env python3
"""Times and tunes a decode step of GPT-2 on kernels of our own, on a card that has PyTorch and Triton alone.

python benchmarks/decode_step.py                 # GPT-2 Medium, batch 1: right tokens first, then times, then tiles
python benchmarks/decode_step.py --seconds 0     # without tuning
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from triton.runtime.errors import OutOfResources

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings import gpu
from ceilings.files import write_json
from ceilings.kernels import decoder_tiles, plain_decoder, tiles
from ceilings.kernels.decoder import Decoder
from ceilings.kernels.decoder_tiles import ContextTile, StepTile, StepTiles

MODELS = {"gpt2": (12, 768, 12), "gpt2-medium": (24, 1024, 16), "gpt2-large": (36, 1280, 20)}
"""Layers, hidden size and heads."""

VOCABULARY, POSITIONS = 50_257, 1_024
STEPS, REPLAYS, BLOCKS = 32, 100, 5
GAIN = 0.995
"""What a tile must at least bring: less is within the noise of such a time."""


class Text:
    """A prompt that was read, and what FP32 continues it with.

    Args:
        model: One of ``MODELS``.
        batch: Rows.
        prompt: Tokens of a row.
        generated: Tokens that follow: the cache has room for both.
    """

    def __init__(self, model: str, batch: int, prompt: int, generated: int) -> None:
        torch.manual_seed(0)
        layers, hidden, heads = MODELS[model]
        self.weights = plain_decoder.random(layers, hidden, heads, VOCABULARY, POSITIONS, device="cuda")
        self.prompt, self.length = prompt, prompt + generated
        text = torch.randint(0, VOCABULARY, (batch, prompt), device="cuda")
        logits, self._cache = plain_decoder.forward(self.weights, text, torch.float32)
        self.first = logits[:, -1].argmax(-1, keepdim=True)
        self.exact, token = [], self.first
        for _ in range(min(STEPS, generated)):
            text = torch.cat([text, token], 1)
            self.exact.append(plain_decoder.forward(self.weights, text, torch.float32)[0][:, -1])
            token = self.exact[-1].argmax(-1, keepdim=True)

    def decoder(self, cut: StepTiles, *, overlapped: bool) -> Decoder:
        """A decoder that has read the prompt."""
        cache = plain_decoder.static_cache(self._cache, self.length)
        decoder = Decoder(self.weights, cache, self.first.clone(), cut, overlapped=overlapped)
        self.begin(decoder)
        return decoder

    def begin(self, decoder: Decoder) -> None:
        """Go back to the end of the prompt."""
        decoder.position.fill_(self.prompt)
        decoder.token.copy_(self.first)
        torch.cuda.synchronize()


def captured(text: Text, decoder: Decoder) -> torch.cuda.CUDAGraph:
    """One step as a CUDA graph, the text at its beginning again."""
    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(side):
        decoder()
        side.synchronize()
        with torch.cuda.graph(graph, stream=side):
            decoder()
    text.begin(decoder)
    return graph


def compared(text: Text, decoder: Decoder, graph: torch.cuda.CUDAGraph) -> tuple[float, float]:
    """Share of the tokens that are FP32's, and how far the logits are off while the texts are the same."""
    text.begin(decoder)
    same, off, alike = [], 0.0, True
    for exact in text.exact:
        graph.replay()
        torch.cuda.synchronize()
        if alike:
            now = float(torch.norm(decoder.logits - exact) / torch.norm(exact))
            off = max(off, now if math.isfinite(now) else math.inf)
        same.append(bool((decoder.token == exact.argmax(-1, keepdim=True)).all()))
        alike = alike and same[-1]
    return sum(same) / len(same), off


def timed(text: Text, decoder: Decoder, graph: torch.cuda.CUDAGraph) -> dict[str, float]:
    """Milliseconds a step: the host waits for each (``closed``), or hands over many (``queued``)."""
    count, closed, queued = min(REPLAYS, text.length - text.prompt - 1), [], []
    for _ in range(BLOCKS):
        text.begin(decoder)
        for _ in range(count):
            begin = time.perf_counter_ns()
            graph.replay()
            torch.cuda.synchronize()
            closed.append((time.perf_counter_ns() - begin) / 1e6)
        text.begin(decoder)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(count):
            graph.replay()
        last.record()
        torch.cuda.synchronize()
        queued.append(first.elapsed_time(last) / count)
    return {"closed": statistics.median(closed), "queued": statistics.median(queued)}


def candidates() -> Iterator[tuple[str, Any]]:
    """Each part of a step with each tile that is tried for it, the parts with most bytes first."""
    for part, columns, warps in (
        ("up", (4, 8, 16), (4, 8)),
        ("down", (2, 4, 8), (4, 8, 16)),
        ("qkv", (4, 8, 16), (4, 8)),
        ("out", (2, 4, 8, 16), (2, 4)),
        ("head", (8, 16, 32), (4, 8)),
    ):
        yield from ((part, StepTile(wide, many)) for wide in columns for many in warps)
    yield from (("attention", ContextTile(keys, parts, 4)) for keys in (32, 64) for parts in (2, 4, 8))


def tune(text: Text, cut: StepTiles, seconds: float) -> tuple[StepTiles, list[dict[str, Any]]]:
    """One part after the other, by the time of the whole step; a tile that changes tokens is refused."""
    until, account, best = time.monotonic() + seconds, [], float("inf")
    for part, tile in (("start", None), *candidates()):
        if time.monotonic() > until:
            break
        tried = cut if tile is None else dataclasses.replace(cut, **{part: tile})
        entry: dict[str, Any] = {"part": part, "tile": tile and dataclasses.asdict(tile)}
        decoder = text.decoder(tried, overlapped=True)
        try:
            graph = captured(text, decoder)
        except OutOfResources as error:
            entry["refused"] = str(error)
        else:
            entry |= timed(text, decoder, graph)
            if entry["queued"] < GAIN * best:
                entry["same"], entry["off"] = compared(text, decoder, graph)
                if entry["off"] < OFF:
                    best, cut, entry["chosen"] = entry["queued"], tried, True
        account.append(entry)
        print(json.dumps(entry), flush=True)
    return cut, account


OFF = 1e-2
"""How far logits may be off: FP16 takes a tenth of it."""


def main() -> None:
    """Compare, time and tune."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="gpt2-medium")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--generated", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=60.0, help="time after which tuning stops; 0: none")
    parser.add_argument("--account", type=Path, default=Path("decode_step.json"), help="every time that was measured")
    parser.add_argument("--output", type=Path, default=tiles.TUNED, help="the tiles, beside those already there")
    given = parser.parse_args()
    if given.generated < 2:
        parser.error("--generated: a step gives the second token, so 2 or more")
    text = Text(given.model, given.batch, given.prompt, given.generated)
    layers, hidden, heads = MODELS[given.model]
    size = decoder_tiles.sizes(given.batch, text.length, hidden, layers)
    usual = decoder_tiles.defaults(given.batch, text.length, heads)
    cut = tiles.kept(gpu.visible().slug, size, kind=StepTiles) or usual
    for overlapped in (False, True):
        decoder = text.decoder(cut, overlapped=overlapped)
        graph = captured(text, decoder)
        same, off = compared(text, decoder, graph)
        took = timed(text, decoder, graph)
        print(f"overlapped {overlapped}: {took} ms a token; {same:.0%} of tokens are FP32's, logits off by {off:.2g}")
    if not given.seconds:
        return
    cut, account = tune(text, cut, given.seconds)
    write_json(given.account, account)
    if not any(entry.get("chosen") for entry in account):
        raise SystemExit("no tile gave FP32's logits; nothing is kept")
    known = json.loads(given.output.read_text()) if given.output.is_file() else {}
    known.setdefault(gpu.visible().slug, {})[size] = tiles.written(cut)
    write_json(given.output, known)
    print(f"{gpu.visible().slug}, {size}: {json.dumps(tiles.written(cut))}")


if __name__ == "__main__":
    main()
