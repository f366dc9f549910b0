"""Families of models, and what the graph optimiser's fusions need of an architecture.

Standard library only: read while the workflow is parsed, and by no program whose result a new family must not touch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ceilings import packages, plugins
from ceilings.errors import UserError
from ceilings.models.clip_towers import CLIP_TOWERS
from ceilings.workload import generation
from ceilings.workload.task import TASKS

TEXT, IMAGE, SPEECH = ("batch", "sequence"), ("batch", "image"), ("batch", "samples")
GENERATED = generation.AXES


@dataclasses.dataclass(frozen=True)
class Family:
    """Models that one module builds, loads and wraps.

    Attributes:
        name: Its module below ``ceilings.models.families``.
        axes: Tasks, each with the axes of its inputs.
        packages: Distributions that it needs.
        architectures: The ``model_type``s that it takes; empty: whatever ``transformers`` knows for the task.
        implementation: Whose classes it uses, as a study's ``implementation`` says.
    """

    name: str
    axes: Mapping[str, tuple[str, ...]]
    packages: tuple[str, ...] = ("torch", "transformers", "safetensors")
    architectures: tuple[str, ...] = ()
    implementation: str = "transformers"

    @property
    def module(self) -> str:
        """As Python imports it."""
        return f"ceilings.models.families.{self.name}"

    def missing(self) -> list[str]:
        """Distributions that it needs and that are not installed."""
        return [package for package in self.packages if packages.find(package) is None]


def _problem(family: Family) -> str | None:
    """What is wrong with a plug-in's family."""
    if unknown := [task for task in family.axes if task not in TASKS]:
        return f"the task {unknown[0]!r}, which is none of {', '.join(TASKS)}; correct it"
    if not family.name.isidentifier():
        return "a name that is no module's; use letters, digits and underscores"
    return None


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *plugins.entries("FAMILIES", Family, _problem),
        Family(
            "clip",
            {"image-embedding": IMAGE, "sentence-embedding": TEXT},
            architectures=tuple(CLIP_TOWERS.values()),
        ),
        Family(
            "open_clip",
            {"image-embedding": IMAGE, "sentence-embedding": TEXT},
            packages=("torch", "open_clip_torch", "torchvision", "safetensors"),
            architectures=("open_clip",),
            implementation="open_clip",
        ),
        Family(
            "text_encoder",
            dict.fromkeys(
                ("sequence-classification", "token-classification", "question-answering", "sentence-embedding"), TEXT
            ),
        ),
        Family("causal_lm", {"text-generation": GENERATED}),
        Family("image_encoder", dict.fromkeys(("image-embedding", "image-classification"), IMAGE)),
        Family("speech_encoder", {"speech-embedding": SPEECH}),
    )
}
"""Every family by name, those of plug-ins first; the first that takes a model has it."""


@dataclasses.dataclass(frozen=True)
class Fusion:
    """What ONNX Runtime's Transformer optimiser needs of an architecture.

    Attributes:
        optimizer: Its ``model_type`` whose patterns fit.
        layers_key, heads_key, hidden_key: What the architecture's config.json calls these sizes.
        head_size: Width of a head, where config.json gives no number of heads.
    """

    optimizer: str
    layers_key: str = "num_hidden_layers"
    heads_key: str = "num_attention_heads"
    hidden_key: str = "hidden_size"
    head_size: int = 0


FUSIONS = {
    "bert": Fusion("bert"),
    "distilbert": Fusion("bert", "n_layers", "n_heads", "dim"),
    "roberta": Fusion("bert"),
    "xlm-roberta": Fusion("bert"),
    "camembert": Fusion("bert"),
    "electra": Fusion("bert"),
    "clip_text_model": Fusion("clip"),
    "clip_vision_model": Fusion("clip"),
    "open_clip": Fusion("clip", "layers", "heads", "width", head_size=64),
    "deit": Fusion("vit"),
    "vit": Fusion("vit"),
}
"""By ``model_type``, of whatever reads its inputs at once. Of CLIP's text tower and of open_clip's classes the
normalisations and activations are fused and no attention: no pattern knows a causal mask or a joint projection.
DeBERTa, MPNet, ModernBERT and DINOv2 are left out: the optimiser fuses a part of their attentions only."""


DECODERS = {
    "gpt2": Fusion("gqa", "n_layer", "n_head", "n_embd"),
    "llama": Fusion("gqa"),
    "mistral": Fusion("gqa"),
    "qwen2": Fusion("gqa"),
}
"""By ``model_type``, of models that generate: the optimiser fuses no attention with a cache, so their fused graph is
written (``ceilings.graphs.gqa_decoder``)."""


def fusion_of(architecture: str, task: str) -> Fusion | None:
    """What a fused graph of an architecture needs; None where none is known.

    >>> fusion_of("gpt2", "text-generation").optimizer, fusion_of("gpt2", "sequence-classification")
    ('gqa', None)
    """
    return (DECODERS if TASKS[task].generates else FUSIONS).get(architecture)


def family_of(architecture: str, task: str, implementation: str) -> Family:
    """The family that takes a model.

    Raises:
        UserError: None does.
    """
    takes = [
        family
        for family in FAMILIES.values()
        if family.implementation == implementation
        and (not family.architectures or architecture in family.architectures)
    ]
    for family in takes:
        if task in family.axes:
            return family
    tasks = list(dict.fromkeys(task for family in takes for task in family.axes))
    raise UserError(
        f"no family takes the task {task!r} of a {architecture!r} by the implementation {implementation!r}; "
        + (f"its tasks: {', '.join(tasks)}" if tasks else "choose another implementation or architecture")
    )
