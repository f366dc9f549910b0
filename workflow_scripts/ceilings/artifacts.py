"""Artifacts that could not be made: an empty file whose report says why, so that one model takes no other with it.

A program that makes an artifact writes either the artifact and its report with ``status: ok``, or an empty file and a
report with ``status: failed`` and the failure. What reads the artifact then fails for the same reason, up to the cell,
whose record says so; everything else runs. Standard library only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ceilings import isolation
from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json, write_bytes, write_json

REMEDY = "delete it and run again to make it anew"


def refuse_failed(*paths: Path | str) -> None:
    """Raise the failure of the first artifact that could not be made.

    Args:
        paths: Artifacts, each with its report beside it: the same name with ``.json``, or ``provenance.json`` in the
            folder of weights.

    Raises:
        CellFailure: As it was recorded.
        UserError: An artifact is empty though its report says that it was made.
    """
    for path in map(Path, paths):
        if path.is_file() and path.stat().st_size == 0:
            failure = read_json(report_of(path)).get("failure")
            if not failure:
                raise UserError(f"{path} is empty, and its report says that it was made; {REMEDY}")
            raise CellFailure(failure["kind"], failure["message"])


def report_of(path: Path) -> Path:
    """The report of an artifact."""
    return path.with_name("provenance.json") if path.suffix == ".safetensors" else path.with_suffix(".json")


@contextlib.contextmanager
def made(report: Path | str, outputs: Sequence[Path | str], **facts: Any) -> Iterator[None]:
    """Run a block that makes ``outputs`` and ``report``; if the cell fails in it, leave empty files and say why.

    A crash is such a failure where the program is isolated (:mod:`ceilings.isolation`).

    Args:
        report: Where the failure goes.
        outputs: Artifacts that the block was to write.
        facts: What the report holds beside the failure.
    """

    def failed(kind: str, message: str) -> dict[str, Any]:
        return {"schema_version": 1, **facts, "status": "failed", "failure": {"kind": kind, "message": message}}

    isolation.leave_on_crash({**dict.fromkeys(outputs, ""), report: failed("crashed", isolation.CRASH)})
    try:
        yield
    except CellFailure as failure:
        for output in outputs:
            write_bytes(output, b"")
        write_json(report, failed(failure.kind, str(failure)))
        print(f"{report}: {failure.kind}: {failure}")
