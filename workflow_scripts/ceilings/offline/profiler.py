"""Nsight Systems as it goes to a host: what records and exports, without its window."""

from __future__ import annotations

import tarfile
from pathlib import Path

from ceilings.errors import UserError

PROGRAMS = ("target-linux-x64/nsys", "target-linux-sbsa-armv8/nsys", "bin/nsys")
CARRIED = ("target-linux-*", "host-linux-*", "bin")


def program(folder: Path) -> str:
    """Where ``nsys`` lies in an archive of an installation.

    Raises:
        UserError: The folder is no installation of Nsight Systems.
    """
    for name in PROGRAMS:
        if (folder / name).is_file():
            return f"{folder.name}/{name}"
    raise UserError(f"NSYS={folder} holds no nsys; name the folder of a version: /opt/nvidia/nsight-systems/2025.1.1")


def pack(folder: Path, archive: Path) -> None:
    """Write the archive; links become the files that they lead to."""
    with tarfile.open(archive, "w:gz", dereference=True, compresslevel=6) as tar:
        for part in sorted(path for pattern in CARRIED for path in folder.glob(pattern)):
            for path in sorted(part.rglob("*")):
                if path.is_file():
                    tar.add(path, f"{folder.name}/{path.relative_to(folder)}", recursive=False)
