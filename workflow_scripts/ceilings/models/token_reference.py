"""Tokens in FP32 by PyTorch on the CPU, greedily and with a cache: what runtimes that generate are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ceilings.models.load import load_module
from ceilings.workload.generation import CANDIDATES, CHECKED_ROWS, CHECKED_STEPS, context
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

PIECE = 512
"""Tokens of a prompt that are read at once: eager attention holds a score for each of them and each token before."""

MEMORY = 1 << 32
"""Bytes that the scores of a layer, or the cache, may take: rows of a batch are taken in groups of so many as fit."""


def generate(
    weights_dir: Path | str, elements: Sequence[Mapping[str, np.ndarray]], shape: Shape, threads: int
) -> dict[str, np.ndarray]:
    """What the model generates.

    Args:
        weights_dir: The model's weights folder.
        elements: Of the pool, each with ``input_ids`` (batch, prompt).
        shape: Of a request.
        threads: CPU threads; more of them only reorder sums.

    Returns:
        ``tokens`` int64 (elements, batch, generated); ``logits`` float32 (elements, rows, checked, vocabulary) of the
        first rows and the first tokens; ``candidates`` int32 and ``candidate_logits`` float32 (elements, batch,
        generated, count), the largest logits of every token in descending order.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    workload = Workload.read(weights_dir)
    assert workload.decoder is not None
    model: Any = load_module(weights_dir, attention="eager").model
    heads, length = workload.decoder.heads, context(shape)
    scores = 4 * heads * min(PIECE, shape["prompt"]) * length
    rows = max(1, MEMORY // max(scores, workload.decoder.cache_bytes(1, length, 4)))
    answers = []
    for element in elements:
        ids = torch.from_numpy(element["input_ids"])
        parts = []
        for begin in range(0, len(ids), rows):
            checked = min(rows, max(0, CHECKED_ROWS - begin))
            parts.append(_answer(model, ids[begin : begin + rows], shape["generated"], checked))
        answers.append([np.concatenate(part) for part in zip(*parts, strict=True)])
    names = ("tokens", "logits", "candidates", "candidate_logits")
    return dict(zip(names, map(np.stack, zip(*answers, strict=True)), strict=True))


def _answer(model: Any, prompts: torch.Tensor, count: int, checked: int) -> tuple[np.ndarray, ...]:
    """Tokens, logits of the first ``checked`` rows, candidates and their logits, each with the rows first."""
    tokens, logits, candidates, values = [], [], [], []
    for position, row in enumerate(_logits(model, prompts, count)):
        best = row.topk(min(CANDIDATES, row.shape[-1]))
        tokens.append(row.argmax(-1).numpy())
        candidates.append(best.indices.to(torch.int32).numpy())
        values.append(best.values.numpy())
        if position < CHECKED_STEPS:
            logits.append(row[:checked].clone().numpy())
    return tuple(np.stack(part, 1) for part in (tokens, logits, candidates, values))


def _logits(model: Any, prompts: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
    """Logits of each token in turn, float32 (rows, vocabulary)."""
    from transformers import DynamicCache

    # Without its configuration: a window that is longer than every context is none.
    cache = DynamicCache()
    with torch.inference_mode():
        for piece in prompts.split(PIECE, 1):
            last = _forward(model, piece, cache)
        for position in range(count):
            yield last
            if position < count - 1:
                last = _forward(model, last.argmax(-1, keepdim=True), cache)


def _forward(model: Any, ids: torch.Tensor, cache: Any) -> torch.Tensor:
    answer = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: torch.Tensor = answer.logits[:, -1].float()
    return logits
