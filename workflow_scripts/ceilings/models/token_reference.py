"""FP32 by PyTorch, with a cache: the text that it generates itself, greedily, on the CPU, and how it scores another.

Runtimes that generate are held against both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ceilings.models.load import load_module
from ceilings.models.rounding import rounded
from ceilings.workload.generation import (
    CHECKED_ROWS,
    CHECKED_STEPS,
    ROUNDED,
    ROUNDED_TOKENS,
    TOP,
    Decoder,
    context,
)
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

PIECE = 512
"""Tokens of prompts that are read at once, of one row or of several short ones. What a layer makes of more is memory
that the system hands out, cleared page by page, at every operator; GEMMs gain nothing from more rows."""

MEMORY = 1 << 32
"""Bytes that the cache may take: rows are taken in groups of so many as fit."""


def generate(
    weights_dir: Path | str, elements: Sequence[Mapping[str, np.ndarray]], shape: Shape, threads: int
) -> dict[str, np.ndarray]:
    """What the model generates.

    Rows of all elements are taken together, so that a step reads the weights once for all that fit.

    Args:
        weights_dir: The model's weights folder.
        elements: Of the pool, each with ``input_ids`` (batch, prompt).
        shape: Of a request.
        threads: CPU threads; more of them only reorder sums.

    Returns:
        ``tokens`` int64 (elements, batch, generated); ``logits`` float32 (elements, rows, checked, vocabulary) of the
        first rows and the first tokens; ``probes`` float32 (elements, probes), how far each of ``PROBES`` moves the
        logits of an element's first row: relative L2, each less its mean, of the ``TOP`` that are largest without it.
        Of a request without decode steps there are none; ``rounding`` float32, of each of ``ROUNDED`` how far rounding
        every operation to it moves the logits of the first rows' first ``ROUNDED_TOKENS`` tokens, in the same measure,
        and at most 1.
    """
    model, decoder = _load(weights_dir, threads)
    rows = max(1, MEMORY // decoder.cache_bytes(1, context(shape), 4))
    ids = torch.from_numpy(np.stack([element["input_ids"] for element in elements]))
    wanted = torch.arange(shape.batch).lt(CHECKED_ROWS).expand(len(ids), -1)
    prompts, checked = ids.flatten(0, 1).split(rows), wanted.flatten().split(rows)
    parts = zip(
        *(_answer(model, decoder, *part, shape["generated"]) for part in zip(prompts, checked, strict=True)),
        strict=True,
    )
    made = {
        name: values.reshape(len(elements), -1, *values.shape[1:])
        for name, values in zip(("tokens", "logits"), map(np.concatenate, parts), strict=True)
    }
    moved = [_probes(model, decoder, row) for row in ids[:, :1] if shape["generated"] > 1]
    by_precision = [_rounding(model, ids[:, 0, :ROUNDED_TOKENS], precision) for precision in ROUNDED]
    return made | {
        "probes": np.array(moved, np.float32).reshape(len(elements), -1),
        "rounding": np.array(by_precision, np.float32),
    }


def gaps(
    weights_dir: Path | str, prompts: np.ndarray, tokens: np.ndarray, threads: int, device: str = "cpu"
) -> np.ndarray:
    """How much more the model likes the token that it would choose than the given one, at every place of given texts.

    Each text is read once, as it is: a place is judged by what stands before it, whoever wrote that.

    Args:
        weights_dir: The model's weights folder.
        prompts: Token ids (texts, prompt).
        tokens: What a runtime went on with (texts, generated).
        threads: CPU threads; more of them only reorder sums.
        device: As torch names it. Products are in FP32 everywhere, never in TF32.

    Returns:
        Float32 (texts, generated): its largest logit less that of the token, 0 where the token is its choice.
    """
    return score(*_load(weights_dir, threads, device), prompts, tokens)


def score(model: Any, decoder: Decoder, prompts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """``gaps`` of a model that is loaded, on the device where it is."""
    device = next(model.parameters()).device
    read = torch.from_numpy(np.concatenate([prompts, tokens[:, :-1]], 1)).to(device)
    together = max(1, PIECE // read.shape[1])
    parts = zip(read.split(together), torch.from_numpy(tokens).to(device).split(together), strict=True)
    return np.concatenate([_gaps(model, decoder, *part) for part in parts])


def _load(weights_dir: Path | str, threads: int, device: str = "cpu") -> tuple[Any, Decoder]:
    """The model, and what it is made of, in a process that gives the same for the same."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(device == "cpu")  # cuBLAS would need a workspace that is set before its start
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # Else each new tensor is first written with NaN. Nothing reads what nothing wrote: the cache gives what it has.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    decoder = Workload.read(weights_dir).decoder
    assert decoder is not None
    return load_module(weights_dir, attention="eager", device=device).model, decoder


