"""Reading the input pool that every runtime is measured with. No torch."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ceilings import artifacts, files, records
from ceilings.errors import UserError

PREFIX, OUTPUT = "input/", "output/"


def load_pool(path: Path | str) -> dict[str, np.ndarray]:
    """The arrays of an input pool by tensor name: (pool, *dims).

    Raises:
        UserError: Missing, damaged, or changed since it was written.
    """
    content = load(path)
    arrays = {name.removeprefix(PREFIX): array for name, array in content.items() if name.startswith(PREFIX)}
    if not arrays or "sha256" not in content:
        raise UserError(f"{path} is no input pool (it holds {', '.join(content) or 'nothing'}); {records.anew(path)}")
    if sealed(arrays, str(content.get("source")), _number(content.get("real_share"))) != str(content["sha256"]):
        raise UserError(f"{path} does not match its own sha256 {str(content['sha256'])[:12]}; {records.anew(path)}")
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


def save_outputs(path: Path | str, outputs: Mapping[str, np.ndarray], inputs_sha256: str) -> None:
    """Write what a model answers to inputs: an ``.npz`` with ``output/{name}``, ``inputs_sha256`` and ``sha256``."""
    named = {OUTPUT + name: values for name, values in outputs.items()} | {"inputs_sha256": np.array(inputs_sha256)}
    save(path, **named, sha256=np.array(digest(named)))


def load_outputs(path: Path | str, inputs_sha256: str) -> dict[str, np.ndarray]:
    """What a model answered to the inputs with this digest, by output.

    Raises:
        UserError: Missing, damaged, changed since it was written, or answers to other inputs.
        CellFailure: It could not be made.
    """
    content = load(path)
    named = {name: array for name, array in content.items() if name != "sha256"}
    outputs = {name.removeprefix(OUTPUT): array for name, array in named.items() if name.startswith(OUTPUT)}
    if not outputs or "sha256" not in content or "inputs_sha256" not in content:
        raise UserError(f"{path} holds no answers of a model; {records.anew(path)}")
    if digest(named) != str(content["sha256"]):
        raise UserError(f"{path} does not match its own sha256 {str(content['sha256'])[:12]}; {records.anew(path)}")
    if str(content["inputs_sha256"]) != inputs_sha256:
        made_for = str(content["inputs_sha256"])[:12]
        raise UserError(f"{path} was made of the inputs {made_for}, not of {inputs_sha256[:12]}; {records.anew(path)}")
    return outputs


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
    if problem := files.not_a_file(path):
        raise UserError(f"{path} {problem}; {records.anew(path)}")
    artifacts.refuse_failed(path)
    try:
        with zipfile.ZipFile(path) as parts:  # nothing is packed, so nothing unpacks to more than the file
            if sum(part.file_size for part in parts.infolist()) > Path(path).stat().st_size:
                raise ValueError("its parts are larger than the file")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and numpy raise anything on damaged files
        raise UserError(f"{path} is damaged ({_line(error)}); {records.anew(path)}") from None


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _number(value: np.ndarray | None) -> float:
    """Of an array of one number; -1 for anything else."""
    return float(value) if value is not None and value.shape == () and value.dtype.kind == "f" else -1.0
