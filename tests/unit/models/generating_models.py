"""Definitions of tiny models that generate text."""

from __future__ import annotations

from typing import Any

from ceilings.models import definition

GPT2: dict[str, Any] = {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 300, "n_positions": 128}
LLAMA: dict[str, Any] = {
    **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 128},
}
SIZES = {"gpt2": GPT2, "llama": LLAMA}


def generating(architecture: str = "gpt2", **changes: Any) -> definition.Definition:
    """A tiny decoder with random weights."""
    value = {"architecture": architecture, "weights": "random", "seed": 0, "config": SIZES.get(architecture, {})}
    return definition.read("tiny", {**value, **changes})
