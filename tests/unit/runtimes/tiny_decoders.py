"""Tiny decoders with seeded random weights, and what Transformers' own ``generate`` gives for them."""

from __future__ import annotations

import functools
import types

import numpy as np
import torch
import transformers

from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

VOCABULARY, POSITIONS = 300, 128
DECODERS = {
    "gpt2": Decoder(2, 4, 4, 16, VOCABULARY, POSITIONS),
    "llama": Decoder(2, 4, 2, 16, VOCABULARY, POSITIONS),
}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(
        n_layer=2, n_embd=64, n_head=4, vocab_size=VOCABULARY, n_positions=POSITIONS, bos_token_id=0, eos_token_id=0
    ),
    "llama": lambda: transformers.LlamaConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        vocab_size=VOCABULARY,
        max_position_embeddings=POSITIONS,
    ),
}


@functools.cache
def _weights(architecture: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[architecture]()).state_dict()


def model(architecture: str, dtype: torch.dtype = torch.float32, device: str = "cpu", **changes):
    """A fresh one each time: equal weights, in eval mode. Weights large enough that tokens depend on the prompt."""
    config = CONFIGS[architecture]()
    for name, value in changes.items():
        setattr(config, name, value)
    made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    made.load_state_dict(
        {name: 4 * value if value.dim() > 1 else value for name, value in _weights(architecture).items()}
    )
    return made.eval().requires_grad_(False).to(dtype).to(device)


def module(architecture: str, dtype: str = "float32", device: str = "cpu"):
    """As ``load_module`` gives it."""
    made = model(architecture, getattr(torch, dtype), device)
    return types.SimpleNamespace(model=made, attention="sdpa")


def workload(architecture: str) -> Workload:
    """As a family describes it."""
    decoder = DECODERS[architecture]
    ids = TensorSpec("input_ids", "int64", ("batch", "prompt"), "tokens", 0, VOCABULARY - 1)
    tokens = TensorSpec("tokens", "int64", ("batch", "generated"))
    logits = TensorSpec("logits", "float32", ("batch", VOCABULARY))
    return Workload(TASKS["text-generation"], (ids,), (tokens, logits), "causal_lm", architecture, decoder)


def prompts(shape: Shape, count: int = 3) -> list[np.ndarray]:
    """Different in every row and in every element."""
    sizes = (count, shape.batch, shape["prompt"])
    return list(np.random.default_rng(5).integers(0, VOCABULARY, sizes))


def generated(made, ids: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (batch, count) and logits (batch, count, vocabulary) of Transformers' own ``generate``."""
    where = torch.from_numpy(ids).to(made.device)
    result = made.generate(
        where,
        attention_mask=torch.ones_like(where),
        do_sample=False,
        min_new_tokens=count,
        max_new_tokens=count,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = result.sequences[:, ids.shape[1] :].cpu().numpy()
    return tokens, torch.stack(result.logits, 1).float().cpu().numpy()
