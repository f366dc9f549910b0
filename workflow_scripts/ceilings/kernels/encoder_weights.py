"""Weights of BERT and DistilBERT as the kernels read them: from Transformers' modules, in FP16, in one piece each.

``fp8_weights`` makes those of FP8 of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ceilings.errors import CellFailure
from ceilings.kernels import tiles


class Linear(NamedTuple):
    """A product: weight (out, in), bias (out,), and the activation that follows.

    In FP8 ``scale``, (out,), is what sums are multiplied by, and ``factor`` what the result is as it is written.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    activation: str = "none"
    scale: torch.Tensor | None = None
    factor: float = 1.0


class Norm(NamedTuple):
    """A LayerNorm: gain and offset (width,), what is added to the variance, and by what its FP8 result is larger."""

    gain: torch.Tensor
    offset: torch.Tensor
    epsilon: float
    factor: float = 1.0


class Layer(NamedTuple):
    """An encoder layer, normalised after each half; ``factor``: what attention's result is multiplied by."""

    qkv: Linear
    out: Linear
    norm: Norm
    up: Linear
    down: Linear
    end: Norm
    factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class EncoderWeights:
    """All of a model.

    Attributes:
        heads: Of attention.
        words: Table of words (vocabulary, hidden).
        positions: Table of positions, with the first token type's row added: requests have tokens of one type.
        norm: After the embedding.
        layers: In their order.
        head: The products after the encoder.
        reads: What the head reads: ``first`` tokens, ``all`` tokens, ``mean`` or ``cls`` of a text's.
        normalize: Whether an embedding has length 1.
        separate: Whether each column of the head is a separate output, as the start and the end of an answer are.
    """

    heads: int
    words: torch.Tensor
    positions: torch.Tensor
    norm: Norm
    layers: tuple[Layer, ...]
    head: tuple[Linear, ...]
    reads: str
    normalize: bool = False
    separate: bool = False

    @property
    def hidden(self) -> int:
        """The width of a token."""
        return self.words.shape[1]

    @property
    def intermediate(self) -> int:
        """The width within the FFN."""
        return self.layers[0].up.weight.shape[0]

    def sizes(self, tokens: int) -> str:
        """What tiles tuned for so many tokens are kept by."""
        return tiles.sizes(tokens, self.hidden, self.intermediate, self.heads, self.precision)

    @property
    def precision(self) -> str:
        """What the layers' products are computed in, as a study names it."""
        return "fp8" if self.layers[0].qkv.scale is not None else "fp16"


def of(module: Any) -> EncoderWeights:
    """Weights of a text encoder, as ``load_module`` gives it, on its device.

    Raises:
        CellFailure: ``unsupported``: another architecture, or something in it that the kernels do not do.
    """
    model, task = module.model, module.task
    kind = str(model.config.model_type)
    if kind not in READERS:
        raise CellFailure("unsupported", f"there are kernels for {' and '.join(READERS)}, and this model is {kind}")
    if getattr(model.config, "is_decoder", False):
        raise CellFailure("unsupported", "the kernels compute encoders, and config.json says is_decoder")
    base = getattr(model, model.base_model_prefix, model)
    embeddings = base.embeddings
    positions = embeddings.position_embeddings.weight.detach()
    if kinds := getattr(embeddings, "token_type_embeddings", None):
        positions = positions.float() + kinds.weight.detach()[0].float()
    blocks = base.encoder.layer if kind == "bert" else base.transformer.layer
    embedding = task == "sentence-embedding"
    return EncoderWeights(
        heads=int(model.config.num_attention_heads),
        words=_half(embeddings.word_embeddings.weight),
        positions=_half(positions),
        norm=_norm(embeddings.LayerNorm),
        layers=tuple(READERS[kind](block, _activation(model.config)) for block in blocks),
        head=_head(model, task, kind),
        reads=module.pooling if embedding else "first" if task == "sequence-classification" else "all",
        normalize=bool(embedding and module.normalize),
        separate=task == "question-answering",
    )


def _bert(block: Any, activation: str) -> Layer:
    own = block.attention.self
    return Layer(
        _stacked(own.query, own.key, own.value),
        _linear(block.attention.output.dense),
        _norm(block.attention.output.LayerNorm),
        _linear(block.intermediate.dense, activation),
        _linear(block.output.dense),
        _norm(block.output.LayerNorm),
    )


def _distilbert(block: Any, activation: str) -> Layer:
    own = block.attention
    return Layer(
        _stacked(own.q_lin, own.k_lin, own.v_lin),
        _linear(own.out_lin),
        _norm(block.sa_layer_norm),
        _linear(block.ffn.lin1, activation),
        _linear(block.ffn.lin2),
        _norm(block.output_layer_norm),
    )


READERS: dict[str, Callable[[Any, str], Layer]] = {"bert": _bert, "distilbert": _distilbert}
"""How a layer is read, by Transformers' name of the architecture."""


def _head(model: Any, task: str, kind: str) -> tuple[Linear, ...]:
    if task == "sentence-embedding":
        return ()
    if task == "question-answering":
        return (_linear(model.qa_outputs),)
    if task == "token-classification":
        return (_linear(model.classifier),)
    first = _linear(model.bert.pooler.dense, "tanh") if kind == "bert" else _linear(model.pre_classifier, "relu")
    return first, _linear(model.classifier)


def _activation(config: Any) -> str:
    name = getattr(config, "hidden_act", None) or config.activation
    if name not in ("gelu", "relu"):
        raise CellFailure("unsupported", f"the kernels know gelu and relu, and this model's FFN has {name!r}")
    return str(name)


def _half(values: torch.Tensor) -> torch.Tensor:
    return values.detach().to(torch.float16).contiguous()


def _linear(layer: Any, activation: str = "none") -> Linear:
    return Linear(_half(layer.weight), _half(layer.bias), activation)


def _stacked(*layers: Any) -> Linear:
    return Linear(
        _half(torch.cat([layer.weight for layer in layers])), _half(torch.cat([layer.bias for layer in layers]))
    )


def _norm(layer: Any) -> Norm:
    return Norm(_half(layer.weight), _half(layer.bias), float(layer.eps))