def _gaps(model: Any, decoder: Decoder, read: torch.Tensor, tokens: torch.Tensor) -> np.ndarray:
    """``gaps`` of texts that are read together, piece by piece; the last places of ``read`` are those before tokens."""
    rows, length = read.shape
    begin = length - tokens.shape[1]  # of the place whose logits the first token was chosen from
    made = []
    with torch.inference_mode():
        sizes = (decoder.layers, 2, rows, decoder.kv_heads, length, decoder.head_size)
        cache = _cache(torch.empty(sizes, device=read.device), 0)
        for first in range(0, length, PIECE):
            piece = read[:, first : first + PIECE]
            asked = min(piece.shape[1], first + piece.shape[1] - begin)
            answer = model(input_ids=piece, past_key_values=cache, use_cache=True, logits_to_keep=max(1, asked))
            if asked > 0:
                logits = answer.logits.float()
                place = first + piece.shape[1] - asked - begin
                chosen = logits.gather(-1, tokens[:, place : place + asked, None])[..., 0]
                made.append((logits.amax(-1) - chosen).cpu().numpy())
    return np.concatenate(made, 1)


def _probes(model: Any, decoder: Decoder, prompts: torch.Tensor) -> list[float]:
    """How far each of ``PROBES`` moves the logits of the first decode step."""
    rows, prompt = prompts.shape
    with torch.inference_mode():
        buffers = torch.empty((decoder.layers, 2, rows, decoder.kv_heads, prompt + 1, decoder.head_size))
        newest, cache = prompts, _cache(buffers, 0)
        for piece in prompts.split(PIECE, 1):
            newest = _forward(model, piece, cache).argmax(-1, keepdim=True)

        def step(**further: Any) -> torch.Tensor:
            return _forward(model, newest, _cache(buffers, prompt), **further)

        def without(slot: int) -> torch.Tensor:
            kept = buffers[..., slot, :].clone()
            buffers[..., slot, :] = 0
            logits = step()
            buffers[..., slot, :] = kept
            return logits

        right = step()
        wrong = [without(prompt // 2), without(prompt - 1), step(position_ids=torch.full_like(newest, prompt - 1))]
    return [_moved(right, each) for each in wrong]


def _rounding(model: Any, prompts: torch.Tensor, precision: str) -> float:
    """How far rounding moves the logits after prompts; at most 1, where it overflows too."""
    with torch.inference_mode():
        right = model(input_ids=prompts, use_cache=False, logits_to_keep=1).logits[:, -1]
        with rounded(model, precision):
            wrong = model(input_ids=prompts, use_cache=False, logits_to_keep=1).logits[:, -1]
    moved = _moved(right, wrong)
    return min(moved, 1.0) if math.isfinite(moved) else 1.0


def _moved(right: torch.Tensor, wrong: torch.Tensor) -> float:
    """Relative L2 of logits, each less its mean, of the ``TOP`` that are largest where they are right."""
    top = right.topk(min(TOP, right.shape[-1])).indices
    known, given = ((each - each.mean(-1, keepdim=True)).gather(-1, top) for each in (right, wrong))
    return float((given - known).norm() / known.norm().clamp_min(torch.finfo(known.dtype).tiny))


def _answer(
    model: Any, decoder: Decoder, prompts: torch.Tensor, checked: torch.Tensor, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, and logits of the ``checked`` rows, each with the rows first."""
    tokens, logits = [], []
    for position, row in enumerate(_logits(model, decoder, prompts, count)):
        tokens.append(row.argmax(-1).numpy())
        if position < CHECKED_STEPS:
            logits.append(row[checked].numpy())
    return np.stack(tokens, 1), np.stack(logits, 1)


def _logits(model: Any, decoder: Decoder, prompts: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
    """Logits of each token in turn, float32 (rows, vocabulary)."""
    (rows, prompt), sizes = prompts.shape, (decoder.kv_heads, prompts.shape[1] + count - 1, decoder.head_size)
    with torch.inference_mode():
        buffers = torch.empty((decoder.layers, 2, rows, *sizes))
        lasts = []
        for begin in range(0, rows, together := max(1, PIECE // prompt)):
            cache = _cache(buffers[:, :, begin : begin + together], 0)
            for piece in prompts[begin : begin + together].split(PIECE, 1):
                last = _forward(model, piece, cache)
            lasts.append(last)
        last, cache = torch.cat(lasts), _cache(buffers, prompt)
        for position in range(count):
            yield last
            if position < count - 1:
                last = _forward(model, last.argmax(-1, keepdim=True), cache)


def _forward(model: Any, ids: torch.Tensor, cache: Any, **further: Any) -> torch.Tensor:
    answer = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **further)
    logits: torch.Tensor = answer.logits[:, -1].float()
    return logits


def _cache(buffers: torch.Tensor, length: int) -> Any:
    """A cache of Transformers in buffers (layers, keys and values, rows, heads, tokens, size).

    Transformers' default one joins keys and values to all before in new memory. This one writes them behind the first
    ``length`` tokens, which are there already, and gives a view. No layer of it has a window: one that is longer than
    every context is none.
    """
    from transformers.cache_utils import Cache, DynamicLayer

    class InPlace(DynamicLayer):
        """Keys and values as views of a layer's buffers."""

        def __init__(self, buffer: torch.Tensor) -> None:
            super().__init__()
            self.buffer = buffer
            self.lazy_initialization(*buffer)
            self.keys, self.values = buffer[:, :, :, :length]

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            before = self.get_seq_length()
            after = before + key_states.shape[2]
            for held, new in zip(self.buffer, (key_states, value_states), strict=True):
                held[:, :, before:after] = new
            self.keys, self.values = self.buffer[:, :, :, :after]
            return self.keys, self.values

    return Cache(layers=[InPlace(buffer) for buffer in buffers])
