"""Encoders of images, by the classes of Transformers: whatever ``AutoModel`` and its classifiers load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ceilings.errors import CellFailure
from ceilings.models import interface, pretrained

if TYPE_CHECKING:
    from ceilings.workload.workload import Workload

AUTO = {"image-embedding": "AutoModel", "image-classification": "AutoModelForImageClassification"}

POOLER = r"(.*\.)?pooler\..*"
UNUSED_HEADS = (POOLER, r"(.*_)?classifier\..*", r"decoder\..*", r"(.*\.)?mask_token", r"lm_head\..*")
"""Tensors of other tasks' heads, which an image embedding does not read."""

IMAGE_POOLING = "image_pooling"
"""Key of config.json: ``cls`` where the checkpoint has no pooler, so that the first token is the embedding."""


save = pretrained.save


def build(
    architecture: str, task: str, base: Mapping[str, Any] | None, changes: Mapping[str, Any], *, seed: int, name: str
) -> torch.nn.Module:
    """A model with seeded random weights."""
    config = pretrained.configure(architecture, base, changes, name)
    kind = _class(config, task)
    return pretrained.seeded(lambda: kind(config).float(), seed, name)


def load(
    folder: Path, task: str, attention: str = "sdpa", dtype: str = "float32", changes: Mapping[str, Any] | None = None
) -> torch.nn.Module:
    """The model of a folder, strictly; without a pooler where the checkpoint has none."""
    from transformers import AutoConfig

    with pretrained.readable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    pretrained.refuse_changes(config, changes, folder)
    kind = _class(config, task)
    unused = UNUSED_HEADS if task == "image-embedding" else (POOLER,)
    options: dict[str, Any] = {}
    if getattr(config, IMAGE_POOLING, None) == "cls":
        options = {"add_pooling_layer": False}
    model, missing = pretrained.load_strictly(
        kind, folder, task, attention=attention, dtype=dtype, unused=unused, **options
    )
    if missing:
        if task != "image-embedding" or not pretrained.takes(kind.__init__, "add_pooling_layer"):
            pretrained.refuse(folder, task, ["a part of the model", *missing], [], [])
        model, _ = pretrained.load_strictly(
            kind, folder, task, attention=attention, dtype=dtype, unused=unused, add_pooling_layer=False
        )
        model.config.image_pooling = "cls"
    return model


def wrap(model: torch.nn.Module, task: str) -> torch.nn.Module:
    """The model as a module of tensors."""
    return ImageEncoder(model, task)


def workload(model: torch.nn.Module, task: str) -> Workload:
    """What goes in and comes out."""
    config: Any = model.config
    if not pretrained.takes(model.forward, "pixel_values"):
        raise CellFailure("unsupported", f"{type(model).__name__} takes no pixel_values, so it is no encoder of images")
    pixels, fixed = interface.pixel_input(getattr(config, "num_channels", 3), getattr(config, "image_size", None))
    return interface.describe(
        wrap(model, task), task, (pixels,), family="image_encoder", architecture=config.model_type, fixed=fixed
    )


class ImageEncoder(torch.nn.Module):
    """Takes pixels (batch, channels, height, width) and returns the pooled output, the first token, or logits."""

    def __init__(self, model: Any, task: str) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.attention = str(model.config._attn_implementation)
        self.dtype = next(model.parameters()).dtype

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.dtype != pixel_values.dtype:
            pixel_values = pixel_values.to(self.dtype)
        answer = self.model(pixel_values=pixel_values)
        if self.task == "image-classification":
            return (answer.logits,)
        pooled = getattr(answer, "pooler_output", None)
        # Convolutional networks pool to (batch, channels, 1, 1).
        return (answer.last_hidden_state[:, 0].contiguous() if pooled is None else pooled.flatten(1),)


def _class(config: Any, task: str) -> Any:
    import transformers

    return pretrained.automatic_class(getattr(transformers, AUTO[task]), config, task)
