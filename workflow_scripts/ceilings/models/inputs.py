"""The ring of inputs that every runtime is measured with. No torch."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ceilings import files
from ceilings.errors import UserError
from ceilings.models import tokens

NAMES = ("input_ids", "attention_mask")
REMEDY = "delete it and run again to make it anew"


@dataclasses.dataclass(frozen=True)
class Ring:
    """Which inputs: ``ring`` distinct ones of ``batch`` rows of ``sequence`` tokens, drawn with ``seed``.

    A benchmark walks round them, so that no cache sees one input twice in a row.
    """

    batch: int
    sequence: int
    ring: int
    seed: int


def make_inputs(weights_dir: Path | str, wanted: Ring, output: Path | str) -> str:
    """Write a ring of distinct inputs. Same arguments, same bytes.

    Args:
        weights_dir: The model's weights folder.
        wanted: Which inputs.
        output: An ``.npz`` with ``input_ids`` and ``attention_mask`` int64 (ring, batch, sequence), ``sha256`` of their
            content, and ``source``: ``corpus`` or ``random``.

    Returns:
        ``source``.
    """
    if wanted.ring < 1 or wanted.batch < 1:
        raise UserError(f"cannot make a ring of {wanted.ring} inputs of batch {wanted.batch}; both must be at least 1")
    ids, source = tokens.sample(weights_dir, wanted.ring * wanted.batch, wanted.sequence, wanted.seed)
    ids = ids.reshape(wanted.ring, wanted.batch, wanted.sequence)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    save(output, **arrays, sha256=np.array(digest(arrays)), source=np.array(source))
    return source


def load_inputs(path: Path | str) -> dict[str, np.ndarray]:
    """The arrays of an inputs file: ``input_ids`` and ``attention_mask``, int64 (ring, batch, sequence).

    Raises:
        UserError: Missing, damaged, or changed since it was written.
    """
    content = load(path)
    if not {*NAMES, "sha256"} <= set(content):
        raise UserError(f"{path} is no inputs file (it holds {', '.join(content) or 'nothing'}); {REMEDY}")
    arrays = {name: content[name] for name in NAMES}
    if digest(arrays) != str(content["sha256"]):
        raise UserError(f"{path} does not match its own sha256 {str(content['sha256'])[:12]}; {REMEDY}")
    return arrays


def inputs_digest(path: Path | str) -> str:
    """The sha256 that identifies the content of an inputs file, checked."""
    return digest(load_inputs(path))


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hex sha256 over names, types, shapes and values."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def save(path: Path | str, **arrays: np.ndarray) -> None:
    """Write an ``.npz`` atomically."""
    with files.atomic(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def load(path: Path | str) -> dict[str, np.ndarray]:
    """Read a whole ``.npz``.

    Raises:
        UserError: Missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the rule that makes it") from None
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); {REMEDY}") from None
