"""``torch.ops.ceilings.attention``: attention of encoders as an operator of PyTorch, compiled programs included.

After ``register()`` Transformers has it too: ``AutoModel.from_pretrained(..., attn_implementation="ceilings")``.
An operator is opaque to ``torch.compile``: it stays one kernel, and what surrounds it is compiled.
"""

from __future__ import annotations

from typing import Any

import torch

from ceilings.kernels import attention as kernel
from ceilings.kernels.tiles import Tiles

NAME = "ceilings"
"""What Transformers calls it: ``attn_implementation``."""

MASKS = (torch.int64, torch.bool)

BESIDE = ("position_bias", "sliding_window", "softcap", "s_aux")
"""What Transformers' layers may ask of an attention beside its operands, and the kernel does not do."""


@torch.library.custom_op("ceilings::attention", mutates_args=())
def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> torch.Tensor:
    """``softmax(scale Q K^T + mask) V``, one kernel; all tensors (batch, sequence, hidden) in FP16.

    Args:
        query: Heads beside each other in a row. Rows may stand apart, those of the three alike.
        key: As ``query``.
        value: The same.
        mask: (batch, sequence), INT64 or bool, zero where a token is padding, or None.
        heads: They share the hidden size alike.

    Raises:
        ValueError: A type, a size or a layout that the kernel does not take.
    """
    if problem := refused(query, key, value, mask, heads):
        raise ValueError(f"ceilings::attention takes {problem}")
    result = torch.empty_like(query, memory_format=torch.contiguous_format)
    kernel.launch(query, key, value, mask, result, heads, Tiles().attention)()
    return result


@attention.register_fake
def _(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> torch.Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def refused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> str | None:
    """What the kernel takes in place of these arguments; None if it takes them."""
    three = (query, key, value)
    if any(one.dtype != torch.float16 for one in three):
        return f"FP16, and this is {', '.join(str(one.dtype) for one in three)}"
    if query.ndim != 3 or any(one.shape != query.shape for one in three):
        return f"(batch, sequence, hidden) three times alike, and this is {[tuple(one.shape) for one in three]}"
    batch, sequence, hidden = query.shape
    if heads < 1 or hidden % heads:
        return f"heads that share the hidden size of {hidden} alike, and {heads} do not"
    if any(
        one.stride(2) != 1 or one.stride() != query.stride() or one.stride(0) != sequence * one.stride(1)
        for one in three
    ):
        return f"rows that stand equally apart, and strides are {[one.stride() for one in three]}"
    if mask is None or (mask.dtype in MASKS and mask.shape == (batch, sequence) and mask.is_contiguous()):
        return None
    return (
        f"a mask of INT64 or bool, {batch} x {sequence} in one piece, and this is {mask.dtype} of {tuple(mask.shape)}"
    )


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **beside: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as Transformers calls it.

    Args:
        module: The layer.
        query: (batch, heads, sequence, width).
        key: As ``query``.
        value: The same.
        attention_mask: What ``padding`` made of the request's mask.
        scaling: Of the scores.
        dropout: Of the softmax.
        is_causal: Whether a token sees those before it alone; None: as the layer says.
        beside: What else the layer says. ``BESIDE`` would change the result; of the rest nothing does.

    Returns:
        The result, (batch, sequence, heads, width), and None for the softmax, which never leaves the chip.

    Raises:
        ValueError: A layer that the kernel cannot compute: causal, with dropout, scaled otherwise, over another text's
            tokens, with fewer heads of keys, or with one of ``BESIDE``.
    """
    batch, heads, sequence, width = query.shape
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    if causal or dropout or (scaling is not None and abs(scaling * width**0.5 - 1) > 1e-6):
        raise ValueError(
            f"ceilings::attention is of encoders, scaled by 1 / sqrt({width}), without dropout;"
            f" this layer is {'causal' if causal else 'not causal'}, scaled by {scaling}, dropout {dropout}"
        )
    if asked := [name for name in BESIDE if beside.get(name) is not None]:
        raise ValueError(f"ceilings::attention has no {', '.join(asked)}, and this layer asks for it")
    if key.shape != query.shape or value.shape != query.shape:
        sizes = [tuple(one.shape) for one in (query, key, value)]
        raise ValueError(f"ceilings::attention takes as many heads, tokens and columns of each, and these are {sizes}")
    rows = [one.transpose(1, 2).reshape(batch, sequence, heads * width) for one in (query, key, value)]
    if any(one.stride() != rows[0].stride() for one in rows):  # where rotary positions made two of one product's three
        rows = [one.contiguous() for one in rows]
    return attention(*rows, attention_mask, heads).view(batch, sequence, heads, width), None


def padding(attention_mask: torch.Tensor | None = None, **_: Any) -> torch.Tensor | None:
    """The mask as the operator takes it: (batch, sequence), false where a token is padding; None without one."""
    return None if attention_mask is None else attention_mask.contiguous()


def register() -> None:
    """Let Transformers know it, as ``attn_implementation="ceilings"``."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, padding)
