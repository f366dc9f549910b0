"""Reading the input pool that every runtime is measured with. No torch."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ceilings import artifacts, files
from ceilings.errors import UserError

PREFIX = "input/"
REMEDY = "delete it and run again to make it anew"


def load_pool(path: Path | str) -> dict[str, np.ndarray]:
    """The arrays of an input pool by tensor name: (pool, *dims).

    Raises:
        UserError: Missing, damaged, or changed since it was written.
    """
    content = load(path)
    arrays = {name.removeprefix(PREFIX): array for name, array in content.items() if name.startswith(PREFIX)}
    if not arrays or "sha256" not in content:
        raise UserError(f"{path} is no input pool (it holds {', '.join(content) or 'nothing'}); {REMEDY}")
    if sealed(arrays, str(content.get("source")), float(content.get("real_share", -1))) != str(content["sha256"]):
        raise UserError(f"{path} does not match its own sha256 {str(content['sha256'])[:12]}; {REMEDY}")
    return arrays


def elements(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The pool's elements, each by tensor name: (*dims)."""
    count = min(map(len, arrays.values()))
    return [{name: values[index] for name, values in arrays.items()} for index in range(count)]


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hex sha256 over names, types, shapes and values."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def sealed(arrays: Mapping[str, np.ndarray], source: str, real_share: float) -> str:
    """Hex sha256 of a pool: of its arrays, and of what a record says of them."""
    return hashlib.sha256(f"{digest(arrays)} {source} {real_share!r}".encode()).hexdigest()


def save(path: Path | str, **arrays: np.ndarray) -> None:
    """Write an ``.npz`` atomically."""
    with files.atomic(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def load(path: Path | str) -> dict[str, np.ndarray]:
    """Read a whole ``.npz``.

    Raises:
        UserError: Missing or damaged.
        CellFailure: It could not be made.
    """
    artifacts.refuse_failed(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the rule that makes it") from None
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); {REMEDY}") from None
