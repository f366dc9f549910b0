"""Where TensorRT's shared libraries are, without loading them. Standard library only: read while parsing."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
from pathlib import Path

PACKAGES = ("tensorrt_libs", "tensorrt_rtx_libs")
"""Importable folders in which the vendor's packages keep their libraries."""


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
