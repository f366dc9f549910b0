"""The towers of CLIP, by open_clip's classes and with attention as they write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json, write_json
from ceilings.models import interface, open_clip_checkpoint, pretrained
from ceilings.models.weights_folder import CONFIG, REMEDY, WEIGHTS

if TYPE_CHECKING:
    from ceilings.workload.tensors import TensorSpec
    from ceilings.workload.workload import Workload

MODEL_KEYS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
FURTHER_KEYS = ("custom_text", "init_logit_bias", "init_logit_scale", "multimodal_cfg", "nonscalar_logit_scale")
"""What else open_clip's configurations hold."""


def build(
    architecture: str, task: str, base: Mapping[str, Any] | None, changes: Mapping[str, Any], *, seed: int, name: str
) -> torch.nn.Module:
    """A tower with seeded random weights; ``base`` holds the ``changes`` already."""
    config = dict(base or {})
    if unknown := sorted(set(changes) - set(MODEL_KEYS)):
        raise UserError(
            f"model {name!r} has the config key {unknown[0]!r}, which open_clip does not know; known: "
            f"{', '.join(MODEL_KEYS)}"
        )
    return _keep_tower(pretrained.seeded(lambda: _towers(config), seed, name), task)


def load(
    folder: Path, task: str, attention: str = "sdpa", dtype: str = "float32", changes: Mapping[str, Any] | None = None
) -> torch.nn.Module:
    """The tower of a weights folder, or of a checkpoint whose configuration ``changes`` holds, strictly."""
    model = _towers(read_json(folder / CONFIG, REMEDY) if changes is None else changes)
    state = open_clip_checkpoint.tower_of(open_clip_checkpoint.read(folder), task)
    wanted = open_clip_checkpoint.tower_of(model.state_dict(), task)
    pretrained.refuse(
        folder,
        task,
        [f"{name} of open_clip" for name in sorted(set(wanted) - set(state))],
        sorted(name for name, value in wanted.items() if name in state and state[name].shape != value.shape),
        sorted(set(state) - set(wanted)),
    )
    model.load_state_dict(state, strict=False)
    return _keep_tower(model, task).to(getattr(torch, dtype))


def save(model: torch.nn.Module, folder: Path) -> None:
    """Write config.json and model.safetensors."""
    from safetensors.torch import save_file

    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(state, str(folder / WEIGHTS), metadata={"format": "pt"})
    write_json(folder / CONFIG, model.config)


def wrap(model: torch.nn.Module, task: str) -> torch.nn.Module:
    """One tower as a module of tensors."""
    return (ImageTower if task == "image-embedding" else TextTower)(model)


def workload(model: torch.nn.Module, task: str) -> Workload:
    """What goes in and comes out. The text tower adds all of its positions, so that it has one length only."""
    config: Any = model.config
    fixed: dict[str, int] = {}
    inputs: tuple[TensorSpec, ...]
    if task == "image-embedding":
        pixels, fixed = interface.pixel_input(3, config["vision_cfg"].get("image_size", 224))
        inputs = (pixels,)
    else:
        text = config["text_cfg"]
        inputs = interface.token_inputs(int(text.get("vocab_size", 49408)), with_mask=False)
        fixed = {"sequence": int(text.get("context_length", 77))}
    return interface.describe(
        wrap(model, task), task, inputs, family="open_clip", architecture="open_clip", fixed=fixed
    )


class ImageTower(torch.nn.Module):
    """Takes pixels (batch, 3, image, image) and returns projected embeddings (batch, embed_dim)."""

    attention = "open_clip"

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.visual
        self.dtype = next(model.visual.parameters()).dtype

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.dtype != pixel_values.dtype:
            pixel_values = pixel_values.to(self.dtype)
        return (self.visual(pixel_values),)


class TextTower(torch.nn.Module):
    """Takes ids (batch, context_length) and returns projected embeddings (batch, embed_dim)."""

    attention = "open_clip"

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.model.encode_text(input_ids),)


def _keep_tower(model: Any, task: str) -> Any:
    """The model without what the task does not read."""
    others = ["logit_scale", "logit_bias"]
    if task == "image-embedding":
        others += ["transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection"]
    else:
        others += ["visual"]
    for name in others:
        setattr(model, name, None)
    return model


def _towers(config: Mapping[str, Any]) -> Any:
    """open_clip's model of a configuration, which it keeps as ``config``.

    Raises:
        UserError: open_clip is not installed.
        CellFailure: A model of another kind than two plain towers.
    """
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # the latter of a torchvision for another torch
        raise UserError(
            f"implementation: open_clip needs open_clip_torch and this torch's torchvision "
            f"({pretrained.first_line(error)}); install both, or set implementation: transformers"
        ) from None
    text = config.get("text_cfg", {})
    if config.get("multimodal_cfg") or config.get("custom_text") or text.get("hf_model_name"):
        raise CellFailure("unsupported", "open_clip models with a text tower of another kind than CLIP's are unknown")
    settings = {key: config[key] for key in MODEL_KEYS if key in config}
    try:
        model = open_clip.model.CLIP(**settings)
    except TypeError as error:
        raise UserError(
            f"open_clip cannot take its configuration ({pretrained.first_line(error)}); correct it"
        ) from None
    kept = {key: config[key] for key in (*MODEL_KEYS, *FURTHER_KEYS) if key in config}
    model.config = {
        "model_type": "open_clip",
        **kept,
        "vocab_size": int(text.get("vocab_size", 49408)),
        **open_clip_checkpoint.special_tokens(text),
    }
    return model
