"""Weights of GPT-2 as the kernels of a decode step read them: in FP16, each (out, in) and in one piece."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch

from ceilings.errors import CellFailure
from ceilings.kernels.encoder_weights import Linear, Norm

KIND = "gpt2"
"""Transformers' name of the architecture."""

ACTIVATIONS = ("gelu_new", "gelu", "relu")
"""What the FFN may have, by Transformers' names."""

REFUSED = {"scale_attn_by_inverse_layer_idx": True, "add_cross_attention": True, "scale_attn_weights": False}
"""Settings of GPT-2 that the kernels do not do, each with the value that asks for it."""


class DecoderLayer(NamedTuple):
    """A decoder layer, normalised before each half."""

    first: Norm
    qkv: Linear
    out: Linear
    second: Norm
    up: Linear
    down: Linear


@dataclasses.dataclass(frozen=True)
class DecoderWeights:
    """All of a model.

    Attributes:
        heads: Of attention.
        words: Table of words (vocabulary, hidden).
        places: Table of positions (positions, hidden).
        layers: In their order.
        end: The LayerNorm before the head.
        head: (vocabulary, hidden); often the table of words itself.
    """

    heads: int
    words: torch.Tensor
    places: torch.Tensor
    layers: tuple[DecoderLayer, ...]
    end: Norm
    head: torch.Tensor

    @property
    def hidden(self) -> int:
        """The width of a token."""
        return self.words.shape[1]

    @property
    def width(self) -> int:
        """The width of a head."""
        return self.hidden // self.heads


def of(model: Any) -> DecoderWeights:
    """Weights of a ``GPT2LMHeadModel`` in FP16, on its device. The model computes with the same memory from then on.

    Its projections are stored (in, out); each becomes a view of the copy that the kernels read.

    Raises:
        CellFailure: ``unsupported``: another architecture, or something in it that the kernels do not do.
    """
    config = model.config
    if config.model_type != KIND:
        raise CellFailure("unsupported", f"there are kernels for decoders of {KIND}, and this is {config.model_type}")
    if asked := [f"{name}: {value}" for name, value in REFUSED.items() if getattr(config, name, None) is value]:
        raise CellFailure("unsupported", f"the kernels do not do what config.json asks for: {', '.join(asked)}")
    if config.activation_function not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CellFailure("unsupported", f"the kernels know {known}, and the FFN has {config.activation_function!r}")
    width = config.n_embd // config.n_head
    if width < 16 or width & (width - 1):
        raise CellFailure("unsupported", f"the kernels take heads of 16, 32, 64, ... columns, and these have {width}")
    if model.dtype != torch.float16:
        raise CellFailure("unsupported", f"the kernels take weights in FP16, and these are {model.dtype}")
    base = model.transformer
    return DecoderWeights(
        heads=int(config.n_head),
        words=base.wte.weight.detach(),
        places=base.wpe.weight.detach(),
        layers=tuple(_layer(block, config.activation_function) for block in base.h),
        end=_norm(base.ln_f),
        head=model.lm_head.weight.detach(),
    )


def _layer(block: Any, activation: str) -> DecoderLayer:
    return DecoderLayer(
        _norm(block.ln_1),
        _turned(block.attn.c_attn),
        _turned(block.attn.c_proj),
        _norm(block.ln_2),
        _turned(block.mlp.c_fc, activation),
        _turned(block.mlp.c_proj),
    )


def _turned(projection: Any, activation: str = "none") -> Linear:
    turned = projection.weight.detach().T.contiguous()
    projection.weight.data = turned.T
    return Linear(turned, projection.bias.detach(), activation)


def _norm(layer: Any) -> Norm:
    return Norm(layer.weight.detach(), layer.bias.detach(), float(layer.eps))
