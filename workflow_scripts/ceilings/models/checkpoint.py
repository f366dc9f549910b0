"""The files of a checkpoint as users have them: which weights are taken, and whether all of them are there.

Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ceilings.errors import UserError

PLAIN = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weights of Transformers, or what names their parts; the first that is there is taken, as Transformers does."""

OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
POINTER = b"version https://git-lfs.github.com/spec/"
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "sentencepiece.bpe.model", "tokenizer.model")
TOKENIZER = (
    *VOCABULARIES,
    *("merges.txt", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json"),
)
"""Files that shape a tokenizer."""

PATTERNS = (
    *("*.safetensors", "*.index.json", "pytorch_model*.bin", "open_clip_pytorch_model.bin"),
    *("config.json", "open_clip_config.json", "preprocessor_config.json", "modules.json", "[0-9]*/config.json"),
    *TOKENIZER,
)
"""What a folder may hold that shapes a result."""


def refuse_pointers(paths: Iterable[Path]) -> None:
    """Refuse what git leaves in place of large files.

    Raises:
        UserError: A file is a pointer of git-lfs.
    """
    for path in paths:
        if path.is_file() and _start(path).startswith(POINTER):
            raise UserError(f"{path} is a pointer of git-lfs and not the file itself; run git lfs pull there")


def weights_of(folder: Path, names: Iterable[str] = PLAIN) -> list[Path]:
    """The files of weights that are taken of a folder: one, or an index and its parts.

    Args:
        folder: A checkpoint's.
        names: Which count, the first that is there before others.

    Raises:
        UserError: There are none, parts are missing, or their numbers have 8 bits.
    """
    names = tuple(names)
    first = next((folder / name for name in names if (folder / name).is_file()), None)
    if first is None:
        others = sorted(path.name for path in folder.glob("*") if path.suffix in (".h5", ".msgpack", ".gguf", ".ckpt"))
        beside = f" (only {', '.join(others)}, which are not read)" if others else ""
        raise UserError(f"the folder {folder} has no weights{beside}; put one of {', '.join(names)} there")
    refuse_pointers([first])
    if not first.name.endswith(".index.json"):
        _refuse_quantized(first)
        return [first]
    parts = _parts(first)
    if missing := [part for part in parts if not (folder / part).is_file()]:
        raise UserError(
            f"{first} names {missing[0]}, which is not there ({len(missing)} of {len(parts)} parts are missing); put "
            "all parts beside it"
        )
    refuse_pointers(folder / part for part in parts)
    for part in parts:
        _refuse_quantized(folder / part)
    return [first, *(folder / part for part in parts)]


def _parts(index: Path) -> list[str]:
    """The files that an index names."""
    try:
        parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is damaged ({error}); put an undamaged copy there") from None
    for part in parts:
        # A part beside the index, whatever the index says: a name that leads elsewhere would read anybody's files.
        if not isinstance(part, str) or Path(part).name != part:
            raise UserError(f"{index} names {part!r}, which is no file beside it; put an undamaged copy there")
    return sorted(parts)


def _refuse_quantized(path: Path) -> None:
    """Refuse numbers of 8 bits, which a loader would take for weights without their scales."""
    for name, tensor in _header(path).items():
        kind = tensor.get("dtype", "") if isinstance(tensor, dict) else ""
        if kind in ("I8", "U8") or kind.startswith("F8"):
            raise UserError(
                f"{path} is quantised already ({name} is {kind}); name the checkpoint that it was made from"
            )


def _header(path: Path) -> dict[str, Any]:
    """What a .safetensors says of its tensors; nothing of another or damaged file, of which its reader complains."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, 100_000_000)))
    except (OSError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(len(POINTER))
