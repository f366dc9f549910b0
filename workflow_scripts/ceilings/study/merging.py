"""Makes one results tree of several machines' trees.

Everything is read, checked and planned before anything is written, and a copy that fails takes back what was written.
What belongs together (:func:`unit_of`) is of one tree: the processes of a cell, a capture and its budget, a graph and
its report. A file that the target has with the same bytes is skipped; a unit that it has otherwise is a conflict: it
stays as it is, and both sides are named. What is copied is copied as it is, so a record keeps its provenance. What is
made from all records (tables, plots, pages) is not copied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ceilings import records, trees
from ceilings.artifacts import DIGESTS, VOUCHED, report_of
from ceilings.errors import UserError
from ceilings.files import atomic, sha256
from ceilings.provenance import CHANGES

SEQUENCE = "{device}/{runtime}/{model}/{precision}/{sequence}"
"""The folder of a cell of changing shapes."""

CELL = "{device}/{runtime}/{model}/{precision}/{shape}"
"""The folder of a cell."""

KINDS: tuple[tuple[str, str], ...] = (
    ("benchmarks/{device}/{runtime}/{model}/{precision}/{shape}/run{run}.json", "run"),
    ("benchmarks/{device}/{runtime}/{model}/{precision}/{shape}/texts.json", "text-verdict"),
    ("best_batch/{device}/{runtime}/{model}/{precision}/{rest}.json", "best-batch"),
    ("calibration/{model}/comparison.json", "calibration-comparison"),
    ("calibration/{model}/{method}.json", "calibration"),
    (f"changing/{SEQUENCE}/run{{run}}.json", "changing"),
    (f"changing/{SEQUENCE}/padded{{run}}.json", "changing"),
    (f"changing/{SEQUENCE}/buckets.json", "buckets"),
    (f"changing/{SEQUENCE}/change.json", "shape-change"),
    ("colocation/{device}/{group}/{how}/run{run}.json", "colocation"),
    ("engines/{device}/{builder}/{model}/{precision}/{name}.layers.json", "layers"),
    ("engines/{device}/{cache}/{model}/{precision}/{shape}.cache.json", "engine-cache"),
    ("engines/{device}/{builder}/{model}/{precision}/{name}.json", "engine"),
    ("floors/{device}/{model}/{graph}/{shape}.json", "floor"),
    ("hosts/{device}/peaks.json", "peaks"),
    ("hosts/{device}/lessons.json", "lessons"),
    ("hosts/{device}/transfers.json", "transfers"),
    ("hosts/{device}/side_by_side.json", "side-by-side"),
    ("models/{model}/weights/provenance.json", "weights"),
    ("models/{model}/weights/workload.json", "workload"),
    ("models/{model}/data.json", "data"),
    ("onnx/{model}/{graph}.json", "graph"),
    (f"overlap/{CELL}/run{{run}}.json", "overlap"),
    (f"overlap/{CELL}/hidden.json", "hidden-copies"),
    ("parity/{model}/{graph}.json", "parity"),
    ("quality/{device}/{runtime}/{model}/{precision}.json", "quality"),
    ("serving/{device}/{deployment}/run{run}.json", "serving"),
    ("traces/{device}/{runtime}/{model}/{precision}/{shape}.budget.json", "budget"),
    ("traces/{device}/{runtime}/{model}/{precision}/{shape}.counters.json", "counters"),
    ("traces/{device}/{runtime}/{model}/{precision}/{shape}.ncu.json", "kernel-limits"),
    ("traces/{device}/{runtime}/{model}/{precision}/{shape}.layers.json", "layer-times"),
)
"""Where records lie, and of which kind; the first that fits. A record repeats no name of its path otherwise."""

ARTIFACTS = (
    f"changing/{SEQUENCE}/capture.sqlite",
    f"overlap/{CELL}/capture.sqlite",
    *(f"traces/{{device}}/{{runtime}}/{{model}}/{{precision}}/{{shape}}{end}" for end in (".sqlite", ".perfetto.json")),
    "traces/{device}/{runtime}/{model}/{precision}/{shape}.torch.json",
    *(f"traces/{{device}}/{{runtime}}/{{model}}/{{precision}}/{{shape}}.ncu.{end}" for end in ("svg", "png")),
    *(f"hosts/{{device}}/lessons.{end}" for end in ("svg", "png")),
    *(f"engines/{{device}}/{{builder}}/{{model}}/{{precision}}/{{name}}{end}" for end in (".engine", ".timing.cache")),
    "engines/{device}/{cache}/{model}/{precision}/{shape}.cache/{file}",
    "engines/{device}/{builder}/timing.cache",
)
"""What else lies in the folder of a device."""

OF_DEVICES = {
    *(
        "benchmarks",
        "best_batch",
        "changing",
        "colocation",
        "engines",
        "floors",
        "hosts",
        "overlap",
        "quality",
        "serving",
        "traces",
    )
}
"""Folders with a folder a device."""

RUNS = {"benchmarks", "changing", "colocation", "overlap", "serving"}
"""Folders of runs: those of one thing may be of several trees if they measured the same."""

ENDS = (
    *(".budget.json", ".layers.json", ".perfetto.json", ".torch.json", ".sqlite"),
    *(".counters.json", ".ncu.json", ".ncu.svg", ".ncu.png"),
    *(".engine", ".timing.cache", ".cache.json", ".cache", ".onnx.data", ".onnx", ".reference.npz", ".npz", ".json"),
    *(".svg", ".png"),
)
"""What follows the name of a unit in the names of its files; the first that fits."""

BESIDE = ".onnx.data"
"""End of the names of files with the weights of graphs that one file cannot hold."""

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of a name and of a path, as Linux takes them."""

