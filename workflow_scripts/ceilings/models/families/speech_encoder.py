"""Encoders of speech, by the classes of Transformers: convolutions over a waveform, then a Transformer.

Their front is one-dimensional convolutions, so a recording of another length is another shape of a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ceilings.errors import CellFailure
from ceilings.models import interface, pretrained
from ceilings.workload.tensors import TensorSpec

if TYPE_CHECKING:
    from ceilings.workload.workload import Workload

UNUSED = (r"(.*\.)?masked_spec_embed", r"(lm_head|classifier|projector|project_hid|project_q|quantizer)\..*")
"""Tensors of pretraining and of other tasks' heads, which an embedding does not read."""


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
    """The model of a folder, strictly."""
    from transformers import AutoConfig

    with pretrained.readable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    pretrained.refuse_changes(config, changes, folder)
    model, missing = pretrained.load_strictly(
        _class(config, task), folder, task, attention=attention, dtype=dtype, unused=UNUSED
    )
    if missing:
        pretrained.refuse(folder, task, ["a part of the model", *missing], [], [])
    return model


def wrap(model: torch.nn.Module, task: str) -> torch.nn.Module:
    """The model as a module of tensors."""
    return SpeechEncoder(model)


def workload(model: torch.nn.Module, task: str) -> Workload:
    """What goes in and comes out. A waveform is normalised to mean 0 and variance 1, as the models' own tools do."""
    config: Any = model.config
    if not pretrained.takes(model.forward, "input_values"):
        raise CellFailure("unsupported", f"{type(model).__name__} takes no input_values, so it is no encoder of speech")
    waveform = TensorSpec("input_values", "float32", ("batch", "samples"), "reals")
    return interface.describe(
        wrap(model, task), task, (waveform,), family="speech_encoder", architecture=config.model_type
    )


class SpeechEncoder(torch.nn.Module):
    """Takes waveforms (batch, samples) and returns the mean of the last layer over time."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.attention = str(model.config._attn_implementation)
        self.dtype = next(model.parameters()).dtype

    def forward(self, input_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.dtype != input_values.dtype:
            input_values = input_values.to(self.dtype)
        return (self.model(input_values=input_values).last_hidden_state.mean(dim=1),)


def _class(config: Any, task: str) -> Any:
    import transformers

    return pretrained.automatic_class(transformers.AutoModel, config, task)
