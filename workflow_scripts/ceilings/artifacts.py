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

from ceilings import isolation, records
from ceilings.errors import CellFailure, UserError
from ceilings.files import sha256, write_bytes

DIGESTS = ("engine_sha256", "graph_sha256", "sha256")
"""Where the report of an artifact holds the digest of its file: the first of these that it has."""

VOUCHED = (".onnx", ".engine", ".safetensors", ".so")
"""Kinds of files whose report vouches for them."""


def refuse_failed(*paths: Path | str) -> None:
    """Raise the failure of the first artifact that could not be made, or that is not what its report vouches for.

    A file without a report is taken as it is: a program may be called by hand, and pools vouch for themselves.

    Args:
        paths: Artifacts, each with its report beside it: the same name with ``.json``, or ``provenance.json`` in the
            folder of weights.

    Raises:
        CellFailure: As it was recorded.
        UserError: An artifact is empty, or another one, though its report says that it was made.
    """
    for path in map(Path, paths):
        report = report_of(path)
        if report == path or not path.is_file():
            continue
        empty = path.stat().st_size == 0
        if not report.is_file() or not (empty or path.suffix in VOUCHED):
            if empty:
                raise UserError(f"{path} is empty; {records.anew(path)}")
            continue
        # Made with its artifact, so that its own target makes both anew; that of a pool is no target.
        both = f"delete it and {path}, and run `snakemake --cores 1 {path}`"
        record = records.read(report, remedy=None if path.suffix in VOUCHED else both)
        if empty and (failure := record.get("failure")):
            raise CellFailure(failure["kind"], failure["message"])
        digest = next((record[name] for name in DIGESTS if name in record), None)
        if empty or (digest is not None and digest != sha256(path)):
            what = "is empty" if empty else "is not what was made"
            raise UserError(f"{path} {what}, by its report {report}; {records.anew(path)}")


def report_of(path: Path) -> Path:
    """The report of an artifact."""
    return path.with_name("provenance.json") if path.suffix == ".safetensors" else path.with_suffix(".json")


@contextlib.contextmanager
def made(report: Path | str, outputs: Sequence[Path | str], kind: str, **facts: Any) -> Iterator[None]:
    """Run a block that makes ``outputs`` and ``report``; if the cell fails in it, leave empty files and say why.

    A crash is such a failure where the program is isolated (:mod:`ceilings.isolation`).

    Args:
        report: Where the failure goes.
        outputs: Artifacts that the block was to write.
        kind: Of the report, as ``ceilings.schemas`` has it.
        facts: What the report holds beside the failure.
    """

    def failed(why: str, message: str) -> dict[str, Any]:
        return {"kind": kind, **facts, "status": "failed", "failure": {"kind": why, "message": message}}

    isolation.leave_on_crash({**dict.fromkeys(outputs, ""), report: failed("crashed", isolation.CRASH)})
    try:
        yield
    except CellFailure as failure:
        for output in outputs:
            write_bytes(output, b"")
        records.write(report, kind, failed(failure.kind, str(failure)))
        print(f"{report}: {failure.kind}: {failure}")
