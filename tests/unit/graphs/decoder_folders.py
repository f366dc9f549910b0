"""Weights folders of tiny decoders with seeded random weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from ceilings import records
from ceilings.provenance import provenance
from ceilings.workload.generation import Decoder
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

VOCABULARY, POSITIONS = 300, 128

GPT2 = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": POSITIONS, "initializer_range": 0.3}
LLAMA = {
    **{"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "initializer_range": 0.3},
}
QWEN2 = LLAMA | {"use_sliding_window": False, "tie_word_embeddings": True}
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (transformers.GPT2Config, GPT2),
    "llama": (transformers.LlamaConfig, LLAMA),
    "qwen2": (transformers.Qwen2Config, QWEN2),
}
"""By architecture; initialised wide, so that one token is clearly the likeliest."""


def model(architecture: str, **changes: Any) -> Any:
    """The Transformers model."""
    kind, sizes = CONFIGS[architecture]
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(11)
    config = kind(**{**sizes, **tokens, **changes})
    made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in made.named_parameters():  # zeros and ones would hide a bias or a scale that is left out
        if parameter.ndim == 1:
            scale = name.endswith("weight")
            torch.nn.init.normal_(parameter, 1.0 if scale else 0.0, 0.2)
    return made.requires_grad_(False)


def decoder(made: Any) -> Decoder:
    """Its sizes."""
    config = made.config
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return Decoder(
        *(config.num_hidden_layers, heads, kv_heads, config.hidden_size // heads, VOCABULARY, POSITIONS),
    )


def workload(made: Any) -> Workload:
    """What a request reads and gives."""
    return Workload(
        TASKS["text-generation"],
        (TensorSpec("input_ids", "int64", ("batch", "prompt"), "tokens", 0, VOCABULARY - 1),),
        (
            TensorSpec("tokens", "int64", ("batch", "generated")),
            TensorSpec("logits", "float32", ("batch", VOCABULARY)),
        ),
        "causal_lm",
        made.config.model_type,
        decoder(made),
    )


def write(made: Any, folder: Path) -> Path:
    """Fill a weights folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_pretrained(folder, max_shard_size="1TB")
    workload(made).write(folder)
    record = {
        **{"status": "ok", "model": folder.parent.name, "architecture": made.config.model_type, "source": "random"},
        **{"why": "a test", "hub": None, "revision": None, "seed": 11, "tokenizer": False, "sha256": "0" * 64},
        **{"parameters": sum(p.numel() for p in made.parameters()), "limits": {}, "provenance": provenance((), {})},
    }
    records.write(folder / "provenance.json", "weights", record)
    return folder


def request(made: Any, prompts: np.ndarray, generated: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (batch, generated) and logits (batch, generated, vocabulary) by PyTorch, without any cache."""
    ids, logits = torch.from_numpy(prompts), []
    for _ in range(generated):
        logits.append(made(ids, use_cache=False).logits[:, -1])
        ids = torch.cat([ids, logits[-1].argmax(-1, keepdim=True)], 1)
    return ids[:, prompts.shape[1] :].numpy(), torch.stack(logits, 1).numpy()


def prompts(batch: int, length: int, seed: int) -> np.ndarray:
    """Ids, int64 (batch, length)."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, (batch, length))
