"""Families, runtimes and measurements from outside the package: folders that a study names.

A plug-in folder holds ``catalogue.py``, which lists ``FAMILIES``, ``RUNTIMES`` or ``MEASUREMENTS`` as the package's own
catalogues do, and beside it the modules that these name, in folders called as the package's: ``models/families``,
``runtimes``, ``measure/measurements``. Standard library only.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ceilings import files
from ceilings.errors import UserError

VARIABLE = "CEILINGS_PLUGINS"
"""Environment variable that carries the folders to jobs."""


def activate(folders: Iterable[Path | str]) -> None:
    """Make plug-in folders known to this process and to those that it starts; before any catalogue is imported.

    Raises:
        UserError: A folder has no ``catalogue.py``.
    """
    known = [files.expanded(folder).resolve() for folder in folders]
    for folder in known:
        if not (folder / "catalogue.py").is_file():
            raise UserError(f"plugins: {folder} holds no catalogue.py; name a folder with one (docs/development.md)")
    os.environ[VARIABLE] = os.pathsep.join(map(str, known))


def folders() -> list[Path]:
    """The plug-in folders of this process."""
    return [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]


def paths(package: str) -> list[str]:
    """Folders that extend a package's ``__path__``, such as ``models/families``."""
    return [str(folder / package) for folder in folders() if (folder / package).is_dir()]


def entries(name: str) -> list[Any]:
    """What the plug-ins' catalogues list under ``name``.

    Raises:
        UserError: A catalogue cannot be imported.
    """
    found: list[Any] = []
    for folder in folders():
        file = folder / "catalogue.py"
        spec = importlib.util.spec_from_file_location(f"ceilings_plugin_{folder.name}", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever a stranger's file raises
            line = next(iter(str(error).splitlines()), "")
            raise UserError(f"plugins: {file} cannot be imported ({type(error).__name__}: {line}); mend it") from error
        found += getattr(module, name, [])
    return found
