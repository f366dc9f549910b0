"""Where a result came from."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ceilings import environment
from ceilings.files import not_a_file, read_json, sha256
from ceilings.packages import used


def provenance(
    packages: Iterable[str],
    sources: Mapping[str, Path | str] | None = None,
    executed_in: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """The record that goes into every JSON result.

    Args:
        packages: Distribution names whose code shaped the result.
        sources: What it was made from, name to path; recorded as sha256.
        executed_in: The environment of the process that executed, where that is another one.
    """
    ran = {name: used(name) for name in packages}
    return {
        "python": platform.python_version(),
        "variables": environment.recorded(
            {name: executed_in[name] for name in executed_in if environment.shapes(name)}
        ),
        "packages": {name: package.version if package else None for name, package in ran.items()},
        "modules": {name: package.to_json() for name, package in ran.items() if package},
        "project_revision": project_revision(),
        "sources": {name: sha256(path) for name, path in (sources or {}).items()},
    }


def package_flags(planned: Mapping[str, str | None]) -> list[str]:
    """Warnings about packages: other versions than planned with, or modules that shadow an installed package."""
    flags = []
    for name, version in planned.items():
        package = used(name)
        ran = package.version if package else None
        if ran != version:
            flags.append(f"planned with {name} {version}, but {package.name if package else name} {ran} was imported")
        if package and not package.installed:
            flags.append(f"{package.module} was imported from outside of site-packages")
    return flags


PROJECT = Path(__file__).parents[2]

CHANGES = "+changes"

UNPACKED = ".kit/revision.json"
"""Says in a project that was unpacked on a host (:mod:`ceilings.offline`) which revision its files are."""


@functools.cache
def project_revision(project: Path = PROJECT) -> str | None:
    """Git revision of this project, with ``+changes`` if its files differ; None where neither git nor a kit says it."""
    if (project / UNPACKED).is_file():
        return _unpacked_revision(project)
    try:
        done = subprocess.run(
            ["git", "-C", project, "describe", "--always", "--abbrev=12", f"--dirty={CHANGES}"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _unpacked_revision(project: Path) -> str:
    """The revision that was unpacked; a file that was changed since counts as git counts it."""
    unpacked = read_json(project / UNPACKED, "unpack the kit again")
    differs = any(not_a_file(path := project / name) or sha256(path) != sha for name, sha in unpacked["files"].items())
    revision = str(unpacked["revision"]).removesuffix(CHANGES)
    return revision + (CHANGES if differs or unpacked["revision"] != revision else "")
