"""The project as it goes to a host: its files, and the revision that they are."""

from __future__ import annotations

import gzip
import subprocess
import tarfile
from pathlib import Path

from ceilings import lifetime
from ceilings.errors import UserError

LIMIT_SECONDS = 120
SHOWN = 5
"""Changed files that a message names."""


def pack(project: Path, target: Path, changes: bool) -> tuple[str, list[str]]:
    """Write the project's files as a tar file.

    Args:
        project: A git checkout.
        target: The tar file.
        changes: Whether uncommitted changes and files that git does not know yet come too.

    Returns:
        The revision, with ``+changes`` if the files differ from it, and the names of the files.

    Raises:
        UserError: It is no checkout, or has uncommitted changes that were not asked for.
    """
    if not (project / ".git").exists():
        raise UserError(f"{project} is no git checkout; pack from a clone, so that records can say which revision ran")
    revision = _git(project, "describe", "--always", "--abbrev=12").strip()
    changed = [
        line[3:] for line in _git(project, "status", "--porcelain=v1", "--no-renames", "-z").split("\0") if line[3:]
    ]
    if changed and not changes:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise UserError(
            f"uncommitted: {', '.join(changed[:SHOWN])}{more}; commit them, or pack them as they are: "
            "make kit CHANGES=carry"
        )
    listed = _git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    names = sorted({name for name in listed if name and (project / name).is_file()})
    with (
        open(target, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,  # its header would hold name and time
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name in names:
            archive.add(project / name, name, recursive=False, filter=_plain)
    return revision + ("+changes" if changed else ""), names


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and time, so that equal files make an equal archive."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    return info


def _git(project: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", project, *arguments],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lifetime.tied(LIMIT_SECONDS),
        )
    except FileNotFoundError:
        raise UserError("git is not installed; install it, so that records can say which revision ran") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"git {arguments[0]} failed: {error.stderr.strip()}") from None
    return done.stdout
