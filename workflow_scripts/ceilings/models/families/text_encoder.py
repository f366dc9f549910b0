"""Encoders of texts, by the classes of Transformers: whatever its ``AutoModelFor...`` loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json
from ceilings.models import interface, pretrained, sentence_modules
from ceilings.models.config_keys import SENTENCE_NORMALIZE, SENTENCE_POOLING

if TYPE_CHECKING:
    from ceilings.workload.workload import Workload

AUTO = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "sentence-embedding": "AutoModel",
}

UNUSED_HEADS = (
    *(r"(.*\.)?pooler\..*", r"cls\..*", r"lm_head\..*", r"classifier\..*", r"pre_classifier\..*", r"qa_outputs\..*"),
    *(r"vocab_(transform|layer_norm|projector)\..*", r"(discriminator|generator)_predictions\..*"),
    *(r"(predictions|sop_classifier)\..*", r"generator_lm_head\..*", r"(lm|mask)_predictions\..*"),
    *(r"head\..*", r"decoder\..*"),
)
"""Tensors of other tasks' heads, which a sentence embedding does not read."""

AFTERWARDS: dict[str, tuple[Any, ...]] = {SENTENCE_POOLING: ("mean", "cls"), SENTENCE_NORMALIZE: (False, True)}
"""Keys of config.json for sentence embeddings, with their values, the default first.

The mean is over the tokens that are no padding, ``cls`` is the first token; normalised embeddings have the length 1.
"""


save = pretrained.save


def build(
    architecture: str, task: str, base: Mapping[str, Any] | None, changes: Mapping[str, Any], *, seed: int, name: str
) -> torch.nn.Module:
    """A model with seeded random weights."""
    changes, afterwards = _split(changes)
    if task == "sentence-embedding":
        afterwards = _split(base or {})[1] | afterwards
    config = pretrained.configure(architecture, base, changes, name)
    kind = _class(config, task)
    options = {"add_pooling_layer": False} if _drops_pooler(kind, task) else {}
    model = pretrained.seeded(lambda: kind(config, **options).float(), seed, name)
    return _with(model, afterwards)


def load(
    folder: Path, task: str, attention: str = "sdpa", dtype: str = "float32", changes: Mapping[str, Any] | None = None
) -> torch.nn.Module:
    """The model of a folder, strictly."""
    from transformers import AutoConfig

    with pretrained.readable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    changes, afterwards = _split(changes or {})
    pretrained.refuse_changes(config, changes, folder)
    kind = _class(config, task)
    options: dict[str, Any] = {"add_pooling_layer": False} if _drops_pooler(kind, task) else {}
    embedding = task == "sentence-embedding"
    unused = UNUSED_HEADS if embedding else UNUSED_HEADS[:1]
    model, missing = pretrained.load_strictly(
        kind, folder, task, attention=attention, dtype=dtype, unused=unused, **options
    )
    if missing:
        pretrained.refuse(folder, task, ["the pooler", *missing], [], [])
    if embedding and (folder / sentence_modules.FILE).is_file():
        remedy = "put an undamaged copy there"
        afterwards = sentence_modules.settings(lambda name: read_json(folder / name, remedy), str(folder)) | afterwards
    return _with(model, afterwards)


def wrap(model: torch.nn.Module, task: str) -> torch.nn.Module:
    """The model as a module of tensors."""
    return TextEncoder(model, task)


def workload(model: torch.nn.Module, task: str) -> Workload:
    """What goes in and comes out."""
    config: Any = model.config
    if not pretrained.takes(model.forward, "input_ids"):
        raise CellFailure("unsupported", f"{type(model).__name__} takes no input_ids, so it is no encoder of texts")
    inputs = interface.token_inputs(int(config.vocab_size), pretrained.takes(model.forward, "attention_mask"))
    return interface.describe(wrap(model, task), task, inputs, family="text_encoder", architecture=config.model_type)


class TextEncoder(torch.nn.Module):
    """Takes ids and mask (batch, sequence) and returns the task's outputs."""

    def __init__(self, model: Any, task: str) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.pooling = getattr(model.config, SENTENCE_POOLING, "mean")
        self.normalize = bool(getattr(model.config, SENTENCE_NORMALIZE, False))
        self.attention = str(model.config._attn_implementation)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        masked = {} if attention_mask is None else {"attention_mask": attention_mask}
        answer = self.model(input_ids=input_ids, **masked)
        if self.task == "question-answering":
            return answer.start_logits, answer.end_logits
        if self.task != "sentence-embedding":
            return (answer.logits,)
        embedding = self._pooled(answer.last_hidden_state, attention_mask)
        return (torch.nn.functional.normalize(embedding, dim=1) if self.normalize else embedding,)

    def _pooled(self, states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        if self.pooling == "cls":
            return states[:, 0].contiguous()
        if attention_mask is None:
            return states.mean(1)
        real = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * real).sum(1) / real.sum(1).clamp(min=1)


def _class(config: Any, task: str) -> Any:
    import transformers

    return pretrained.automatic_class(getattr(transformers, AUTO[task]), config, task)


def _drops_pooler(kind: Any, task: str) -> bool:
    return task == "sentence-embedding" and pretrained.takes(kind.__init__, "add_pooling_layer")


def _split(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A configuration of Transformers, and what follows its encoder.

    Raises:
        UserError: A value that is not known.
    """
    afterwards = {key: config[key] for key in AFTERWARDS if key in config}
    for key, value in afterwards.items():
        if value not in AFTERWARDS[key]:
            raise UserError(f"config has {key} = {value!r}; give {' or '.join(map(str, AFTERWARDS[key]))}")
    return {key: value for key, value in config.items() if key not in AFTERWARDS}, afterwards


def _with(model: torch.nn.Module, afterwards: Mapping[str, Any]) -> torch.nn.Module:
    for key, value in afterwards.items():
        setattr(model.config, key, value)
    return model
