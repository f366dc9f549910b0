"""How far rounding to a narrower type moves a model's logits, computed in FP32 on any CPU.

Every operation of PyTorch runs in FP32, and what it gives is rounded to the type: so does PyTorch in that type, whose
products and sums are wider inside. Weights are rounded first. Angles of rotary positions stay FP32, as loaders leave
them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""By precision."""


class _Rounded(TorchDispatchMode):
    """Rounds what operations give; not views, which alias what is rounded already, and not what is written in place."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.exact = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if self.exact or func.is_view or func._schema.is_mutable:
            return made
        return tree_map_only(torch.Tensor, self._round, made)

    def _round(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self.dtype).to(value.dtype) if value.dtype == torch.float32 else value


@contextlib.contextmanager
def rounded(model: torch.nn.Module, precision: str) -> Iterator[None]:
    """Within the block a model in FP32 computes as in a precision of ``TYPES``.

    Args:
        model: Of Transformers, in FP32; its weights are its own again after the block.
        precision: The name.
    """
    mode = _Rounded(TYPES[precision])
    weights = {name: parameter.data for name, parameter in model.named_parameters()}
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if hasattr(module, "inv_freq"):
                stack.callback(module.register_forward_pre_hook(lambda *_: setattr(mode, "exact", True)).remove)
                stack.callback(module.register_forward_hook(lambda *_: setattr(mode, "exact", False)).remove)
        for name, parameter in model.named_parameters():
            stack.callback(setattr, parameter, "data", weights[name])
            parameter.data = mode._round(parameter.data)
        with mode:
            yield
