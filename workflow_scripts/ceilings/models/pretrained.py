"""Loading and seeding classes of Transformers: strictly, quietly, with readable errors. Heavy imports inside."""

from __future__ import annotations

import contextlib
import inspect
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import CellFailure, UserError
from ceilings.models import checkpoint, config_keys
from ceilings.models.config_keys import INTERNAL, UNDECLARED

HARMLESS = (r"(.*\.)?position_ids", r"(.*\.)?token_type_ids", r"(.*\.)?inv_freq")
"""Buffers that older releases saved and newer ones compute."""


def quiet() -> None:
    """Keep progress bars and warnings of transformers out of the log; errors stay."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def config_class(architecture: str) -> type[Any]:
    """The configuration class of an architecture.

    Raises:
        UserError: This release of transformers has none.
    """
    import transformers

    try:
        return type(transformers.AutoConfig.for_model(architecture))
    except ValueError:
        raise UserError(
            f"transformers {transformers.__version__} knows no architecture {architecture!r}; correct it, or install a "
            "release that does"
        ) from None


def configure(architecture: str, base: Mapping[str, Any] | None, changes: Mapping[str, Any], name: str) -> Any:
    """The configuration of an architecture.

    Args:
        architecture: Its ``model_type``.
        base: What a config.json says; None: the base model.
        changes: What the study changes in it, by the keys of this architecture or by their aliases.
        name: The model's, for messages.

    Raises:
        UserError: An unknown key, or values that do not go together.
    """
    import transformers

    kind = config_class(architecture)
    wanted = canonical(kind, changes, name, base)
    try:
        if base is None:
            return transformers.AutoConfig.for_model(architecture, **wanted)
        known = {key: value for key, value in base.items() if key not in INTERNAL}
        if "num_labels" in wanted:
            known = {key: value for key, value in known.items() if key not in ("id2label", "label2id")}
        return kind.from_dict({**known, **wanted})
    except Exception as error:  # each class checks in its own way
        raise UserError(
            f"model {name!r} has a config that {architecture} cannot take: {first_line(error)}; correct config"
        ) from None


def canonical(
    kind: type[Any], changes: Mapping[str, Any], name: str, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """``changes`` with aliases replaced by the keys that they stand for.

    Raises:
        UserError: A key that neither the class nor ``base`` knows, or one size given twice.
    """
    example, architecture = kind(), kind.model_type
    aliases = dict(kind.attribute_map)
    known = set(vars(example)) | set(example.to_dict()) | set(inspect.signature(kind.__init__).parameters)
    known |= {*config_keys.LABELS, *UNDECLARED.get(architecture, ()), *(base or ())}
    known = {key for key in known - {*INTERNAL, "self", "kwargs"} if not key.startswith("_")}
    wanted: dict[str, Any] = {}
    for key, value in changes.items():
        real = aliases.get(key, key)
        if real not in known:
            config_keys.refuse_unknown(key, known | set(aliases), architecture, name)
        if real in wanted and wanted[real] != value:
            raise UserError(f"model {name!r} gives {real} twice in config, once as {key}; remove one")
        wanted[real] = value
    return wanted


def refuse_changes(config: Any, changes: Mapping[str, Any] | None, folder: Path) -> None:
    """Refuse what a study changes in the configuration of weights that it names.

    Raises:
        UserError: A value differs.
    """
    for key, value in canonical(type(config), changes or {}, str(folder), vars(config)).items():
        if (actual := getattr(config, key, None)) != value:
            raise UserError(
                f"{folder} has {key} = {actual!r} in its config.json, but the study overrides it with {value!r}; "
                "remove the override or use random weights"
            )


def automatic_class(auto: Any, config: Any, task: str) -> Any:
    """The class that does a task for a configuration.

    Raises:
        CellFailure: Transformers has none.
    """
    try:
        chosen = auto._model_mapping[type(config)]
    except KeyError:
        raise CellFailure(
            "unsupported", f"transformers has no {auto.__name__} for {config.model_type!r}, so no {task} of it"
        ) from None
    if not isinstance(chosen, tuple):
        return chosen
    named = [kind for kind in chosen if kind.__name__ in (config.architectures or ())]
    return (named or chosen)[0]


def takes(function: Callable[..., Any], parameter: str) -> bool:
    """Whether a function has a parameter of this name."""
    return parameter in inspect.signature(function).parameters


def seeded(make: Callable[[], Any], seed: int, name: str) -> Any:
    """A model with seeded weights.

    Biases and normalisation weights get noise too, and whatever starts at zero, which no usual initialisation does: a
    graph optimiser removes an addition of zeros and a multiplication by ones, and what is left is not the pretrained
    model's graph any more.

    Raises:
        UserError: The sizes of its configuration do not go together.
    """
    import torch

    try:
        torch.manual_seed(seed)
        model = make()
    except Exception as error:  # each class checks in its own way
        raise UserError(
            f"model {name!r} has a config that its architecture cannot take: {first_line(error)}; correct config"
        ) from None
    deviation = float(getattr(getattr(model, "config", None), "initializer_range", None) or 0.02)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.add_(torch.randn(parameter.shape) * deviation)
    return model


def load_strictly(
    kind: Any,
    folder: Path,
    what: str,
    *,
    attention: str,
    dtype: str,
    unused: tuple[str, ...] = (),
    **options: Any,
) -> tuple[Any, list[str]]:
    """Load a checkpoint into a class of Transformers.

    Args:
        kind: The class.
        folder: With config.json and weights: model.safetensors, its parts with an index, or pytorch_model.bin.
        what: What the folder must hold, for messages: ``sequence-classification``.
        attention: ``sdpa`` or ``eager``; a class without ``sdpa`` gets ``eager``.
        dtype: As torch names it.
        unused: Patterns of whole names: tensors that the checkpoint may hold and the class does not read.
        options: Further arguments of ``from_pretrained``.

    Returns:
        The model, and the tensors that the checkpoint lacks although the class reads them; they are empty unless
        ``options`` allow another class.

    Raises:
        UserError: Damaged files, or tensors that are missing, unexpected or of another shape.
    """
    checkpoint.weights_of(folder)  # its messages say more than the loader's
    model, report = from_pretrained(kind, folder, attention, dtype, **options)
    missing = sorted(map(str, report["missing_keys"]))
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"])
    allowed = re.compile("|".join(f"({pattern})" for pattern in (*HARMLESS, *unused)))
    unexpected = sorted(key for key in map(str, report["unexpected_keys"]) if not allowed.fullmatch(key))
    return model, refuse(folder, what, missing, mismatched, unexpected)


def refuse(folder: Path, what: str, missing: list[str], mismatched: list[str], unexpected: list[str]) -> list[str]:
    """Refuse tensors that do not fit; returns the missing ones where all of them belong to a pooler.

    Raises:
        UserError: Some do not fit.
    """
    for names, how in (
        (mismatched, "of another shape"),
        ([] if _only_pooler(missing) else missing, "missing"),
        (unexpected, "of no use to it"),
    ):
        if names:
            raise UserError(
                f"{folder} holds no model for {what}: {len(names)} tensors are {how} ({', '.join(names[:3])}); name "
                f"weights that were made for {what}, change task or architecture, or correct its config.json"
            )
    return missing


def _only_pooler(names: list[str]) -> bool:
    return all(re.fullmatch(r"(.*\.)?pooler\..*", name) for name in names)


def from_pretrained(kind: Any, folder: Path, attention: str, dtype: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Load with transformers; returns the model and its report of tensors that do not fit.

    Raises:
        UserError: Damaged files.
    """
    quiet()
    if attention == "sdpa" and not getattr(kind, "_supports_sdpa", False):
        attention = "eager"
    with readable(folder):
        return kind.from_pretrained(
            folder,
            attn_implementation=attention,
            dtype=dtype,
            local_files_only=True,
            weights_only=True,
            output_loading_info=True,
            # Reported as keys that do not fit, rather than raised as a page of text.
            ignore_mismatched_sizes=True,
            **options,
        )


def save(model: Any, folder: Path) -> None:
    """Write config.json and model.safetensors of a model, one file whatever the size."""
    model.save_pretrained(folder, max_shard_size="1TB")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a reader of damaged weights raises into a message."""
    from safetensors import SafetensorError

    errors = (SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError)
    try:
        yield
    except errors as error:
        if "weights_only" in str(error):
            raise UserError(
                f"the weights of {path} hold more than tensors, and reading that could run a stranger's code; save "
                "them as model.safetensors"
            ) from None
        raise UserError(
            f"the weights of {path} cannot be loaded ({first_line(error)}); put an undamaged copy there, or delete the "
            "folder and run again if it lies in results"
        ) from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop."""
    return next((line.rstrip(".") for line in str(error).strip().splitlines() if line), type(error).__name__)
