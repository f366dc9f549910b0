"""Where jobs keep the bytecode of what they import. Standard library only.

Python compiles a module when it first imports it, and keeps the result beside the source. Some installers leave that to
the first import, and many images of containers forbid it (PYTHONDONTWRITEBYTECODE). Then every process compiles all of
its libraries: of PyTorch and Transformers 2,800 modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping
from importlib.util import cache_from_source
from pathlib import Path

from ceilings import packages

HEAVY = ("torch", "transformers", "numpy", "onnx")
"""Packages whose bytecode is looked for."""


def keep(folder: Path, environment: MutableMapping[str, str] = os.environ, heavy: Iterable[str] = HEAVY) -> bool:
    """Have the processes that this one starts share bytecode, where the libraries have none beside them.

    Args:
        folder: Where it is kept then.
        environment: Of those processes; changed. Somebody who names a place for bytecode there keeps it.
        heavy: Packages that are looked at, as far as they are installed.

    Returns:
        Whether the folder is used.
    """
    writes = not environment.get("PYTHONDONTWRITEBYTECODE")
    if environment.get("PYTHONPYCACHEPREFIX") or all(
        _compiled_or_will_be(source, writes) for source in _sources(heavy)
    ):
        return False
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(folder.absolute())
    return True


def _sources(names: Iterable[str]) -> list[Path]:
    found = (packages.find(name) for name in names)
    return [one.file for one in found if one and one.file and one.file.suffix == ".py"]


def _compiled_or_will_be(source: Path, writes: bool) -> bool:
    """Whether a module's bytecode lies beside it, or the first process to import it can put it there."""
    beside = Path(cache_from_source(str(source)))
    if beside.is_file():
        return True
    holder = beside.parent if beside.parent.is_dir() else source.parent
    return writes and os.access(holder, os.W_OK)
