"""What planning knows of a model before anything of it is made. Standard library only; ``onnx`` for ONNX files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings.errors import UserError
from ceilings.models import architectures, config_keys, configuration
from ceilings.models.catalogue import FAMILIES, Family, Fusion, family_of, fusion_of
from ceilings.models.clip_towers import CLIP_TOWERS, tower_config
from ceilings.models.definition import Definition
from ceilings.workload.task import TASKS

POSITIONS = {
    **dict.fromkeys(("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra"), 512),
    **dict.fromkeys(("mpnet", "roberta", "xlm-roberta"), 512),
    **dict.fromkeys(("clip_text_model", "open_clip"), 77),
    "modernbert": 8192,
}
"""``max_position_embeddings`` of base models, as ``transformers`` has them."""

OFFSET = (
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "markuplm", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Architectures whose first positions stand for padding: position ids start at ``pad_token_id + 1``."""

IMAGES = dict.fromkeys(("beit", "clip_vision_model", "convnext", "deit", "dinov2", "open_clip", "swin", "vit"), 224)
"""``image_size`` of base models, as ``transformers`` has them."""


OURS = ("causal_lm", "clip", "image_encoder", "speech_encoder", "text_encoder")
"""Families of models that Transformers configures."""


LARGEST_SIZE = 2**31 - 1
"""Of one dimension of a model: beyond it libraries compute with overflowing numbers."""


@dataclasses.dataclass(frozen=True)
class Outline:
    """What a plan needs of a model.

    Attributes:
        family: Module below ``ceilings.models.families``; empty for an ONNX file.
        architecture: ``model_type``, of a CLIP that of the tower which the task asks; empty where nobody knows it.
        task: A key of ``TASKS``.
        axes: Of its inputs, in the order of names of shapes.
        limits: The largest size of an axis, where there is one.
        fixed: The only size of an axis, where there is one.
        fusion: What the graph optimiser needs; None where no fusion of the architecture is known.
        has_weights: Whether there is a module to load, and not only a graph.
        positions: Of a model that generates, the longest context, prompt and generated tokens together; None where
            nothing bounds it.
        forgets: Why a configuration says that it keeps no key and value of every token; empty where it does not.
        least: The smallest size of an axis, where it is not 1.
    """

    family: str
    architecture: str
    task: str
    axes: tuple[str, ...]
    limits: Mapping[str, int]
    fixed: Mapping[str, int]
    fusion: Fusion | None
    has_weights: bool
    positions: int | None = None
    forgets: str = ""
    least: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """What a model is, from its definition and the configuration that was found.

    Attributes:
        family: Module below ``ceilings.models.families``.
        architecture: ``model_type``, of a CLIP that of the tower which the task asks.
        task: A key of ``TASKS``.
        axes: Of its inputs.
        base: The configuration before the study's changes; None: the base model's. Of open_clip with the changes.
        converted: Whether ``base`` is open_clip's, although Transformers' classes run the model.
        limits: Smallest and largest size of the axes that have bounds.
        positions, forgets: As ``Outline`` has them.
    """

    family: str
    architecture: str
    task: str
    axes: tuple[str, ...]
    base: Mapping[str, Any] | None
    converted: bool
    limits: Mapping[str, tuple[int, int]]
    positions: int | None = None
    forgets: str = ""


def outline(definition: Definition) -> Outline:
    """What planning needs of a model.

    Raises:
        UserError: Nothing says what the model is, or it contradicts itself.
    """
    if definition.onnx:
        from ceilings.models import onnx_file

        file = onnx_file.read(definition)
        task, axes = file.workload.task.name, file.workload.axes
        return Outline("", file.workload.architecture, task, axes, {}, file.fixed, None, False)
    model = resolve(definition, configuration.find(definition))
    return Outline(
        model.family,
        model.architecture,
        model.task,
        model.axes,
        {axis: high for axis, (_, high) in model.limits.items() if high < LARGEST_SIZE},
        {axis: high for axis, (low, high) in model.limits.items() if low == high},
        fusion_of(model.architecture, model.task),
        True,
        model.positions,
        model.forgets,
        {axis: low for axis, (low, high) in model.limits.items() if 1 < low < high},
    )


def resolve(definition: Definition, config: Mapping[str, Any] | None) -> Resolved:
    """What a model is.

    Args:
        definition: Its definition, not of an ONNX file.
        config: As ``configuration.find`` returns it.

    Raises:
        UserError: Nothing says what it is, or it contradicts itself.
    """
    architecture = configuration.architecture_of(definition, config)
    known = tuple(name for family in FAMILIES.values() for name in family.architectures)
    architectures.refuse_unknown_architecture(architecture, ("clip", *known), definition.name)
    task = configuration.task_of(definition, architecture, config)
    converted = architecture == "open_clip" and definition.implementation == "transformers"
    base: Mapping[str, Any] | None = config
    if architecture == "open_clip":
        base = configuration.merged(config or configuration.OPEN_CLIP_BASE, definition.config)
        sizes: Mapping[str, Any] = base["vision_cfg" if task == "image-embedding" else "text_cfg"]
    else:
        if config is not None and task in CLIP_TOWERS:
            base = tower_config(config, task)
        declared = architectures.declared(
            CLIP_TOWERS.get(task, architecture) if architecture == "clip" else architecture
        )
        sizes = {**(base or {}), **definition.config}
        if declared is not None:
            sizes = {**declared.canonical(base or {}), **declared.canonical(definition.config)}
    if architecture in ("clip", "open_clip") and definition.implementation == "transformers":
        architecture = CLIP_TOWERS.get(task, architecture)
    family = family_of(architecture, task, definition.implementation)
    if family.implementation == "transformers" and not converted:
        _refuse_config(definition, architecture, family, base)
    limits = _limits(architecture, family.axes[task], sizes, fixed_text=family.implementation == "open_clip")
    axes = family.axes[task]
    if isinstance(size := sizes.get("image_size"), list) and len(set(size)) > 1:
        axes = tuple(axis for axis in axes if axis != "image")  # Not square, and nothing to choose.
    longest = positions(architecture, sizes) if TASKS[task].generates else None
    forgets = _forgets(sizes, longest) if TASKS[task].generates else ""
    return Resolved(family.name, architecture, task, axes, base, converted, limits, longest, forgets)


