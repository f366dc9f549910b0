"""Filling a weights folder: fetched, copied, converted or made, and why. Heavy imports inside its functions."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ceilings import files, records
from ceilings.errors import CellFailure, UserError
from ceilings.lifetime import temporary_folder
from ceilings.models import checkpoint, configuration, hub, open_clip_checkpoint, pretrained, tokenizer
from ceilings.models.definition import Definition
from ceilings.models.weights_folder import CONFIG, PROCESSOR, PROVENANCE, TOKENIZER, WEIGHTS
from ceilings.provenance import provenance
from ceilings.workload import workload as workloads
from ceilings.workload.workload import Workload

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "transformers", "safetensors", "huggingface_hub", "open_clip_torch")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where weights come from: ``source`` is ``pretrained``, ``random`` or ``path``; ``why`` is one clause."""

    source: str
    why: str
    folder: Path | None = None
    repository: str | None = None
    revision: str | None = None


def fetch(definition: Definition, output: Path, origin: Origin | None = None) -> dict[str, Any]:
    """Fill a weights folder.

    Args:
        definition: The model.
        origin: Where its weights come from; None: as ``choose`` says.
        output: The folder; its ``provenance.json`` is written last, so that it stands for a whole folder.

    Returns:
        What ``provenance.json`` holds.

    Raises:
        UserError: Weights that the study insists on cannot be had, are damaged or do not fit.
        CellFailure: The model is of a kind that is not known here.
    """
    pretrained.quiet()
    origin = origin or choose(definition)
    # By name: which architectures a catalogue lists besides this one shapes no weights.
    config = (
        configuration.find(definition) if origin.folder is None else configuration.of_folder(origin.folder, definition)
    )
    if quantized := (config or {}).get("quantization_config"):
        method = quantized.get("quant_method", "by a method without a name")
        raise CellFailure(
            "unsupported",
            f"the weights of {definition.source} are quantised already ({method}, in its config.json); "
            "name the checkpoint that they were made from",
        )
    resolved = importlib.import_module("ceilings.models.outline").resolve(definition, config)
    family = importlib.import_module(f"ceilings.models.families.{resolved.family}")
    taken = _files(origin.folder, definition) if origin.folder is not None else []
    model = _make(definition, origin.folder, resolved, family)
    if damaged := [name for name, value in model.named_parameters() if not value.isfinite().all()]:
        raise UserError(f"{damaged[0]} of model {definition.name!r} holds a NaN or an infinity; name undamaged weights")
    workload = family.workload(model, resolved.task)
    output.mkdir(parents=True, exist_ok=True)
    with temporary_folder(output) as folder:
        fresh = Path(folder)
        family.save(model, fresh)
        workload.write(fresh)
        without = "its weights are random, and no tokenizer comes with them"
        if origin.folder is not None:
            without = _save_tokenizer(origin.folder, fresh, output)
            _save_processor(origin.folder, fresh)
        record = {
            "status": "ok",
            "model": definition.name,
            "architecture": workload.architecture,
            "task": resolved.task,
            "family": resolved.family,
            "source": origin.source,
            "why": origin.why + (_sizes(definition, config) if origin.source == "random" and definition.hub else ""),
            "hub": origin.repository,
            "revision": origin.revision,
            "seed": definition.seed if origin.source == "random" else None,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "limits": {axis: list(bounds) for axis, bounds in resolved.limits.items()},
            "files": [path.name for path in taken],
            "sha256": files.sha256(fresh / WEIGHTS),
            "config_sha256": files.sha256(fresh / CONFIG),
            "tokenizer": not without,
            "tokenizer_sha256": files.sha256(fresh / TOKENIZER) if not without else None,
            "random_ids": _random_ids(fresh, workload, definition.published(without)),
            "provenance": provenance(PACKAGES),
        }
        for stale in (PROVENANCE, TOKENIZER, PROCESSOR):
            (output / stale).unlink(missing_ok=True)
        for name in (CONFIG, WEIGHTS, workloads.FILE, TOKENIZER, PROCESSOR):
            if (fresh / name).exists():
                (fresh / name).replace(output / name)
    return records.write(output / PROVENANCE, "weights", record)


def choose(definition: Definition) -> Origin:
    """Decide where the weights come from; ``auto`` is decided here and nowhere else."""
    if definition.weights == "random":
        return Origin("random", "the study asks for random weights")
    if definition.folder is not None:
        return Origin("path", f"the study names the folder {definition.source}", folder=definition.folder)
    if definition.hub is None:
        return Origin("random", "the study names neither hub nor path, so no pretrained weights")
    try:
        snapshot = hub.fetch(definition.hub)
    except hub.Unavailable as error:
        if definition.weights == "pretrained":
            raise UserError(
                f"model {definition.name!r} has weights 'pretrained', but {error}; connect to the hub, "
                f"put the files into a folder and name it as path, or set weights: random"
            ) from None
        return Origin("random", str(error))
    return Origin(
        "pretrained",
        f"{definition.hub} was found in the {snapshot.origin}",
        folder=snapshot.folder,
        repository=definition.hub,
        revision=snapshot.revision,
    )


