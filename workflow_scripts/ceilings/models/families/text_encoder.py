"""Encoders of texts, by the classes of Transformers: whatever its ``AutoModelFor...`` loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json
from ceilings.models import interface, pretrained

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
    *(r"generator_lm_head\..*", r"(lm|mask)_predictions\..*", r"head\..*", r"decoder\..*"),
)
"""Tensors of other tasks' heads, which a sentence embedding does not read."""

POOLING = "sentence_pooling"
"""Key of config.json: ``mean`` (over the tokens that are no padding; the default) or ``cls`` (the first token)."""

SENTENCE_MODULES = ("Transformer", "Pooling", "Normalize")


def build(
    architecture: str, task: str, base: Mapping[str, Any] | None, changes: Mapping[str, Any], *, seed: int, name: str
) -> torch.nn.Module:
    """A model with seeded random weights."""
    changes = dict(changes)
    pooling = changes.pop(POOLING, (base or {}).get(POOLING))
    config = pretrained.configure(architecture, base, changes, name)
    kind = _class(config, task)
    options = {"add_pooling_layer": False} if _drops_pooler(kind, task) else {}
    model = pretrained.seeded(lambda: kind(config, **options).float(), seed, name)
    if pooling is not None:
        model.config.sentence_pooling = _checked(pooling)
    return model


def load(
    folder: Path, task: str, attention: str = "sdpa", dtype: str = "float32", changes: Mapping[str, Any] | None = None
) -> torch.nn.Module:
    """The model of a folder, strictly."""
    from transformers import AutoConfig

    with pretrained.readable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    changes = dict(changes or {})
    pooling = changes.pop(POOLING, None)
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
    if pooling is not None:
        model.config.sentence_pooling = _checked(pooling)
    elif embedding and (folder / "modules.json").is_file():
        model.config.sentence_pooling = _pooling_of(folder)
    return model


def save(model: torch.nn.Module, folder: Path) -> None:
    """Write config.json and model.safetensors, one file whatever the size."""
    model.save_pretrained(folder, max_shard_size="1TB")  # type: ignore[operator]


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
        self.pooling = _checked(getattr(model.config, POOLING, "mean"))
        self.attention = str(model.config._attn_implementation)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        masked = {} if attention_mask is None else {"attention_mask": attention_mask}
        answer = self.model(input_ids=input_ids, **masked)
        if self.task == "question-answering":
            return answer.start_logits, answer.end_logits
        if self.task != "sentence-embedding":
            return (answer.logits,)
        states = answer.last_hidden_state
        if self.pooling == "cls":
            return (states[:, 0].contiguous(),)
        if attention_mask is None:
            return (states.mean(1),)
        real = attention_mask.unsqueeze(-1).to(states.dtype)
        return ((states * real).sum(1) / real.sum(1).clamp(min=1),)


def _class(config: Any, task: str) -> Any:
    import transformers

    return pretrained.automatic_class(getattr(transformers, AUTO[task]), config, task)


def _drops_pooler(kind: Any, task: str) -> bool:
    return task == "sentence-embedding" and pretrained.takes(kind.__init__, "add_pooling_layer")


def _pooling_of(folder: Path) -> str:
    """How a checkpoint of sentence-transformers pools.

    Raises:
        CellFailure: It does more, or something else, than is known here.
    """
    remedy = "put an undamaged copy there"
    modules = read_json(folder / "modules.json", remedy)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if further := [kind for kind in kinds if kind not in SENTENCE_MODULES]:
        raise CellFailure("unsupported", f"{folder} has the module {further[0]} of sentence-transformers, unknown here")
    path = next((str(module["path"]) for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), None)
    config = {} if path is None else read_json(folder / path / "config.json", remedy)
    modes = {key.removeprefix("pooling_mode_") for key, value in config.items() if value is True and "_mode_" in key}
    modes |= {str(config["pooling_mode"])} if isinstance(config.get("pooling_mode"), str) else set()
    for known, pooling in (({"mean_tokens"}, "mean"), ({"mean"}, "mean"), ({"cls_token"}, "cls"), ({"cls"}, "cls")):
        if modes == known:
            return pooling
    if not modes:
        return "mean"
    raise CellFailure("unsupported", f"{folder} pools by {', '.join(sorted(modes))}; known: mean_tokens, cls_token")


def _checked(pooling: Any) -> str:
    if pooling not in ("mean", "cls"):
        raise UserError(f"config has {POOLING} = {pooling!r}; give mean or cls")
    return str(pooling)