def _forgets(config: Mapping[str, Any], longest: int | None) -> str:
    """Why a decoder's cache is no plain one, as far as its configuration says so; its family looks at the model."""
    window, kinds = config.get("sliding_window"), config.get("layer_types")
    used = config.get("use_sliding_window", True) and (not isinstance(kinds, list) or "sliding_attention" in kinds)
    if used and type(window) is int and (longest is None or longest > window):
        return f"attends to the last {window} tokens alone (sliding_window)"
    return ""


def _is_size(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_size, value))
    return type(value) is int and 1 <= value <= LARGEST_SIZE


def _refuse_config(definition: Definition, architecture: str, family: Family, base: Mapping[str, Any] | None) -> None:
    """Refuse what a study changes in a configuration and the model does not have, or has in another size."""
    name, changes = definition.name, definition.config
    if family.name not in OURS:
        return  # A plug-in reads its configuration itself.
    architectures.refuse_unknown_keys(architecture, changes, base, name)
    for where, config in (("its config.json", base or {}), ("config", changes)):
        _refuse_other_count(name, where, config)
    declared = architectures.declared(architecture)
    if declared is None:
        return
    for key, value in declared.canonical(changes).items():
        if key in (*declared.sizes, "num_labels") and value is not None and not _is_size(value):
            raise UserError(
                f"model {name!r}: config.{key} is {value!r}; a size is a whole number from 1 to {LARGEST_SIZE}"
            )
    if base is None or definition.weights == "random":
        return
    known = {**declared.defaults, **declared.canonical(base)}
    if isinstance(labels := known.get("id2label"), Mapping):
        known["num_labels"] = len(labels)
    for key, value in declared.canonical(changes).items():
        if key not in config_keys.OURS and known.get(key) not in (None, value):
            raise UserError(
                f"model {name!r}: the {configuration.CONFIG} of {definition.path or definition.hub} has {key} = "
                f"{known[key]!r}, but the study overrides it with {value!r}; remove the override or use random weights"
            )


def _refuse_other_count(name: str, where: str, config: Mapping[str, Any]) -> None:
    """Refuse a number of classes beside names of more or fewer of them."""
    for key in ("id2label", "label2id"):
        count, names = config.get("num_labels"), config.get(key)
        if isinstance(count, int) and isinstance(names, Mapping) and len(names) != count:
            raise UserError(
                f"model {name!r}: {where} has num_labels {count} beside {len(names)} names in {key}; give one of them"
            )


def positions(architecture: str, config: Mapping[str, Any]) -> int | None:
    """The longest sequence that a model takes; None where nothing bounds it.

    >>> positions("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}), positions("bert", {})
    (512, 512)
    """
    longest = config.get("max_position_embeddings", config.get("context_length", POSITIONS.get(architecture)))
    if longest is None and (declared := architectures.declared(architecture)) is not None:
        key = declared.aliases.get("max_position_embeddings", "max_position_embeddings")
        longest = config.get(key, declared.defaults.get(key))
    if not isinstance(longest, int) or _positions_are_relative(architecture, config):
        return None
    padding = config.get("pad_token_id", 1)
    # MPNet's padding position is 1 whatever its configuration says.
    first = 1 if architecture == "mpnet" or padding is None else int(padding)
    return longest - first - 1 if architecture in OFFSET else longest


def _positions_are_relative(architecture: str, config: Mapping[str, Any]) -> bool:
    """Whether a model adds no positions to its input: DeBERTa's distances end at the largest that it knows."""
    relative = bool(config.get("relative_attention", False)) and not config.get("position_biased_input", True)
    return architecture in ("deberta", "deberta-v2") and relative


def _limits(
    architecture: str, axes: tuple[str, ...], sizes: Mapping[str, Any], fixed_text: bool
) -> dict[str, tuple[int, int]]:
    """Bounds of the axes. open_clip's own text tower adds all of its positions, so that it has one length only."""
    limits = {}
    if "sequence" in axes and (longest := positions(architecture, sizes)):
        limits["sequence"] = (longest if fixed_text else 1, longest)
    size = sizes.get("image_size", IMAGES.get(architecture))
    edges = set(size if isinstance(size, list) else [size])
    if "image" in axes and len(edges) == 1 and isinstance(edge := edges.pop(), int):
        limits["image"] = (edge, edge)
    if "samples" in axes:
        declared = architectures.declared(architecture)
        known = {**(declared.defaults if declared else {}), **sizes}
        limits["samples"] = (_field(known.get("conv_kernel") or (), known.get("conv_stride") or ()), LARGEST_SIZE)
    return limits


def _field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """The samples that the first number behind convolutions depends on: a shorter waveform has none.

    >>> _field((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))  # wav2vec 2.0
    400
    """
    field = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=False):
        field = (field - 1) * stride + kernel
    return field
