"""Where TensorRT's shared libraries are, without loading them. Standard library only: read while parsing."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
from pathlib import Path

from ceilings.engines.catalogue import Builder

PACKAGES = ("tensorrt_libs", "tensorrt_rtx_libs")
"""Importable folders in which the vendor's packages keep their libraries."""

UNVERSIONED = {"tensorrt-rtx": "libtensorrt_rtx.so"}
"""By generation, a library that its parser opens without a version."""


@functools.cache
def find(soname: str) -> Path | None:
    """The file that a program gets which asks for a library by its soname, such as ``libnvinfer.so.10``.

    Looked for where the dynamic linker looks (LD_LIBRARY_PATH, its cache), then in the vendor's packages, from which
    our programs load it themselves. None: nowhere.
    """
    folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    places = [*(folder / soname for folder in folders), *_cached(soname), *(p / soname for p in package_folders())]
    return next((place for place in places if place.is_file()), None)


def version(soname: str) -> str | None:
    """What tells one build of a library from another: the real file's name and its size. None: it is nowhere."""
    path = find(soname)
    return f"{path.resolve().name} ({path.stat().st_size} bytes)" if path else None


def linked(builder: Builder, folder: Path) -> dict[str, str]:
    """Variables for a process that builds: it then finds what the vendor's parser opens by a name that no file has.

    The ONNX parser of TensorRT for RTX opens ``libtensorrt_rtx.so`` when it meets a plug-in. The vendor's package has
    ``libtensorrt_rtx.so.1`` alone, and the parser ends the process (``terminate called without an active exception``).
    A link to the same file, made in ``folder``, is the same library.
    """
    name = UNVERSIONED.get(builder.name)
    target = find(f"{name}.{builder.major}") if name and not find(name) else None
    if not name or not target:
        return {}
    (folder / name).symlink_to(target.resolve())
    others = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(folder), others)))}


def package_folders() -> list[Path]:
    """Folders of the vendor's packages that are installed."""
    specs = [spec for name in PACKAGES if (spec := importlib.util.find_spec(name))]
    return [Path(folder) for spec in specs for folder in spec.submodule_search_locations or ()]


def _cached(soname: str) -> list[Path]:
    """What the dynamic linker's cache has for a soname."""
    return [Path(path) for name, path in _linker_cache() if name == soname]


@functools.cache
def _linker_cache() -> tuple[tuple[str, str], ...]:
    try:
        done = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        try:  # not on every user's PATH
            done = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return ()
    return tuple(re.findall(r"^\s*(\S+) \(.*\) => (\S+)$", done.stdout, re.MULTILINE))
