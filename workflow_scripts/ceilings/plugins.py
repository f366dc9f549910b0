"""Families, runtimes and measurements from outside the package: folders that a study names.

A plug-in folder holds ``catalogue.py``, which lists ``FAMILIES``, ``RUNTIMES`` or ``MEASUREMENTS`` as the package's own
catalogues do, and beside it the modules that these name, in folders called as the package's: ``models/families``,
``runtimes``, ``measure/measurements``. Standard library only.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ceilings import files, options
from ceilings.errors import UserError

Entry = TypeVar("Entry")

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


def entries(name: str, kind: type[Entry], problem: Callable[[Entry], str | None]) -> list[Entry]:
    """What the plug-ins' catalogues list under ``name``.

    Args:
        kind: A dataclass, of which each entry is.
        problem: What else is wrong with an entry, as what follows its name, with the remedy; None where nothing is.

    Raises:
        UserError: A catalogue cannot be imported, or an entry of it is no ``kind`` or does not fit.
    """
    found: list[Entry] = []
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
        for entry in getattr(module, name, []):
            if not isinstance(entry, kind):
                raise UserError(f"plugins: {file} lists {entry!r:.60} in {name}; make it a {kind.__name__}")
            if why := _mistyped(entry) or problem(entry):
                raise UserError(f"plugins: {file}: the {kind.__name__} {getattr(entry, 'name', '')!r} has {why}")
            found.append(entry)
    return found


def _mistyped(entry: Any) -> str | None:
    """The first field of a dataclass that is not of its type, also within it, with what it must be."""
    hints = typing.get_type_hints(type(entry))
    for field in dataclasses.fields(entry):
        value = getattr(entry, field.name)
        if not options.fits(value, hints[field.name]):
            literal = typing.get_origin(hints[field.name]) is typing.Literal
            allowed = ", ".join(map(str, typing.get_args(hints[field.name])))
            wanted = f"one of {allowed}" if literal else str(hints[field.name]).removeprefix("typing.")
            return f"{field.name} = {value!r:.60}; it must be {wanted}"
        for part in value if isinstance(value, tuple) else ():
            if dataclasses.is_dataclass(part) and (why := _mistyped(part)):
                return f"in {field.name} {why}"
    return None
