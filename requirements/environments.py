#!/usr/bin/env python3
"""Write the pinned packages of requirements/*.txt into envs/*.yaml, below the line there that names them.

Snakemake copies an environment file before it installs it, so that it cannot name others. `make lock` runs this.
It also writes SHA256SUMS of the files that were locked together: a test sees an edit by hand, also of a hash.
"""

import hashlib
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "workflow_scripts"))

from ceilings.offline.pins import Target, pinned  # noqa: E402 - from the folder above

MARK = re.compile(r"^( +)# requirements/(\w+)\.txt(?: and torch\.txt)?, written by make lock$", re.MULTILINE)
PYTHON = re.compile(r"^ +- python=(\S+)$", re.MULTILINE)


def complete(text: str) -> str:
    """The content of an environment's file with the packages that its mark names."""
    mark, python = MARK.search(text), PYTHON.search(text)
    if not mark or not python:
        raise ValueError("the file needs a line for python and one that names its requirements")
    target = Target(python[1], "x86_64", "2.28")
    pins = pinned(PROJECT / "requirements" / f"{mark[2]}.txt", target)
    if "torch" not in {pin.name for pin in pins}:
        pins += pinned(PROJECT / "requirements/torch.txt", target)
    return text[: mark.end()] + "".join(f"\n{mark[1]}- {pin.line(hashes=False)}" for pin in pins) + "\n"


def sums() -> str:
    """What SHA256SUMS has to hold: a line a file that ``make lock`` reads or writes."""
    files = sorted(path for suffix in ("in", "txt") for path in (PROJECT / "requirements").glob(f"*.{suffix}"))
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


if __name__ == "__main__":
    (PROJECT / "requirements/SHA256SUMS").write_text(sums(), encoding="utf-8")
    for path in sorted((PROJECT / "envs").glob("*.yaml")):
        path.write_text(complete(path.read_text(encoding="utf-8")), encoding="utf-8")