TEMPORARY = 64
"""Bytes by which the temporary name of a file may be longer than its name."""

BLOCK = 4096
"""Bytes of a file system that a file takes whole."""


@dataclasses.dataclass(frozen=True)
class Conflict:
    """One path that the target has otherwise, or lacks though it has others that belong together with it.

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


@dataclasses.dataclass(frozen=True)
class Tree:
    """A results folder.

    Attributes:
        given: As the user names it.
        results: Where its files are.
    """

    given: Path
    results: Path


Unit = dict[PurePosixPath, Tree]
"""The files of a unit, each with the tree that it is of."""


def merge(given: Sequence[Path], target: Path, say: Callable[[str], None] = print) -> Merged:
    """Copy the records and artifacts of trees into a results folder.

    Args:
        given: Results folders, or archives of them.
        target: A results folder; made where there is none.
        say: Gets a line a tree.

    Raises:
        UserError: A tree is none, a record or an artifact in it cannot be believed, or the target cannot hold what it
            should; then nothing was written.
    """
    with contextlib.ExitStack() as stack:
        opened = [Tree(path, stack.enter_context(trees.opened(path))) for path in given]
        for tree in opened:
            _refuse_nested(tree, target)
            found = files(tree.results)
            if not found:
                raise UserError(f"{tree.given} holds no record and no artifact to merge; leave it out")
            for file in found:
                _check(tree.results, file, tree.given)
        known = _units(Tree(target, target), _files_there(target))
        plan: Unit = {}
        same, conflicts = 0, []
        for tree in opened:
            before = len(plan)
            for name, offered in _units(tree, files(tree.results)).items():
                have = known.setdefault(name, {})
                equal = {file for file in offered if file in have and _equal(file, have[file], tree)}
                same += len(equal)
                if _belongs(have, offered, equal):
                    new = {file: tree for file in offered if file not in have}
                    plan |= new
                    have |= new
                else:
                    conflicts += [_conflict(file, have, tree) for file in offered if file not in equal]
            say(f"{tree.given}: {len(plan) - before} files to copy")
        _refuse_unwritable(target, plan)
        _copy_all(target, plan)
    copied: dict[str, int] = {}
    for file in plan:
        copied[_device(file)] = copied.get(_device(file), 0) + 1
    return Merged(copied, same, conflicts)


def files(tree: Path) -> list[PurePosixPath]:
    """What of a tree is merged."""
    return [file for file in trees.files_of(tree) if file.parts[0] != "tables" and not trees.stays(file)]


def kind_of(file: PurePosixPath) -> str | None:
    """The kind of record that lies at a path; None for what is no record."""
    return next((kind for pattern, kind in KINDS if _names(file, pattern) is not None), None)


def unit_of(file: PurePosixPath) -> str:
    """What a file belongs together with: all of one unit is of one tree.

    The processes of a cell and the verdict on their texts; of one of changing shapes its buckets too, of copies beside
    compute the capture; the servers of a deployment; a capture and what is made of it; an engine and its record;
    weights, their workload and tokenizer; rows and their reference; inputs and what FP32 gives for them; a graph, its
    report and its parity.
    """
    first, *below = file.parts
    if first in RUNS:
        return str(file.parent)
    if first == "models" and below[1:2] == ["weights"]:
        return "/".join(file.parts[:3])
    if first == "engines" and len(below) > 4:
        below = below[:5]
    folder = {"parity": "onnx"}.get(first, first)
    if first == "models" and below[1:2] in (["inputs"], ["reference"]):
        below[1] = "inputs"
    end = next((end for end in ENDS if below[-1].endswith(end)), "")
    return "/".join([folder, *below[:-1], below[-1].removesuffix(end)])


def _units(tree: Tree, found: Sequence[PurePosixPath]) -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for file in found:
        units.setdefault(unit_of(file), {})[file] = tree
    return units


def _refuse_nested(tree: Tree, target: Path) -> None:
    """Raise UserError where the target would become a part of a tree, or the tree one of the target."""
    inner, outer = target.resolve(), tree.results.resolve()
    if inner != outer and inner.is_relative_to(outer):
        raise UserError(f"{target} lies in {tree.given}, which would then hold it; name a folder outside as --into")
    if inner != outer and outer.is_relative_to(inner):
        raise UserError(f"{target} holds {tree.given}; name a results folder as --into, such as {target / 'results'}")


def _files_there(target: Path) -> list[PurePosixPath]:
    """What the target has; a folder of it may be a link to another disk."""
    if os.path.lexists(target) and not target.is_dir():
        raise UserError(f"{target} is no folder; name the results folder that gets the files")
    if not any((target / name).exists() for name in trees.FOLDERS) and trees.is_tree(target / "results"):
        raise UserError(f"{target} is no results folder, but holds one; name {target / 'results'} as --into")
    found = []
    for name in trees.FOLDERS:
        if os.path.lexists(target / name) and not (target / name).is_dir():
            raise UserError(f"{target / name} is no folder; take it away, since files go below it")
        for path in sorted((target / name).rglob("*")):
            if path.is_symlink() and not path.is_file():
                raise UserError(f"{path} is a link that leads to no file; take it away, or put the file itself there")
            if path.is_file():
                found.append(PurePosixPath(path.relative_to(target)))
    return [file for file in found if file.parts[0] != "tables" and not trees.stays(file)]


def _equal(file: PurePosixPath, one: Tree, other: Tree) -> bool:
    return filecmp.cmp(one.results / file, other.results / file, shallow=False)


def _belongs(have: Unit, offered: Unit, equal: set[PurePosixPath]) -> bool:
    """Whether files that are offered are of one tree with those of a unit, or may be joined with them."""
    if have.keys() & offered.keys() != equal:
        return False
    if equal in (set(have), set(offered)):  # one side holds all of the other
        return True
    if next(iter(offered)).parts[0] in RUNS:
        return _comparable([*have.items(), *offered.items()])
    return any(kind_of(file) for file in equal)  # a record that both have vouches for the rest


def _comparable(runs: Sequence[tuple[PurePosixPath, Tree]]) -> bool:
    """Whether processes of a cell measured one thing: code, driver, packages and protocol, all of them recorded."""
    conditions = [_conditions(_content(tree.results / file)) for file, tree in runs]
    return all(one is not None and one == conditions[0] for one in conditions)


def _conditions(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What must be equal for two processes to be of one cell; None where the record does not know its code."""
    provenance = record.get("provenance") or {}
    revision = provenance.get("project_revision")
    if not revision or revision.endswith(CHANGES):
        return None
    known = {name: provenance.get(name) for name in ("project_revision", "python", "packages", "variables", "sources")}
    gpu = record.get("gpu") if isinstance(record.get("gpu"), dict) else {}
    return {
        **known,
        "driver": (gpu or {}).get("driver"),
        "protocol": record.get("protocol"),
        "host": record.get("host"),
        "settings": record.get("settings"),
    }


