"""The towers of CLIP, by the classes of Transformers; those of a whole CLIP checkpoint too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ceilings.files import read_json
from ceilings.models import interface, pretrained
from ceilings.models.clip_towers import tower_config
from ceilings.models.weights_folder import CONFIG, REMEDY

if TYPE_CHECKING:
    from ceilings.workload.tensors import TensorSpec
    from ceilings.workload.workload import Workload

OTHER_TOWER = {
    "image-embedding": (r"text_model\..*", r"text_projection\..*", "logit_scale"),
    "sentence-embedding": (r"vision_model\..*", r"visual_projection\..*", "logit_scale"),
}
"""Tensors of a whole CLIP that a task does not read."""


save = pretrained.save


def build(
    architecture: str, task: str, base: Mapping[str, Any] | None, changes: Mapping[str, Any], *, seed: int, name: str
) -> torch.nn.Module:
    """A tower with seeded random weights."""
    config = pretrained.configure(architecture, base, changes, name)
    kind = _class(task)
    return pretrained.seeded(lambda: kind(config).float(), seed, name)


def load(
    folder: Path, task: str, attention: str = "sdpa", dtype: str = "float32", changes: Mapping[str, Any] | None = None
) -> torch.nn.Module:
    """The tower of a folder, strictly."""
    kind = _class(task)
    config = tower_config(read_json(folder / CONFIG, REMEDY), task)
    settings = kind.config_class.from_dict({k: v for k, v in config.items() if k not in pretrained.INTERNAL})
    pretrained.refuse_changes(settings, changes, folder)
    model, missing = pretrained.load_strictly(
        kind, folder, task, attention=attention, dtype=dtype, unused=OTHER_TOWER[task], config=settings
    )
    pretrained.refuse(folder, task, missing, [], [])
    return model


def wrap(model: torch.nn.Module, task: str) -> torch.nn.Module:
    """The tower as a module of tensors."""
    return (ImageTower if task == "image-embedding" else TextTower)(model)


def workload(model: torch.nn.Module, task: str) -> Workload:
    """What goes in and comes out."""
    config: Any = model.config
    fixed: dict[str, int] = {}
    inputs: tuple[TensorSpec, ...]
    if task == "image-embedding":
        pixels, fixed = interface.pixel_input(config.num_channels, config.image_size)
        inputs = (pixels,)
    else:
        inputs = interface.token_inputs(int(config.vocab_size), with_mask=True)
    return interface.describe(
        wrap(model, task), task, inputs, family="clip", architecture=config.model_type, fixed=fixed
    )


class ImageTower(torch.nn.Module):
    """Takes pixels (batch, channels, image, image) and returns projected embeddings (batch, projection)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.attention = str(model.config._attn_implementation)
        self.dtype = next(model.parameters()).dtype

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.dtype != pixel_values.dtype:
            pixel_values = pixel_values.to(self.dtype)
        return (self.model(pixel_values=pixel_values).image_embeds,)


class TextTower(torch.nn.Module):
    """Takes ids and mask (batch, sequence) and returns projected embeddings (batch, projection)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.attention = str(model.config._attn_implementation)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.model(input_ids=input_ids, attention_mask=attention_mask).text_embeds,)


def _class(task: str) -> Any:
    import transformers

    if task == "image-embedding":
        return transformers.CLIPVisionModelWithProjection
    return transformers.CLIPTextModelWithProjection
