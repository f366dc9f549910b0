"""What a checkpoint of sentence-transformers does after the encoder. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ceilings.errors import CellFailure
from ceilings.models.config_keys import SENTENCE_NORMALIZE, SENTENCE_POOLING

FILE = "modules.json"
POOLINGS = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
"""What sentence-transformers calls the ways of pooling that are known here, in its older and newer files."""


def settings(read: Callable[[str], Any], source: str) -> dict[str, Any]:
    """Pooling and normalisation, by the keys of config.json that ``text_encoder`` reads.

    Args:
        read: Returns the content of a JSON file of the checkpoint.
        source: What the checkpoint is, for messages.

    Raises:
        CellFailure: It does more, or something else, than is known here.
    """
    modules = read(FILE)
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        paths = [str(module["path"]) for module in modules]
    except (KeyError, TypeError):
        raise CellFailure("damaged", f"{source}: {FILE} is no list of modules with type and path") from None
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise CellFailure("unsupported", f"{source} has the module {kind} of sentence-transformers, unknown here")
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        order = ", ".join(kinds) or "no module"
        raise CellFailure(
            "unsupported", f"{source} has {order} in {FILE}; known: Transformer, Pooling and, after them, Normalize"
        )
    if paths[0]:
        raise CellFailure("unsupported", f"{source} has its Transformer in {paths[0]}; known: beside {FILE}")
    pooling = _pooling(read(f"{paths[1]}/config.json"), source)
    return {SENTENCE_POOLING: pooling, **({SENTENCE_NORMALIZE: True} if len(kinds) > 2 else {})}


def _pooling(config: Any, source: str) -> str:
    if not isinstance(config, dict):
        raise CellFailure("damaged", f"{source}: the configuration of its Pooling is no JSON object")
    given = {key: value for key, value in config.items() if key.startswith("pooling_mode")}
    modes = {key.removeprefix("pooling_mode_") for key, value in given.items() if value is True}
    modes |= {part for value in given.values() if isinstance(value, str) for part in value.split("+")}
    if not given:
        return "mean"  # as that package has it where nothing is said
    if len(modes) == 1 and (pooling := POOLINGS.get(next(iter(modes)))):
        return pooling
    raise CellFailure(
        "unsupported", f"{source} pools by {', '.join(sorted(modes)) or 'nothing'}; known: mean_tokens, cls_token"
    )
