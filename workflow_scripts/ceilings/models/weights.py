"""Weights on disk: fetched, made or copied once, then loaded by everything that runs PyTorch.

A weights folder holds ``config.json``, ``model.safetensors``, ``provenance.json`` and, where the weights came with a
tokenizer, ``tokenizer.json``. Heavy: imports torch and transformers inside its functions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ceilings import files
from ceilings.errors import UserError
from ceilings.models import hub
from ceilings.models.catalogue import ARCHITECTURES
from ceilings.models.spec import ModelSpec
from ceilings.provenance import provenance

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
PROVENANCE = "provenance.json"
TOKENIZER = "tokenizer.json"
REMEDY = "delete the weights folder and run again to make it anew"


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where weights come from: ``source`` is ``pretrained``, ``random`` or ``path``; ``why`` is one clause."""

    source: str
    why: str
    folder: Path | None = None
    repository: str | None = None
    revision: str | None = None


def fetch(spec: ModelSpec, output: Path) -> dict[str, Any]:
    """Fill a weights folder.

    Args:
        spec: The model.
        output: The folder; its ``provenance.json`` is written last, so that it stands for a whole folder.

    Returns:
        What ``provenance.json`` holds.

    Raises:
        UserError: Weights that the study insists on cannot be had, are damaged or do not fit the architecture.
    """
    _quiet()
    origin = choose(spec)
    model = random_model(spec) if origin.folder is None else read_folder(origin.folder, spec)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".new-") as fresh:
        # One file whatever the size: everything downstream names it.
        model.save_pretrained(fresh, max_shard_size="1TB")  # type: ignore[operator]
        if origin.folder is not None:
            _save_tokenizer(origin.folder, Path(fresh))
        record = {
            "schema_version": 1,
            "model": spec.name,
            "architecture": spec.architecture,
            "source": origin.source,
            "why": origin.why,
            "hub": origin.repository,
            "revision": origin.revision,
            "seed": spec.seed if origin.source == "random" else None,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "sha256": files.sha256(Path(fresh, WEIGHTS)),
            "tokenizer": Path(fresh, TOKENIZER).exists(),
            "provenance": provenance(["torch", "transformers", "safetensors", "huggingface_hub"]),
        }
        for stale in (PROVENANCE, TOKENIZER):
            (output / stale).unlink(missing_ok=True)
        for name in (CONFIG, WEIGHTS, TOKENIZER):
            if Path(fresh, name).exists():
                Path(fresh, name).replace(output / name)
    files.write_json(output / PROVENANCE, record)
    return record


def choose(spec: ModelSpec) -> Origin:
    """Decide where the weights come from; ``auto`` is decided here and nowhere else."""
    if isinstance(spec.weights, Path):
        return Origin("path", f"the study names the folder {spec.weights}", folder=spec.weights)
    if spec.weights == "random":
        return Origin("random", "the study asks for random weights")
    resized = sorted(key for key in spec.config if key in spec.family.defaults)
    if spec.weights == "auto" and spec.hub is None and resized:
        return Origin("random", f"the study changes {', '.join(resized)}, so no pretrained weights fit")
    try:
        snapshot = hub.fetch(spec.repository)
    except hub.Unavailable as error:
        if spec.weights == "pretrained":
            raise UserError(
                f"model {spec.name!r} has weights 'pretrained', but {error}; connect to the hub, "
                f'put the files into a folder and set weights: {{"path": ...}}, or set weights: random'
            ) from None
        return Origin("random", str(error))
    return Origin(
        "pretrained",
        f"{spec.repository} was found in the {snapshot.origin}",
        folder=snapshot.folder,
        repository=spec.repository,
        revision=snapshot.revision,
    )


