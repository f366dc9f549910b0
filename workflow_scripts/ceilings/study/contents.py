"""Digests of files that come from outside the workflow: their content counts, neither time nor size.

A digest is kept with what the file system says of its file, so that a large checkpoint is read once and not each time
the workflow is parsed. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from ceilings import files

MEMORY = Path(".snakemake", "ceilings", "contents.json")
"""Where digests are kept, beside Snakemake's records of this folder."""

SETTLED_NS = 2_000_000_000
"""Age from which on a file's times tell its content from a later one: file systems count time in steps."""


class Contents:
    """Reads files once.

    Args:
        memory: The file that keeps the digests.
    """

    def __init__(self, memory: Path = MEMORY) -> None:
        self.memory = memory
        self._known: dict[str, list[int | str]] | None = None

    def named(self, paths: Iterable[Path | str], folder: Path) -> str:
        """Name below ``folder`` and digest of each file: ``config.json 0c3f..., model.safetensors 92ab...``."""
        return ", ".join(f"{os.path.relpath(path, folder)} {self._digest(Path(path))[:16]}" for path in sorted(paths))

    def counted(self, paths: Iterable[Path | str]) -> str:
        """How many files there are, and one digest of all of them: ``120 files, 5f01...``."""
        given = sorted(map(str, paths))
        total = hashlib.sha256("\n".join(f"{path} {self._digest(Path(path))}" for path in given).encode())
        return f"{len(given)} files, {total.hexdigest()[:16]}"

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file; ``none`` of what cannot be read, about which its reader complains."""
        try:
            before = path.stat()
            state = [before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns]
            key, known = str(path.absolute()), self._read()
            if known.get(key, [])[:-1] == state:
                return str(known[key][-1])
            digest = files.sha256(path)
        except OSError:
            return "none"
        if time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > SETTLED_NS:
            known[key] = [*state, digest]
            self._write(known)
        return digest

    def _read(self) -> dict[str, list[int | str]]:
        if self._known is None:
            self._known = {}
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(self.memory.read_text(encoding="utf-8"))
                self._known = {key: value for key, value in content.items() if isinstance(value, list)}
        return self._known

    def _write(self, known: dict[str, list[int | str]]) -> None:
        with contextlib.suppress(OSError):  # then they are read again the next time
            files.write_task(self.memory, known)
