"""Where a result came from."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ceilings.files import sha256


def provenance(packages: Iterable[str], sources: Mapping[str, Path | str] | None = None) -> dict[str, Any]:
    """The record that goes into every JSON result.

    Args:
        packages: Distribution names whose versions shaped the result.
        sources: What it was made from, name to path; recorded as sha256.
    """
    return {
        "python": platform.python_version(),
        "packages": versions(packages),
        "project_revision": project_revision(),
        "sources": {name: sha256(path) for name, path in (sources or {}).items()},
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Installed version of each distribution; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


@functools.cache
def project_revision() -> str | None:
    """Git revision of this project, with ``+changes`` if the work tree differs; None outside a checkout."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--abbrev=12", "--dirty=+changes"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