def random_model(spec: ModelSpec) -> torch.nn.Module:
    """Seeded weights of the architecture.

    Biases and normalisation weights get noise too, which no usual initialisation does: a graph optimiser removes an
    addition of zeros and a multiplication by ones, and what is left is not the pretrained model's graph any more.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        config = AutoConfig.for_model(spec.family.model_type, **spec.config)
        torch.manual_seed(spec.seed)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model {spec.name!r} has a config that {spec.architecture} cannot take: {error}") from None
    deviation = float(getattr(config, "initializer_range", 0.02))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * deviation)
    return model


def read_folder(folder: Path, spec: ModelSpec) -> torch.nn.Module:
    """Load a folder of somebody else's making, strictly.

    Raises:
        UserError: Missing or damaged files, another architecture, or tensors that do not fit.
    """
    for name in (CONFIG,) if (folder / hub.PICKLED).exists() else (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"the weights folder {folder} of model {spec.name!r} has no {name}; put it there")
    remedy = "put an undamaged copy there"
    config = files.read_json(folder / CONFIG, remedy)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != spec.family.model_type:
        raise UserError(
            f"{folder / CONFIG} has model_type {found!r}, but model {spec.name!r} is a {spec.family.model_type!r}; "
            f"name another folder or change the model's architecture"
        )
    for key, wanted in spec.config.items():
        if key in config and config[key] != wanted:
            raise UserError(
                f"{folder / CONFIG} has {key} = {config[key]!r}, but model {spec.name!r} overrides it with {wanted!r}; "
                f"remove the override or use random weights"
            )
    with _damage_is_a_user_error(folder / WEIGHTS, remedy):
        model, report = _from_pretrained(folder, "sdpa", "float32")
    wrong = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind])
    if wrong:
        raise UserError(
            f"{folder} holds no sequence classifier: {len(wrong)} tensors are missing or of another shape "
            f"({', '.join(wrong[:3])}); use a fine-tuned classification model"
        )
    return model


def load_model(
    weights_dir: Path | str, attention: str = "sdpa", dtype: str = "float32", device: str = "cpu"
) -> torch.nn.Module:
    """The model of a weights folder, in eval mode, without gradients.

    Args:
        weights_dir: A folder that ``fetch`` filled.
        attention: ``sdpa`` or ``eager``.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        device: As torch names it.

    Returns:
        A module that takes ``input_ids`` and ``attention_mask`` (batch, sequence) and has ``.logits`` (batch, classes).

    Raises:
        UserError: The folder is incomplete or damaged.
    """
    folder = Path(weights_dir)
    read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder / WEIGHTS} does not exist; {REMEDY}")
    with _damage_is_a_user_error(folder / WEIGHTS, REMEDY):
        model, report = _from_pretrained(folder, attention, dtype)
    if report["missing_keys"] or report["mismatched_keys"]:
        raise UserError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}; {REMEDY}")
    return model.eval().requires_grad_(False).to(device)


def read_config(weights_dir: Path | str) -> dict[str, Any]:
    """The model's configuration; light, for programs without torch.

    Raises:
        UserError: Missing or damaged.
    """
    path = Path(weights_dir, CONFIG)
    config = files.read_json(path, REMEDY)
    if not isinstance(config, dict) or config.get("model_type") not in {a.model_type for a in ARCHITECTURES.values()}:
        raise UserError(f"{path} names no architecture that this project knows; {REMEDY}")
    return config


def positions(config: Mapping[str, Any]) -> int:
    """The longest sequence that the model takes."""
    return int(config["max_position_embeddings"])


def _from_pretrained(folder: Path, attention: str, dtype: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Load with transformers, quietly; it puts the tensors straight into a model on the meta device."""
    import transformers

    _quiet()
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        folder,
        attn_implementation=attention,
        dtype=dtype,
        local_files_only=True,
        output_loading_info=True,
        # Reported as keys that do not fit, rather than raised as a page of text.
        ignore_mismatched_sizes=True,
    )


def _quiet() -> None:
    """Keep progress bars and warnings of transformers out of the log; errors stay."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _save_tokenizer(folder: Path, output: Path) -> None:
    """Copy the tokenizer that came with the weights, in the one format that ``tokenizers`` reads alone."""
    if (folder / TOKENIZER).is_file():
        shutil.copyfile(folder / TOKENIZER, output / TOKENIZER)
    elif (folder / "vocab.txt").is_file():
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.save(str(output / TOKENIZER))


@contextlib.contextmanager
def _damage_is_a_user_error(path: Path, remedy: str) -> Iterator[None]:
    """Turn what a reader of damaged weights raises into a message."""
    import pickle

    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, TypeError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path} cannot be loaded ({line}); {remedy}") from None
