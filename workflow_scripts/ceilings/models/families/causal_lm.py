"""Decoders that generate text, by the classes of Transformers: whatever its ``AutoModelForCausalLM`` loads.

Only those whose cache is plain: keys and values of every token, of the same size in every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ceilings.errors import CellFailure
from ceilings.models import pretrained
from ceilings.workload.generation import Decoder
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

UNUSED = (r"(.*\.)?attn\.(masked_)?bias",)
"""Masks that older releases saved among the weights."""

GAIN = 1.25
"""Of random weights, what a projection does to the size of what it is given, about. At 1 most rows end in a loop of a
few tokens; at 1.5 rounding to BF16 grows to 8% of the logits within 16 layers, which hides faults."""

PROBE = 5
"""Tokens of the rows by which a model's cache is looked at."""

CLOSE = 1e-3
"""Largest relative L2 difference of logits with and without a cache: far above FP32's rounding."""


save = pretrained.save


def build(
    architecture: str, task: str, base: Mapping[str, Any] | None, changes: Mapping[str, Any], *, seed: int, name: str
) -> torch.nn.Module:
    """A model with seeded random weights.

    The usual initialisation makes the layers so quiet that an input embedding which is the output's too gives its own
    token again and again, whatever stands before it: then no fault of a cache would change a token. So the projections
    of the layers get a gain of about ``GAIN``.
    """
    config = pretrained.configure(architecture, base, changes, name)
    kind = _class(config, task)
    model = pretrained.seeded(lambda: kind(config).float(), seed, name)
    _enliven(model)
    return model


def load(
    folder: Path, task: str, attention: str = "sdpa", dtype: str = "float32", changes: Mapping[str, Any] | None = None
) -> torch.nn.Module:
    """The model of a folder, strictly. A head that shares the input embedding's weights is not missing."""
    from transformers import AutoConfig

    with pretrained.readable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    pretrained.refuse_changes(config, changes, folder)
    kind = _class(config, task)
    model: torch.nn.Module
    model, _ = pretrained.load_strictly(kind, folder, task, attention=attention, dtype=dtype, unused=UNUSED)
    return model


def wrap(model: torch.nn.Module, task: str) -> torch.nn.Module:
    """The model beside what a runtime must know of it."""
    return CausalLM(model)


