#!/usr/bin/env python3
"""Times each step of an encoder layer, our kernels beside the libraries', on a card with PyTorch and Triton alone.

python benchmarks/beside_libraries.py --batch 1 32 --output beside_libraries.json    # a minute a batch
python benchmarks/beside_libraries.py --peaks FILE --output beside_libraries.json    # and the share of the matrix rate
python benchmarks/beside_libraries.py --dry --output beside_libraries.json           # anywhere: answers alone

It says which steps of a layer a library computes faster, and by how much.

A step is timed as a chain of repetitions in a CUDA graph, many replays in a row. Each repetition has other weights.
Those of a chain are at least twice what L2 holds, so they come from memory, as in an encoder. A repetition reads the
residual that the one before it wrote; our attention also writes its result over the queries. All other operands are the
same in each repetition. Blocks of all contenders take turns. Each answer is compared with FP64 on the same operands
first; a wrong one is not timed.

The libraries, through PyTorch in FP16 with its default settings:

- linear: ``torch.nn.functional.linear``: with a bias, cuBLASLt's product with the bias in its epilogue.
- GELU: by erf, which our kernel computes too, in a separate kernel; or by tanh in cuBLASLt's epilogue
  (``torch._addmm_activation``). GELU by tanh is another function: its error against FP64's erf is larger.
- attention: ``scaled_dot_product_attention`` with each backend. Our kernel reads the mask of a request, INT64, a number
  a token. The libraries read numbers in FP16 that are added to scores, made beforehand and not timed: one row a text,
  or this row written out for each query.
- norm: a sum in place, then ``torch.nn.functional.layer_norm``.

Ours run with the tiles that were tuned on this device, or else the defaults. An overlapped launch asks for its weights
while the launch before it ends; "one after the other" leaves that out.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from fused_tiles import RATES, request, usable, weights_of
from kernel_chain import captured
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton import AsyncCompileMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings import gpu
from ceilings.files import write_json
from ceilings.kernels import tiles
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.encoder_weights import EncoderWeights, Layer, Linear, Norm
from ceilings.kernels.launch import Launch, blocks
from ceilings.kernels.tiles import Tiles

LAYERS = 24
"""Repetitions of a chain, at least, and the layers of the whole."""

ROUNDS, WARM, WARM_SECONDS = 11, 3, 0.25
"""Blocks of each contender, and those before that do not count: at least so many, for at least so long."""

REPLAYS, TRIED = 50, 2
"""Most replays of a block, and replays of the trial block, whose time sets their number."""

TOLERANCE = 1e-2
"""How far a token's row may be from FP64: rounding to FP16 takes a tenth of it."""

AT_ONCE = 16
"""Kernels that are compiled beside each other."""

SMALL = {"hidden": 64, "intermediate": 128, "heads": 4}
"""Sizes of a dry run: an interpreter computes them in seconds."""

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


class State(NamedTuple):
    """What the steps of a layer read and write, a row a token, FP16.

    Attributes:
        hidden: (tokens, hidden): what a layer reads, its residual, and what it gives.
        qkv: (tokens, 3 hidden): queries, keys and values beside each other.
        context: (tokens, hidden): what attention gives.
        wide: (tokens, intermediate): within the FFN.
    """

    hidden: torch.Tensor
    qkv: torch.Tensor
    context: torch.Tensor
    wide: torch.Tensor


class Step(NamedTuple):
    """A step: the names of our launches that compute it, and which part of the state it writes."""

    launches: tuple[str, ...]
    writes: str


PARTS = {
    "qkv": Step(("qkv",), "qkv"),
    "attention": Step(("attention",), "context"),
    "out": Step(("out", "norm"), "hidden"),
    "up": Step(("up",), "wide"),
    "down": Step(("down", "end"), "hidden"),
}
STEPS = {**PARTS, "layer": Step(tuple(one for step in PARTS.values() for one in step.launches), "hidden")}
"""What is compared: each part of a layer, and all of it."""


