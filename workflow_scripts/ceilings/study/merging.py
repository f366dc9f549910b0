"""Makes one results tree of several machines' trees.

Everything is read and checked before anything is written. A file that the target has with the same bytes is skipped;
one that it has with others is a conflict: it stays as it is, and both sides are named. What is copied is copied as it
is, so a record keeps its provenance. What is made from all records (tables, plots, pages) is not copied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ceilings import records, trees
from ceilings.artifacts import DIGESTS, VOUCHED, report_of
from ceilings.errors import UserError
from ceilings.files import atomic, sha256

PRIVATE = {".nsys-rep"}
"""What holds the environments of a machine's processes stays there."""

KINDS: tuple[tuple[str, str], ...] = (
    ("benchmarks/*/*/*/*/*/run*.json", "run"),
    ("calibration/*/comparison.json", "calibration-comparison"),
    ("calibration/*/*.json", "calibration"),
    ("engines/*/*/*/*/*.layers.json", "layers"),
    ("engines/*/*/*/*/*.cache.json", "engine-cache"),
    ("engines/*/*/*/*/*.json", "engine"),
    ("floors/*/*/*/*.json", "floor"),
    ("hosts/*/peaks.json", "peaks"),
    ("models/*/weights/provenance.json", "weights"),
    ("models/*/weights/workload.json", "workload"),
    ("models/*/data.json", "data"),
    ("onnx/*/*.json", "graph"),
    ("parity/*/*.json", "parity"),
    ("quality/*/*/*/*.json", "quality"),
    ("traces/*/*/*/*/*.budget.json", "budget"),
    ("traces/*/*/*/*/*.layers.json", "layer-times"),
)
"""Where records lie, and of which kind; the first that fits."""


@dataclasses.dataclass(frozen=True)
class Conflict:
    """One path with two contents; that of the target stays.

    Attributes:
        path: Below the results folder.
        kept, other: Who made each: the tree, the device, the revision of the project.
    """

    path: str
    kept: str
    other: str


@dataclasses.dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        copied: Files by the device that they name; ``""`` for what every device shares.
        same: How many files the target had already.
    """

    copied: dict[str, int]
    same: int
    conflicts: list[Conflict]


def merge(given: Sequence[Path], target: Path, say: Callable[[str], None] = print) -> Merged:
    """Copy the records and artifacts of trees into a results folder.

    Args:
        given: Results folders, or archives of them.
        target: A results folder; made where there is none.
        say: Gets a line a tree.

    Raises:
        UserError: A tree is none, or a record or an artifact in it cannot be believed; then nothing was written.
    """
    with contextlib.ExitStack() as stack:
        opened = [(path, stack.enter_context(trees.opened(path))) for path in given]
        for path, tree in opened:
            for file in files(tree):
                _check(tree, file, path)
        copied: dict[str, int] = {}
        same, conflicts = 0, []
        makers: dict[PurePosixPath, tuple[Path, Path]] = {}
        for path, tree in opened:
            before = sum(copied.values())
            for file in files(tree):
                there = target / file
                if not there.exists():
                    _copy(tree / file, there)
                    makers[file] = (path, tree)
                    copied[_device(file)] = copied.get(_device(file), 0) + 1
                elif there.is_file() and filecmp.cmp(tree / file, there, shallow=False):
                    same += 1
                else:
                    kept = _maker(*makers[file], file) if file in makers else _maker(target, target, file)
                    conflicts.append(Conflict(str(file), kept, _maker(path, tree, file)))
            say(f"{path}: {sum(copied.values()) - before} files copied")
    return Merged(copied, same, conflicts)


def files(tree: Path) -> list[PurePosixPath]:
    """What of a tree is merged."""
    return [file for file in trees.files_of(tree) if file.parts[0] != "tables" and file.suffix not in PRIVATE]


def kind_of(file: PurePosixPath) -> str | None:
    """The kind of record that lies at a path; None for what is no record."""
    return next((kind for pattern, kind in KINDS if _fits(file, pattern)), None)


def _fits(file: PurePosixPath, pattern: str) -> bool:
    return len(file.parts) == pattern.count("/") + 1 and file.match(pattern)


def _check(tree: Path, file: PurePosixPath, given: Path) -> None:
    """Raise UserError where a file cannot be believed."""
    path, remedy = tree / file, f"make it anew there, or take it out of {given}"
    if not str(file).isprintable():
        raise UserError(f"{given}: {str(file)!r} is no name of this pipeline; take it out")
    if kind := kind_of(file):
        record = records.read(path, kind, remedy)
        if kind == "run" and (problem := _misplaced(file, record)):
            raise UserError(f"{path} {problem}; {remedy}")
    elif file.suffix in VOUCHED and path.stat().st_size and (report := report_of(path)).is_file():
        known = records.read(report, remedy=remedy)
        digest = next((known[name] for name in DIGESTS if name in known), None)
        if digest is not None and digest != sha256(path):
            raise UserError(f"{path} is not what its report {report.name} vouches for; {remedy}")


def _misplaced(file: PurePosixPath, record: records.Record) -> str | None:
    """Why a run record belongs elsewhere."""
    cell = record["cell"]
    names = [str(cell.get(name)) for name in ("device", "runtime", "model", "precision", "shape")]
    found = [*file.parts[1:-1], file.stem]
    return (
        None if found == [*names, f"run{record['run']}"] else f"is the record of {'/'.join(names)}, run {record['run']}"
    )


def _device(file: PurePosixPath) -> str:
    """The device that a path names; empty where all devices share it."""
    return file.parts[1] if file.parts[0] in {"benchmarks", "engines", "floors", "hosts", "quality", "traces"} else ""


def _maker(given: Path, tree: Path, file: PurePosixPath) -> str:
    """Who made a file: its tree, and what the record of it or beside it says of where and with which code."""
    content = _content(tree / file) or _content(report_of(tree / file))
    revision = (content.get("provenance") or {}).get("project_revision")
    gpu = content.get("gpu")
    driver = gpu.get("driver") if isinstance(gpu, dict) else None
    known = [_device(file), f"revision {revision}" if revision else "", f"driver {driver}" if driver else ""]
    return f"{given} ({', '.join(filter(None, known)) or 'no provenance'})"


def _content(path: Path) -> dict[str, Any]:
    if path.suffix != ".json" or not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _copy(source: Path, there: Path) -> None:
    with atomic(there) as temporary:
        shutil.copyfile(source, temporary)
        shutil.copystat(source, temporary)
        temporary.chmod(0o644)
