"""Packages as an installer leaves them: modules, and metadata whose RECORD has their digests."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from ceilings.packages import MODULES

Files = dict[str, str]


def install(site: Path, name: str, version: str, files: Files | None = None) -> Path:
    """Install a package into a folder; its metadata.

    Args:
        files: Path below ``site`` to content; None: a module that states its version.
    """
    if files is None:
        module = MODULES.get(name, name.replace("-", "_")).replace(".", "/")
        files = {f"{module}/__init__.py": f'__version__ = "{version}"\n'}
    for file, content in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(content)
    return leave_metadata(site, name, version, files)


def leave_metadata(site: Path, name: str, version: str, files: Files) -> Path:
    """The metadata of a package whose modules may be gone or replaced."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{file},sha256={_digest(content)},{len(content.encode())}" for file, content in files.items()]
    (folder / "RECORD").write_text("\n".join([*lines, f"{folder.name}/RECORD,,", ""]))
    return folder


def _digest(content: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")