def _conflict(file: PurePosixPath, have: Unit, tree: Tree) -> Conflict:
    kept = file if file in have else next(iter(have))
    return Conflict(str(file), _maker(have[kept], kept), _maker(tree, file))


def _names(file: PurePosixPath, pattern: str) -> dict[str, str] | None:
    """What a path holds in place of the names of a pattern; None where it does not fit."""
    parts = re.split(r"\{(\w+)\}", pattern)
    regex = "".join(re.escape(part) if at % 2 == 0 else f"(?P<{part}>[^/]+)" for at, part in enumerate(parts))
    found = re.fullmatch(regex, str(file))
    return found and found.groupdict()


def _check(tree: Path, file: PurePosixPath, given: Path) -> None:
    """Raise UserError where a file cannot be believed."""
    path, remedy = tree / file, f"make it anew there, or take it out of {given}"
    if not str(file).isprintable():
        raise UserError(f"{given}: {str(file)!r} is no name of this pipeline; take it out")
    if kind := kind_of(file):
        record = records.read(path, kind, remedy)
        if problem := _misplaced(file, record):
            raise UserError(f"{path} {problem}; {remedy}")
    elif file.suffix in VOUCHED and path.stat().st_size:
        report = report_of(path)
        if not report.is_file():
            raise UserError(f"{path} has no report {report.name} that vouches for it; {remedy}")
        known = records.read(report, remedy=remedy)
        digest = next((known[name] for name in DIGESTS if name in known), None)
        if digest != sha256(path):
            raise UserError(f"{path} is not what its report {report.name} vouches for; {remedy}")
        if file.suffix == ".onnx":
            _check_weights(path, known, remedy)
    elif file.name.endswith(BESIDE):
        graph = path.with_suffix("")
        if not graph.is_file() or not graph.stat().st_size:
            raise UserError(f"{path} holds weights of {graph.name}, which is not beside it; {remedy}")
    elif file.parts[0] in OF_DEVICES and all(_names(file, pattern) is None for pattern in ARTIFACTS):
        raise UserError(f"{path} is no file of this pipeline; take it out of {given}")