class Library:
    """A layer by PyTorch's functions: the libraries' kernels on operands in FP16, the reference on those in FP64.

    Args:
        batch: Texts; the tokens are theirs alike.
        heads: Of attention.
        backend: Who computes attention.
        mask: Added to scores, or where a token is real; broadcast to (batch, heads, queries, keys). None: no mask.
        tanh: Whether GELU is cuBLASLt's, by tanh, and part of the product.
    """

    def __init__(
        self, batch: int, heads: int, backend: SDPBackend, mask: torch.Tensor | None = None, *, tanh: bool = False
    ) -> None:
        self.batch, self.heads, self.backend, self.mask, self.tanh = batch, heads, backend, mask, tanh

    def qkv(self, layer: Layer, at: State) -> State:
        """The state after the product for queries, keys and values."""
        return at._replace(qkv=functional.linear(at.hidden, layer.qkv.weight, layer.qkv.bias))

    def attention(self, layer: Layer, at: State) -> State:
        """The state after attention, whose result has a token's heads beside each other."""
        parts = at.qkv.view(self.batch, -1, at.qkv.shape[1]).chunk(3, -1)
        heads = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]
        with sdpa_kernel(self.backend):
            context = functional.scaled_dot_product_attention(*heads, attn_mask=self.mask)
        return at._replace(context=context.transpose(1, 2).reshape(at.hidden.shape))

    def out(self, layer: Layer, at: State) -> State:
        """The state after the projection of attention, its residual and its norm."""
        return at._replace(hidden=self._ended(layer.out, layer.norm, at.context, at.hidden))

    def up(self, layer: Layer, at: State) -> State:
        """The state after the FFN's first product and GELU."""
        weight, bias = layer.up.weight, layer.up.bias
        if self.tanh:
            return at._replace(wide=torch._addmm_activation(bias, at.hidden, weight.t(), use_gelu=True))
        return at._replace(wide=functional.gelu(functional.linear(at.hidden, weight, bias)))

    def down(self, layer: Layer, at: State) -> State:
        """The state after the FFN's second product, its residual and its norm."""
        return at._replace(hidden=self._ended(layer.down, layer.end, at.wide, at.hidden))

    @staticmethod
    def _ended(linear: Linear, norm: Norm, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """A product, its residual and its norm."""
        total = functional.linear(x, linear.weight, linear.bias).add_(residual)
        return functional.layer_norm(total, total.shape[1:], norm.gain, norm.offset, norm.epsilon)

    def layer(self, layer: Layer, at: State) -> State:
        """The state after all of them."""
        for step in (self.qkv, self.attention, self.out, self.up, self.down):
            at = step(layer, at)
        return at

    def chain(self, step: str, layers: Sequence[Layer], given: State) -> torch.Tensor:
        """What the last of a step's repetitions gives, one a layer, each after the one before it."""
        hidden, at = given.hidden, given
        for layer in layers:
            del at  # its memory is free for the next result, as in a layer
            at = getattr(self, step)(layer, given._replace(hidden=hidden))
            hidden = at.hidden
        return getattr(at, STEPS[step].writes)


class Ours:
    """Our encoder's launches, step by step.

    Args:
        encoder: With the weights of all repetitions.
        mask: (batch, sequence), INT64, or None.
    """

    def __init__(self, encoder: Encoder, mask: torch.Tensor | None) -> None:
        self.all = encoder.launches(request(encoder)[0], mask)
        first = {launch.step: launch.arguments for launch in reversed(self.all)}
        self.state = State(first["qkv"]["x"], first["qkv"]["y"], first["out"]["x"], first["up"]["y"])

    def launches(self, step: str, repetitions: int) -> list[Launch]:
        """Those of so many repetitions of a step."""
        parts = STEPS[step].launches
        return [launch for launch in self.all if launch.step in parts][: len(parts) * repetitions]

    def chain(self, step: str, repetitions: int, given: State | None = None) -> torch.Tensor:
        """What the last of a step's repetitions gives, which begin with ``given``, or where the last ones ended."""
        if given is not None:
            for mine, value in zip(self.state, given, strict=True):
                mine.copy_(value)
        for launch in self.launches(step, repetitions):
            launch()
        return getattr(self.state, STEPS[step].writes)


@dataclasses.dataclass
class Contender:
    """One way to compute a step.

    Attributes:
        name: As the table calls it.
        first: One repetition on the operands; gives the answer.
        chain: All repetitions, without a look at the answer.
        off: How far the answer is from FP64.
        us: Microseconds of a repetition, one a block.
        refused: Why it has no times.
    """

    name: str
    first: Callable[[], torch.Tensor]
    chain: Callable[[], Any]
    off: float | None = None
    us: list[float] = dataclasses.field(default_factory=list)
    refused: str | None = None

    @property
    def median(self) -> float:
        """Of the blocks; infinite for one that was refused, zero for one that was not timed."""
        if self.us:
            return statistics.median(self.us)
        return math.inf if self.refused else 0.0

    def judge(self, exact: torch.Tensor) -> None:
        """Compare the answer with the exact one: the largest error of a token's row, relative to the row."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                answer = self.first().double()
                off = float(((answer - exact).norm(dim=-1) / exact.norm(dim=-1)).max())
            except Exception as error:
                self.refuse(error, [str(one.message) for one in said])
                return
        self.off = off if math.isfinite(off) else None  # JSON has no other numbers
        if not off <= TOLERANCE:
            self.refused = "another answer"

    def refuse(self, error: Exception, said: Sequence[str] = ()) -> None:
        """Keep why it does not run; what PyTorch warned of is the reason where a backend is not possible."""
        self.refused = "; ".join([f"{type(error).__name__}: {error}", *said])[:600]

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"name": self.name, "off": self.off, "us": self.us, "refused": self.refused}


class Comparison(NamedTuple):
    """Who is held against whom: a title, the step, whether attention has a mask, and who takes part, ours first."""

    title: str
    step: str
    masked: bool
    contenders: list[Contender]


NAMES = {"qkv": "linear", "out": "linear, sum, norm", "up": "linear, GELU", "down": "linear, sum, norm"}
"""What the libraries run for each step that multiplies by weights."""

COMPARISONS = len(NAMES) + 4
"""Of a batch: these, attention and the whole layer, each with a mask and without."""


class Card:
    """What timing needs of a card; a test has another one."""

    usable = staticmethod(usable)

    @staticmethod
    def captured(chain: Callable[[], Any]) -> Any:
        """A CUDA graph of a chain, which has run once before."""
        return captured([chain])

    @staticmethod
    def block(graph: Any, replays: int) -> float:
        """Microseconds of a replay among others in a row."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) * 1000 / replays


def alternate(contenders: Sequence[Contender], repetitions: int, seconds: float, card: Any) -> int:
    """Time those that were not refused, a block each in turn; gives the replays of a block.

    Args:
        contenders: Of one step; they get their times.
        repetitions: Of a chain.
        seconds: What the blocks may take together; a block has one replay at least.
        card: Where they run.
    """
    graphs = []
    for one in contenders:
        if one.refused is None:
            try:
                graphs.append((one, card.captured(one.chain)))
            except Exception as error:
                one.refuse(error)
                alive(card, one.refused)
    if not graphs:
        return 0
    for _ in range(2):  # the first replays load what they need
        single = sum(card.block(graph, TRIED) for _, graph in graphs)
    replays = max(1, min(REPLAYS, int(seconds * 1e6 / single / (ROUNDS + WARM))))
    warm, until = 0, time.monotonic() + WARM_SECONDS  # a card that has been idle is slow at first
    while warm < WARM or time.monotonic() < until:
        for _, graph in graphs:
            card.block(graph, replays)
        warm += 1
    for _ in range(ROUNDS):
        for one, graph in graphs:
            one.us.append(card.block(graph, replays) / repetitions)
    return replays


def alive(card: Any, refused: str | None) -> None:
    """Go on after an error if the device still runs anything.

    Raises:
        RuntimeError: It does not.
    """
    if not card.usable():
        raise RuntimeError(f"the device runs nothing any more, start again without what failed: {refused}")


def doubled(value: Any) -> Any:
    """The same named tuples with tensors in FP64."""
    if isinstance(value, torch.Tensor):
        return value.double()
    return type(value)(*map(doubled, value)) if isinstance(value, tuple) else value


def operands(batch: int, sequence: int, weights: EncoderWeights) -> tuple[State, torch.Tensor]:
    """Random operands of each step, and a request's mask: of each text the last eighth is padding, or one token."""
    generator, tokens = torch.Generator().manual_seed(batch), batch * sequence
    device = weights.words.device

    def half(width: int) -> torch.Tensor:
        return torch.randn(tokens, width, generator=generator).half().to(device)

    hidden, qkv, wide = half(weights.hidden), half(3 * weights.hidden), half(weights.intermediate)
    mask = torch.ones(batch, sequence, dtype=torch.int64, device=device)
    mask[:, -max(1, sequence // 8) :] = 0
    return State(hidden, qkv, qkv[:, : weights.hidden].clone(), functional.gelu(wide.float()).half()), mask


def repetitions(step: str, layer: Layer, least: int, cache: int) -> int:
    """Repetitions of a step whose weights together are twice what a cache holds, and no fewer than ``least``."""
    linear = getattr(layer, step, None)
    return least if linear is None else max(least, blocks(2 * cache, linear.weight.nbytes))


class Batch:
    """Both sides at one batch.

    Args:
        weights: Of all repetitions.
        batch: Texts.
        sequence: Tokens of a text.
        cut: Our tiles.
        least: Repetitions of a chain, at least.
        cache: Bytes of L2.
        dry: Whether there is no card. Our kernels then run one after the other.
    """

    def __init__(
        self, weights: EncoderWeights, batch: int, sequence: int, cut: Tiles, *, least: int, cache: int, dry: bool
    ) -> None:
        self.weights, self.batch, self.least, self.cache = weights, batch, least, cache
        self.given, self.mask = operands(batch, sequence, weights)
        encoders = {"one after the other": Encoder(weights, batch, sequence, cut)}
        if not dry:
            encoders = {"overlapped": Encoder(weights, batch, sequence, cut, overlapped=True), **encoders}
        self.ours = {
            (kind, masked): Ours(encoder, self.mask if masked else None)
            for kind, encoder in encoders.items()
            for masked in (True, False)
        }
        row = torch.zeros(self.mask.shape, dtype=torch.float16, device=self.mask.device)
        row = row.masked_fill(self.mask == 0, torch.finfo(torch.float16).min)[:, None, None, :]
        self.masks = {"mask of rows": row, "mask written out": row.expand(-1, 1, sequence, -1).contiguous()}

    def compile(self) -> None:
        """Compile our kernels beside each other."""
        distinct = {
            (name, launch.step): launch
            for name, ours in self.ours.items()
            for launch in ours.launches("layer", 1)
            if name[1] or launch.step == "attention"
        }
        with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool, AsyncCompileMode(pool, ignore_errors=True):
            for launch in distinct.values():
                launch.compile()

    def count(self, step: str) -> int:
        """Repetitions of a step."""
        return repetitions(step, self.weights.layers[0], self.least, self.cache)

    def operations(self, step: str) -> int:
        """Multiplications and additions of a repetition, those of padding included, as all contenders do them."""
        return sum(launch.work.operations for launch in next(iter(self.ours.values())).launches(step, 1))

    def exact(self, step: str, *, masked: bool) -> torch.Tensor:
        """The answer in FP64."""
        real = (self.mask != 0)[:, None, None, :] if masked else None
        library = Library(self.batch, self.weights.heads, SDPBackend.MATH, real)
        return library.chain(step, [doubled(self.weights.layers[0])], doubled(self.given))

    def of_ours(self, step: str, *, masked: bool) -> list[Contender]:
        """Our contenders, the overlapped one first."""
        made = []
        for (kind, with_mask), ours in self.ours.items():
            if with_mask == masked:
                first = functools.partial(ours.chain, step, 1, self.given)
                made.append(Contender(f"ours, {kind}", first, functools.partial(ours.chain, step, self.count(step))))
        return made

    def of_library(self, name: str, step: str, backend: SDPBackend = SDPBackend.MATH, **way: Any) -> Contender:
        """A contender of the libraries'; ``way`` is ``mask`` and ``tanh`` of ``Library``."""
        library, layers = Library(self.batch, self.weights.heads, backend, **way), self.weights.layers
        first = functools.partial(library.chain, step, layers[:1], self.given)
        return Contender(name, first, functools.partial(library.chain, step, layers[: self.count(step)], self.given))

    def attentions(self, *, masked: bool) -> dict[str, dict[str, Any]]:
        """Each way of the libraries to compute attention, by its name: ``backend`` and ``mask``."""
        if not masked:
            return {name: {"backend": backend} for name, backend in BACKENDS.items()}
        return {
            f"{name}, {form}": {"backend": backend, "mask": mask}
            for name, backend in BACKENDS.items()
            for form, mask in self.masks.items()
        }

    def comparisons(self) -> Iterator[Comparison]:
        """Each comparison; those of whole layers take the attention that was fastest in those before."""
        fastest = {}
        for masked, title in ((True, "attention, mask"), (False, "attention")):
            ways = self.attentions(masked=masked)
            theirs = [self.of_library(name, "attention", **way) for name, way in ways.items()]
            yield Comparison(title, "attention", masked, [*self.of_ours("attention", masked=masked), *theirs])
            name = min(theirs, key=lambda one: one.median).name
            fastest[masked] = f"libraries, {name}", ways[name]
        for step, name in NAMES.items():
            theirs = [self.of_library(name, step)]
            if step == "up":
                theirs.append(self.of_library("linear with GELU by tanh", step, tanh=True))
            yield Comparison(step, step, True, [*self.of_ours(step, masked=True), *theirs])
        name, way = fastest[True]
        theirs = [self.of_library(name, "layer", **way)]
        yield Comparison("layer, mask", "layer", True, [*self.of_ours("layer", masked=True), *theirs])
        name, way = fastest[False]
        theirs = [
            self.of_library(name, "layer", **way),
            self.of_library(f"{name}, GELU by tanh", "layer", **way, tanh=True),
        ]
        yield Comparison("layer", "layer", False, [*self.of_ours("layer", masked=False), *theirs])


def compared(batch: Batch, seconds: float, card: Any, rate: float | None) -> Iterator[dict[str, Any]]:
    """The record of each comparison, as soon as its rows are printed.

    Args:
        batch: Both sides.
        seconds: What all blocks may take together.
        card: Where they are timed; None: answers alone.
        rate: Matrix rate, TFLOP/s, or None.
    """
    until = time.monotonic() + seconds
    for place, (title, step, masked, contenders) in enumerate(batch.comparisons()):
        exact = batch.exact(step, masked=masked)
        for one in contenders:
            one.judge(exact)
            if one.refused and card is not None:
                alive(card, one.refused)
        count, operations, replays = batch.count(step), batch.operations(step), 0
        if card is not None:
            share = max(0.0, until - time.monotonic()) / (COMPARISONS - place)
            replays = alternate(contenders, count, share, card)
        for one in contenders:
            print(row(f"{batch.batch} | {title}", one, contenders[0], operations, rate), flush=True)
        yield {
            **{"step": title, "repetitions": count, "replays": replays, "operations": operations},
            "contenders": [one.record() for one in contenders],
        }


HEAD = (
    "| batch | step | who | us (least to most) | times ours | TFLOP/s | of the matrix rate | off |\n"
    "|---|---|---|---|---|---|---|---|"
)


def row(head: str, one: Contender, base: Contender, operations: int, rate: float | None) -> str:
    """A line of the table; its times are held against those of ``base``, round by round."""
    off = "" if one.off is None else f"{one.off:.1e}"
    if not one.us:
        said = f"refused: {one.refused}".replace("\n", " ").replace("|", "/") if one.refused else "not timed"
        return f"| {head} | {one.name} | {said} | | | | {off} |"
    ratios = [mine / its for mine, its in zip(one.us, base.us, strict=True)] if base.us else []
    held = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
    reached = operations / one.median / 1e6
    share = f"{reached / rate:.0%}" if rate else ""
    return (
        f"| {head} | {one.name} | {one.median:.2f} ({min(one.us):.2f} to {max(one.us):.2f}) | {held} "
        f"| {reached:.0f} | {share} | {off} |"
    )


def versions() -> dict[str, Any]:
    """What a comparison rests on."""
    return {
        **{"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        **{"triton": triton.__version__, "python": sys.version.split()[0]},
    }


def main() -> None:
    """Compare at each batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=45.0, help="of timing a batch; compiling takes some more")
    parser.add_argument("--tiles", type=Path, default=tiles.TUNED, help="tuned tiles")
    parser.add_argument("--peaks", type=Path, help="a peaks.json: what share of its matrix rate is reached")
    parser.add_argument("--dry", action="store_true", help="small sizes, two repetitions, answers alone, on a CPU")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    peaks = json.loads(given.peaks.read_text())["peaks"] if given.peaks else None
    rate = peaks[RATES["compute"]]["median"] if peaks else None
    content: dict[str, Any] = {"device": "dry", "versions": versions(), "sequence": given.sequence, "matrix_rate": rate}
    content["fp16_reduced_precision_reduction"] = torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    least, cache, device, card, sizes = 2, 0, "cpu", None, SMALL
    if not given.dry:
        seen = gpu.visible()
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        content |= {"device": seen.slug, "driver": seen.driver}
        least, device, card, sizes = LAYERS, "cuda", Card, {}
    one = weights_of(1, "fp16", device, **sizes).layers[0]
    weights = weights_of(max(repetitions(step, one, least, cache) for step in STEPS), "fp16", device, **sizes)
    content |= {"l2_bytes": cache, "batches": []}
    print(HEAD)
    with torch.inference_mode():
        for texts in given.batch:
            tokens = texts * given.sequence
            size = weights.sizes(tokens)
            tuned = tiles.kept(content["device"], size, given.tiles)
            cut = tuned or tiles.defaults(tokens, "fp16")
            batch = Batch(weights, texts, given.sequence, cut, least=least, cache=cache, dry=given.dry)
            if card is not None:
                batch.compile()
            entry = {"batch": texts, "size": size, "tuned": tuned is not None, "tiles": tiles.written(cut), "steps": []}
            content["batches"].append(entry)
            for record in compared(batch, given.seconds, card, rate):
                entry["steps"].append(record)
                write_json(given.output, content)


if __name__ == "__main__":
    main()
