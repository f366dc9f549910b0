"""GPT-2 in plain PyTorch, of the weights that the kernels read: what a decode step is held against, in any precision.

It needs no Transformers, whose model gives the same (a test holds that); so a host with PyTorch and Triton can judge.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ceilings.kernels.decoder_weights import DecoderLayer, DecoderWeights
from ceilings.kernels.encoder_weights import Linear, Norm

GAIN = 1.25
"""Of random projections, what they do to the size of what they are given, as ``models.families.causal_lm`` has it."""


def random(
    layers: int, hidden: int, heads: int, vocabulary: int, positions: int, *, seed: int = 0, device: str = "cpu"
) -> DecoderWeights:
    """GPT-2 of these sizes with seeded random weights, FP16."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int, scale: float) -> torch.Tensor:
        values = torch.randn(size, generator=generator, device=device, dtype=torch.float32)
        return (values * scale).half()

    def linear(columns: int, inner: int, activation: str = "none") -> Linear:
        return Linear(normal(columns, inner, scale=GAIN * inner**-0.5), normal(columns, scale=0.05), activation)

    def norm() -> Norm:
        return Norm((1 + normal(hidden, scale=0.1)).half(), normal(hidden, scale=0.1), 1e-5)

    words = normal(vocabulary, hidden, scale=0.02)
    made = tuple(
        DecoderLayer(
            *(norm(), linear(3 * hidden, hidden), linear(hidden, hidden)),
            *(norm(), linear(4 * hidden, hidden, "gelu_new"), linear(hidden, 4 * hidden)),
        )
        for _ in range(layers)
    )
    return DecoderWeights(heads, words, normal(positions, hidden, scale=0.01), made, norm(), words)


def forward(
    weights: DecoderWeights, ids: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Logits (batch, tokens, vocabulary), and keys and values of each layer, (batch, heads, tokens, width).

    Args:
        weights: In FP16; each is converted where it is used.
        ids: (batch, tokens), from the first position on.
        dtype: What everything is computed in.
    """
    batch, tokens = ids.shape
    x = weights.words[ids].to(dtype) + weights.places[:tokens].to(dtype)
    cache = []
    for layer in weights.layers:
        qkv = _linear(_norm(x, layer.first), layer.qkv).view(batch, tokens, 3, weights.heads, weights.width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        cache.append((key, value))
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + _linear(seen.transpose(1, 2).reshape(batch, tokens, -1), layer.out)
        x = x + _linear(_linear(_norm(x, layer.second), layer.up), layer.down)
    return _norm(x, weights.end) @ weights.head.to(dtype).T, cache


def static_cache(
    cache: list[tuple[torch.Tensor, torch.Tensor]], length: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values in FP16 at the beginning of buffers of ``length`` tokens. What follows is not a number."""

    def longer(values: torch.Tensor) -> torch.Tensor:
        batch, heads, tokens, width = values.shape
        buffer = torch.full((batch, heads, length, width), float("nan"), dtype=torch.float16, device=values.device)
        buffer[:, :, :tokens] = values
        return buffer

    return [(longer(key), longer(value)) for key, value in cache]


def _linear(x: torch.Tensor, linear: Linear) -> torch.Tensor:
    y = functional.linear(x, linear.weight.to(x.dtype), linear.bias.to(x.dtype))
    if linear.activation == "gelu_new":
        return functional.gelu(y, approximate="tanh")
    return {"none": lambda values: values, "gelu": functional.gelu, "relu": functional.relu}[linear.activation](y)


def _norm(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], norm.gain.to(x.dtype), norm.offset.to(x.dtype), norm.epsilon)