def _check_weights(graph: Path, report: Mapping[str, Any], remedy: str) -> None:
    """Raise UserError where the weights beside a graph are missing or others."""
    beside = graph.with_name(graph.name + ".data")
    if beside.is_file():
        from ceilings.graphs.graph import verify_data  # a merge of small graphs needs no ONNX

        verify_data(graph, remedy)
    elif report.get("bytes") != graph.stat().st_size:
        raise UserError(f"{graph} has its weights in {beside.name}, which is not beside it; {remedy}")


def _misplaced(file: PurePosixPath, record: records.Record) -> str | None:
    """Why a record belongs elsewhere: it holds another device, model, precision or shape than its path."""
    names = next(found for pattern, _ in KINDS if (found := _names(file, pattern)) is not None)
    cell = record.get("cell")
    holds = record | (cell if isinstance(cell, dict) else {})
    for name, value in names.items():
        if isinstance(holds.get(name), (str, int)) and str(holds[name]) != value:
            return f"is the record of {name} {holds[name]}, not of {value}"
    return None


def _device(file: PurePosixPath) -> str:
    """The device that a path names; empty where all devices share it."""
    return file.parts[1] if file.parts[0] in OF_DEVICES else ""


def _maker(tree: Tree, file: PurePosixPath) -> str:
    """Who made a file: its tree, and what the record of it or beside it says of where and with which code."""
    content = _content(tree.results / file) or _content(report_of(tree.results / file))
    revision = (content.get("provenance") or {}).get("project_revision")
    gpu = content.get("gpu")
    driver = gpu.get("driver") if isinstance(gpu, dict) else None
    known = [_device(file), f"revision {revision}" if revision else "", f"driver {driver}" if driver else ""]
    return f"{tree.given} ({', '.join(filter(None, known)) or 'no provenance'})"


def _content(path: Path) -> dict[str, Any]:
    if path.suffix != ".json" or not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_unwritable(target: Path, plan: Unit) -> None:
    """Raise UserError where the target cannot hold what is planned."""
    planned, base = set(plan), target.absolute()
    for file, tree in plan.items():
        there = base / file
        if any(len(os.fsencode(part)) > LONGEST_NAME - TEMPORARY for part in file.parts) or (
            len(os.fsencode(there)) > LONGEST_PATH - TEMPORARY
        ):
            raise UserError(f"{tree.given}: the name {str(file)[:60]}... is too long; take it out")
        between = [parent for parent in file.parents if parent.parts]
        if there.is_dir() or any(os.path.lexists(base / one) and not (base / one).is_dir() for one in between):
            raise UserError(f"{target} has a file where {file} needs a folder, or a folder in its place; take it away")
        if planned.intersection(between):
            raise UserError(f"{tree.given}: {file} lies below a path that is a file in another tree; take one out")
    room: dict[int, int] = {}
    for file, tree in plan.items():
        folder = next(parent for parent in (base / file).parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(
                f"{folder} cannot be written; make it a folder that you may write to, or name another --into"
            )
        disk = folder.stat().st_dev
        room.setdefault(disk, shutil.disk_usage(folder).free)
        room[disk] -= -(-(tree.results / file).stat().st_size // BLOCK) * BLOCK
        if room[disk] < 0:
            raise UserError(f"{folder} has no room for what should be copied; free some space and merge again")


def _copy_all(target: Path, plan: Unit) -> None:
    """Copy every file, or none: what was written is taken back where one cannot be."""
    with contextlib.ExitStack() as undo:
        for file, tree in plan.items():
            there = target / file
            made = [parent for parent in there.parents if not parent.exists()]
            try:
                for parent in reversed(made):
                    parent.mkdir()
                    undo.callback(parent.rmdir)
                with atomic(there) as temporary:
                    shutil.copyfile(tree.results / file, temporary)
                    shutil.copystat(tree.results / file, temporary)
                    temporary.chmod(0o644)
                undo.callback(there.unlink)
            except OSError as error:
                raise UserError(f"{there} cannot be written ({error.strerror}); mend that, then merge again") from None
        undo.pop_all()
