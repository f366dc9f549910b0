"""Whether a run can write what it needs beside its results; looked at before Snakemake does. Standard library only."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ceilings.errors import UserError

LEAST = 1 << 20
"""Bytes that Snakemake's notes on jobs and the temporary files of one take at least."""


def refuse_full(results: str) -> None:
    """Raise UserError where the results, Snakemake's folder or the temporary one has no room, or cannot be written."""
    _refuse_temporary()
    for folder, remedy in (
        (Path(results), "free some space"),
        (Path(".snakemake"), "free some space"),
        (
            Path(os.environ.get("TMPDIR") or tempfile.gettempdir()),
            "free some space, or set TMPDIR to another folder",
        ),
    ):
        there = next(each for each in _upwards(folder.absolute()) if each.is_dir())
        if (free := shutil.disk_usage(there).free) < LEAST:
            logging.raiseExceptions = False  # Snakemake's log lies on that disk too, and each line of it would say so
            raise UserError(f"the disk of {folder} is full ({free:,} bytes are free); {remedy} and run again")


def _refuse_temporary() -> None:
    given = os.environ.get("TMPDIR")
    # Python takes another folder then, and other programs fail.
    if given and not (Path(given).is_dir() and os.access(given, os.W_OK | os.X_OK)):
        why = "is no folder" if not Path(given).is_dir() else "cannot be written"
        raise UserError(f"TMPDIR is {given}, which {why}; make it a writable folder, or unset TMPDIR")
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise UserError("no temporary folder can be written; free some space in /tmp, or set TMPDIR to one") from None


def _upwards(folder: Path) -> Iterable[Path]:
    return (folder, *folder.parents)