def _make(definition: Definition, folder: Path | None, resolved: Any, family: Any) -> torch.nn.Module:
    """The model, with the weights of a folder or with random ones."""
    name, task, base, changes = definition.name, resolved.task, resolved.base, definition.config
    if resolved.converted:
        base, changes = None, open_clip_checkpoint.converted_config(resolved.base, task, name)
    if folder is None:
        if task == "sentence-embedding" and (base or {}).get("sentence_transformer"):
            changes = {**configuration.sentence_settings(definition), **changes}
        return family.build(resolved.architecture, task, base, changes, seed=definition.seed, name=name)
    if resolved.converted:
        model = family.build(resolved.architecture, task, base, changes, seed=definition.seed, name=name)
        return _load_converted(model, folder, task)
    return family.load(folder, task, changes=base if resolved.family == "open_clip" else changes)


def _load_converted(model: torch.nn.Module, folder: Path, task: str) -> torch.nn.Module:
    """A model of Transformers with the weights of an open_clip checkpoint, every tensor of whose tower is used."""
    state = open_clip_checkpoint.convert(open_clip_checkpoint.read(folder), task)
    wanted = {key: value for key, value in model.state_dict().items() if not key.endswith("position_ids")}
    pretrained.refuse(
        folder,
        task,
        sorted(set(wanted) - set(state)),
        sorted(key for key in set(wanted) & set(state) if wanted[key].shape != state[key].shape),
        sorted(set(state) - set(wanted)),
    )
    model.load_state_dict(state, strict=False)
    return model


def _sizes(definition: Definition, config: Mapping[str, Any] | None) -> str:
    """Whose sizes the random weights of a repository have."""
    if config is None:
        return "; its sizes are those that the study gives"
    if config == configuration.PUBLISHED.get(str(definition.hub)):
        return "; its sizes are those known of this very repository"
    return f"; its sizes are those of its {CONFIG}"


def _files(folder: Path, definition: Definition) -> list[Path]:
    """The files of weights that are taken of a folder, which are all there.

    Raises:
        UserError: They are not.
    """
    checkpoint.refuse_pointers(folder / name for name in checkpoint.TOKENIZER)
    theirs = configuration.is_open_clip(folder, definition)
    return checkpoint.weights_of(folder, open_clip_checkpoint.FILES if theirs else checkpoint.PLAIN)


def _save_tokenizer(folder: Path, output: Path, kept: Path) -> str:
    """Copy the tokenizer that came with the weights, in the one format that ``tokenizers`` reads alone.

    Args:
        folder: The weights'.
        output: Where it goes.
        kept: The folder that this becomes part of.

    Returns:
        Why there is none then; empty where there is one.

    Raises:
        UserError: The folder's tokenizer.json is damaged.
    """
    if (folder / TOKENIZER).is_file():
        shutil.copyfile(folder / TOKENIZER, output / TOKENIZER)
        tokenizer.read(output, shown=folder / TOKENIZER)
        return ""
    if not any((folder / name).is_file() for name in checkpoint.VOCABULARIES):
        return f"{folder} has no tokenizer"
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        slow.backend_tokenizer.save(str(output / TOKENIZER))
    except Exception as error:  # a package that it needs, or no such tokenizer: the inputs are then random ids
        return (
            f"the tokenizer of {folder} cannot be converted ({pretrained.first_line(error)}); put a tokenizer.json "
            f"there, or install what it needs, delete the folder {kept} and run again"
        )
    return ""


def _random_ids(folder: Path, workload: Workload, without: str) -> str | None:
    """Why the model's inputs are random ids; None where they are sentences, or it reads no texts."""
    if not any(tensor.content == "tokens" for tensor in workload.inputs):
        return None
    if without:
        return without
    known = tokenizer.read(folder)
    return (
        None
        if known is not None and tokenizer.reads_english(known)
        else "its tokenizer knows less than half of English"
    )


def _save_processor(folder: Path, output: Path) -> None:
    """Copy what images are normalised by."""
    if (folder / PROCESSOR).is_file():
        files.write_json(output / PROCESSOR, files.read_json(folder / PROCESSOR, "put an undamaged copy there"))
    elif (folder / configuration.OPEN_CLIP_CONFIG).is_file():
        files.write_json(output / PROCESSOR, open_clip_checkpoint.processor_of(folder))
