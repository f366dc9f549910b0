"""A tiny decoder that generates with a cache, in any precision and with a planted fault, and its FP32 reference."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ceilings.graphs import token_parity
from ceilings.models import pretrained, token_reference
from ceilings.models.families import causal_lm
from ceilings.workload.generation import CHECKED_ROWS, CHECKED_STEPS, TOP, Decoder

PROMPT, VOCABULARY = 24, 300
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 128},
    "llama": {
        **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 128},
    },
}
DECODERS = {"gpt2": Decoder(2, 4, 4, 16, VOCABULARY, 128), "llama": Decoder(2, 4, 2, 16, VOCABULARY, 128)}
Arrays = dict[str, np.ndarray]
Fault = Callable[[int, Any, torch.Tensor], dict[str, Any]]
"""What is done before the pass of a step to the cache and the newest tokens; further arguments of that pass."""


@functools.cache
def model(architecture: str, seed: int, dtype: torch.dtype = torch.float32) -> Any:
    """A decoder with the random weights of its family."""
    pretrained.quiet()
    torch.set_num_threads(1)  # tiny products; the tests share their cores
    made: Any = causal_lm.build(architecture, "text-generation", None, SIZES[architecture], seed=seed, name="tiny")
    kept = {name: module.inv_freq for name, module in made.named_modules() if hasattr(module, "inv_freq")}
    made = made.eval().to(dtype)
    for name, angles in kept.items():  # which a loader leaves in FP32
        made.get_submodule(name).inv_freq = angles
    return made


def prompts(seed: int, batch: int) -> list[torch.Tensor]:
    """Two elements of a pool."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, (batch, PROMPT), generator=generator) for _ in range(2)]


def generate(decoder: Any, ids: torch.Tensor, count: int, fault: Fault | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (rows, count), and logits (rows, count, vocabulary)."""
    from transformers import DynamicCache

    cache, newest, tokens, logits = DynamicCache(), ids, [], []
    with torch.inference_mode():
        for step in range(count):
            further = fault(step, cache, newest) if fault else {}
            answer = decoder(input_ids=newest, past_key_values=cache, use_cache=True, **further).logits[:, -1].float()
            newest = answer.argmax(-1, keepdim=True)
            tokens.append(newest[:, 0].numpy())
            logits.append(answer.numpy())
    return np.stack(tokens, 1), np.stack(logits, 1)


def reference(architecture: str, seed: int, batch: int, count: int, given: list[torch.Tensor] | None = None) -> Arrays:
    """As ``ceilings.models.token_reference`` gives it, of prompts that are ``given`` or drawn."""
    decoder = model(architecture, seed)
    parts = [generate(decoder, ids, count) for ids in given] if given else _without_fault(decoder, seed, batch, count)
    return {
        "tokens": np.stack([tokens for tokens, _ in parts]),
        "logits": np.stack([logits[:CHECKED_ROWS, :CHECKED_STEPS] for _, logits in parts]),
    }


def outputs(
    decoder: Any,
    seed: int,
    batch: int,
    count: int,
    fault: Fault | None = None,
    *,
    given: list[torch.Tensor] | None = None,
) -> Arrays:
    """As a runner's ``outputs`` of two elements, stacked."""
    if fault or given:
        parts = [generate(decoder, ids, count, fault) for ids in given or prompts(seed, batch)]
    else:
        parts = _without_fault(decoder, seed, batch, count)
    checked = [logits[:CHECKED_ROWS, :CHECKED_STEPS] for _, logits in parts]
    ids = [np.argsort(-logits, -1, kind="stable")[..., :TOP] for logits in checked]
    return {
        "tokens": np.stack([tokens for tokens, _ in parts]),
        "ids": np.stack(ids),
        "logits": np.stack([np.take_along_axis(c, i, -1) for c, i in zip(checked, ids, strict=True)]),
    }


def compared(
    given: Arrays, expected: Arrays, architecture: str, seed: int, ids: list[torch.Tensor] | None = None
) -> dict[str, Any]:
    """The parity of outputs, with what the real reader makes of texts that are not the reference's."""
    parity = token_parity.compare(given, expected)
    texts, places = token_parity.other_texts([given["tokens"]], expected["tokens"])
    if not len(texts):
        return token_parity.scored(parity, token_parity.reading(np.zeros(texts.shape)))
    rows = np.stack([one.numpy() for one in ids or prompts(seed, given["tokens"].shape[1])])[tuple(places.T)]
    gaps = token_reference.score(model(architecture, seed), DECODERS[architecture], rows, texts)
    return token_parity.scored(parity, token_parity.reading(gaps))


@functools.cache
def _without_fault(decoder: Any, seed: int, batch: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Many tests are held against the same few; who reads them stacks them, which copies."""
    return [generate(decoder, ids, count) for ids in prompts(seed, batch)]


def empty_slot(at: int) -> Fault:
    """A slot of the cache that is empty from a step on."""

    def fault(step: int, cache: Any, newest: torch.Tensor) -> dict[str, Any]:
        for layer in cache.layers if step == at else ():
            layer.keys[:, :, 5] = layer.values[:, :, 5] = 0
        return {}

    return fault


def cleared(slot: int) -> Fault:
    """A slot of the prompt that is empty from the first decode step on."""

    def fault(step: int, cache: Any, newest: torch.Tensor) -> dict[str, Any]:
        for layer in cache.layers if step == 1 else ():
            layer.keys[:, :, slot] = layer.values[:, :, slot] = 0
        return {}

    return fault


def stale_slot(at: int) -> Fault:
    """A newest slot that still holds the token before."""

    def fault(step: int, cache: Any, newest: torch.Tensor) -> dict[str, Any]:
        for layer in cache.layers if step > at else ():
            layer.keys[:, :, -1], layer.values[:, :, -1] = layer.keys[:, :, -2], layer.values[:, :, -2]
        return {}

    return fault


def swapped_row(at: int) -> Fault:
    """A row that goes on with the cache of another."""

    def fault(step: int, cache: Any, newest: torch.Tensor) -> dict[str, Any]:
        for layer in cache.layers if step == at else ():
            layer.keys[1], layer.values[1] = layer.keys[0], layer.values[0]
        return {}

    return fault


def wrong_position(at: int) -> Fault:
    """Positions that are one too large."""

    def fault(step: int, cache: Any, newest: torch.Tensor) -> dict[str, Any]:
        return {"position_ids": torch.full_like(newest, PROMPT + step)} if step >= at else {}

    return fault


def length_that_stays(at: int) -> Fault:
    """Attention that reaches as far as when it was captured."""

    def fault(step: int, cache: Any, newest: torch.Tensor) -> dict[str, Any]:
        if step < at:
            return {}
        length = cache.get_seq_length() + 1
        dtype = cache.layers[0].keys.dtype
        mask = torch.zeros(len(newest), 1, 1, length, dtype=dtype)
        mask[..., PROMPT + at :] = torch.finfo(dtype).min
        return {"attention_mask": mask, "position_ids": torch.full_like(newest, PROMPT + step - 1)}

    return fault


FAULTS = {
    "empty slot": empty_slot,
    "stale slot": stale_slot,
    "swapped row": swapped_row,
    "wrong position": wrong_position,
    "length that stays": length_that_stays,
}