def workload(model: torch.nn.Module, task: str) -> Workload:
    """What a request reads and gives, and what its cache is made of, as a forward pass shows it.

    Raises:
        CellFailure: Its cache is no plain one.
    """
    decoder = _decoder(model.eval())
    ids = min(decoder.vocabulary, model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    config: Any = model.config
    return Workload(
        TASKS[task],
        (TensorSpec("input_ids", "int64", ("batch", "prompt"), "tokens", 0, ids - 1),),
        (
            TensorSpec("tokens", "int64", ("batch", "generated")),
            TensorSpec("logits", "float32", ("batch", decoder.vocabulary)),
        ),
        "causal_lm",
        config.model_type,
        decoder,
    )


class CausalLM(torch.nn.Module):
    """Takes ids (batch, tokens) and returns the logits of each row's last token, (batch, vocabulary), without a cache.

    Attributes:
        model: The model of Transformers, which takes ``past_key_values``.
        attention: How it computes attention: ``sdpa`` or ``eager``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.attention = str(model.config._attn_implementation)

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.model(input_ids=input_ids, use_cache=False).logits[:, -1],)


def _class(config: Any, task: str) -> Any:
    import transformers

    return pretrained.automatic_class(transformers.AutoModelForCausalLM, config, task)


def _enliven(model: Any) -> None:
    """Scale the projections of the layers to the gain ``GAIN``; embeddings and the head stay."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    with torch.no_grad():
        for module in model.modules():
            if module is head or not isinstance(module, torch.nn.Linear | Conv1D):
                continue
            weight = module.weight
            width = weight.shape[0] if isinstance(module, Conv1D) else weight.shape[1]
            weight.mul_(GAIN / (width**0.5 * weight.square().mean().sqrt()))


def _decoder(model: Any) -> Decoder:
    """Sizes of the cache and of the logits.

    Raises:
        CellFailure: It has no cache, or another one than keys and values of all tokens.
    """
    from transformers import DynamicCache

    config = model.config
    what = f"{type(model).__name__} (architecture {config.model_type})"
    if getattr(config, "is_encoder_decoder", False):
        raise _unsupported(what, "its decoder reads an encoder's states beside its tokens")
    positions = int(getattr(config, "max_position_embeddings", None) or 0)
    _refuse_other_layers(DynamicCache(config=config), what, positions)
    _refuse_moving_angles(config, what, positions)
    for parameter in ("past_key_values", "use_cache"):
        if not pretrained.takes(model.forward, parameter):
            raise _unsupported(what, f"its forward pass takes no {parameter}")
    rows = torch.arange(2 * PROBE).reshape(2, PROBE) % model.get_input_embeddings().num_embeddings
    try:
        with torch.inference_mode():
            whole = model(input_ids=rows, use_cache=False).logits[:, -1]
            cache = model(input_ids=rows[:, :-1], past_key_values=DynamicCache(config=config), use_cache=True)
            keys = [(layer.keys.shape, layer.values.shape) for layer in cache.past_key_values.layers]
            last = model(input_ids=rows[:, -1:], past_key_values=cache.past_key_values, use_cache=True).logits[:, -1]
    except Exception as error:  # each class of a model checks its inputs in its own way
        raise _unsupported(what, f"a forward pass with one fails: {pretrained.first_line(error)}") from None
    if not keys or len({tuple(size) for pair in keys for size in pair}) != 1:
        raise _unsupported(what, "its layers keep keys and values of different sizes")
    batch, kv_heads, length, head_size = keys[0][0]
    if (batch, length) != (2, PROBE - 1):
        raise _unsupported(what, f"of {PROBE - 1} tokens it keeps {length}")
    if not (last - whole).norm() <= CLOSE * (whole - whole.mean()).norm():
        raise _unsupported(what, "its logits with a cache are not those without one")
    return Decoder(len(keys), int(config.num_attention_heads), kv_heads, head_size, whole.shape[-1], positions)


def _refuse_other_layers(cache: Any, what: str, positions: int) -> None:
    """Refuse layers that keep something else than keys and values of every token.

    A window as long as the longest context leaves nothing out.

    Raises:
        CellFailure: With the kind of such a layer.
    """
    from transformers import cache_utils

    for layer in cache.layers:
        window = getattr(layer, "sliding_window", None)
        if window is not None and 0 < positions <= window:
            continue
        if window is not None:
            raise _unsupported(
                what,
                f"it forgets what is {window} tokens ago; with weights: random, set config.max_position_embeddings to "
                "at most that (or, where the architecture knows it, config.sliding_window to null)",
            )
        if type(layer) is not cache_utils.DynamicLayer:
            raise _unsupported(what, f"Transformers keeps a {type(layer).__name__} for it")


def _refuse_moving_angles(config: Any, what: str, positions: int) -> None:
    """Refuse rotary angles that become others while a text grows: the keys of its cache would have the old ones.

    Raises:
        CellFailure: With the context from which on they do.
    """
    rotary = getattr(config, "rope_parameters", None) or {}
    first = rotary.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    if rotary.get("rope_type") == "longrope" and (not positions or not first or positions > first):
        raise _unsupported(
            what,
            f"its rotary angles (longrope) are others for a context of more than {first} tokens; with weights: random, "
            "set config.max_position_embeddings to at most that",
        )


def _unsupported(what: str, why: str) -> CellFailure:
    return CellFailure("unsupported", f"{what} is not generated with: its cache is no plain one, {why}")
