"""The cells of a study whose shapes change: which sequences its runtimes and models are put through, and where."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import private
from ceilings.errors import UserError
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import Availability
from ceilings.study.cell import Cell
from ceilings.study.config import nearest
from ceilings.study.paths import Paths
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import Asked
from ceilings.workload.padded import can_pad
from ceilings.workload.sequences import sequence
from ceilings.workload.shape import Shape
from ceilings.workload.shape_order import Requests
from ceilings.workload.task import TASKS


@dataclasses.dataclass(frozen=True)
class ChangingCell:
    """A model, as a runtime executes it at a precision on a device, with requests that follow a sequence.

    Attributes:
        device: Slug of the device that runs it; None if this machine has none of its kind.
        available: Whether it can be measured here.
        runs: Its records, one for each fresh process; empty if it is not available.
        buckets: The record of the buckets that its requests are padded up to; None where the study asks for none.
        padded: The records of the padded requests.
        recorded: Whether these were made elsewhere; they are only read.
    """

    device: str | None
    runtime: str
    model: str
    precision: str
    sequence: str
    available: Availability
    runs: tuple[str, ...] = ()
    buckets: str | None = None
    padded: tuple[str, ...] = ()
    recorded: bool = False

    @property
    def identity(self) -> str:
        """As a study names it: without its device."""
        return f"{self.runtime}/{self.model}/{self.precision}/{self.sequence}"

    @property
    def records(self) -> list[str]:
        """Its runs, its buckets and its padded runs."""
        return [*self.runs, *filter(None, [self.buckets]), *self.padded]

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``plan.json``."""
        return {
            **{name: getattr(self, name) for name in ("device", "runtime", "model", "precision", "sequence")},
            "levers": sorted(RUNTIMES[self.runtime].levers),
            "available": bool(self.available),
            "reason": private.anonymous(self.available.reason),
            "remedy": private.anonymous(self.available.remedy),
            "runs": list(self.runs),
            "buckets": self.buckets,
            "padded": list(self.padded),
            "recorded": self.recorded,
        }


def changing_cells(
    config: Mapping[str, Any], cells: Iterable[Cell], paths: Paths, models: StudyModels
) -> list[ChangingCell]:
    """The cells of changing shapes, each once a device; of other devices those that are recorded.

    Requests are padded of models that have the axis of the buckets, in sequences whose shapes differ along it.
    """
    axis = config["changing"].get("buckets", {}).get("axis")
    planned: dict[tuple[str | None, str], ChangingCell] = {}
    for cell in cells:
        if cell.aa_of:
            continue
        for name in config["sequences"]:
            one = ChangingCell(cell.device, cell.runtime, cell.model, cell.precision, name, cell.available)
            if not _fits(one.identity, config["changing"]["cells"]):
                continue
            if not RUNTIMES[cell.runtime].changing:
                reason = f"{cell.runtime} has no runner of changing shapes"
                one = dataclasses.replace(one, available=Availability(reason, _remedy()))
            padded = bool(axis) and can_pad(requests_of(config, models, name, cell.model).shapes, axis)
            whole = _planned(one, config, paths, padded=padded, elsewhere=cell.recorded)
            if whole is not None:
                planned.setdefault((cell.device, one.identity), whole)
    return list(planned.values())


def requests_of(config: Mapping[str, Any], models: StudyModels, name: str, model: str) -> Requests:
    """A sequence as a model takes it.

    Raises:
        UserError: The study has no such sequence, it cannot be, or the model cannot take it.
    """
    known = config["sequences"]
    if name not in known:
        raise UserError(f"the study has no sequence {name!r}; {nearest(name, known)}")
    requests = _read(name, json.dumps(known[name], sort_keys=True), config["seed"], _state(known[name].get("file")))
    outline = models.outline(model)
    taken = requests.at(outline.axes, models.fixed_axes(model))
    for index, shape in enumerate(taken.shapes):
        if problem := _beyond(shape, model, models):
            raise UserError(f"{taken.named(index)}: {problem}")
    if unknown := {shape.lengths for shape in taken.shapes} - {"", *config["inputs"]["lengths"]}:
        raise UserError(
            f"the lengths {min(unknown)!r} are unknown, {nearest(min(unknown), config['inputs']['lengths'])}"
        )
    return taken


def problems(config: Mapping[str, Any], models: StudyModels, cells: Sequence[Asked]) -> Iterator[str]:
    """What of ``sequences`` and ``changing`` cannot be."""
    sequences = config["sequences"]
    broken = set()
    for name, given in sequences.items():
        try:
            _read(name, json.dumps(given, sort_keys=True), config["seed"], _state(given.get("file")))
        except UserError as error:
            broken.add(name)
            where = f"sequences.{name}"
            yield str(error) if str(error).startswith(where) else f"{where}: {error}"
    models_of = {f"{cell.runtime}/{cell.model}/{cell.precision}": cell.model for cell in cells}
    known = {f"{cell}/{name}": (model, name) for cell, model in models_of.items() for name in sequences}
    patterns = config["changing"]["cells"]
    padded: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(known, pattern)
        if not sequences:
            yield f"changing.cells: {pattern!r} needs sequences, and the study has none; add them"
        elif not fitting:
            yield f"changing.cells: {pattern!r} fits no cell of the study with a sequence, {nearest(pattern, known)}"
        for model, name in dict.fromkeys(known[one] for one in fitting):
            padded |= set(models.outline(model).axes)
            if TASKS[models.outline(model).task].generates:
                yield f"changing.cells: {pattern!r} fits {model!r}, which generates text; name others"
            elif name not in broken:
                yield from _misfit(config, models, name, model)
    if "buckets" in config["changing"] and not patterns:
        yield "changing.buckets: needs changing.cells, whose requests are padded; add them"
    elif padded and (axis := config["changing"].get("buckets", {}).get("axis")) not in {None, *padded}:
        yield f"changing.buckets.axis: no model of its cells has {axis!r}, {nearest(axis, sorted(padded))}"


def _misfit(config: Mapping[str, Any], models: StudyModels, name: str, model: str) -> Iterator[str]:
    where = f"sequences.{name}"
    if file := config["sequences"][name].get("file"):
        where += f" ({file})"
    try:
        requests_of(config, models, name, model)
    except UserError as error:
        yield f"{where}: {error}"


def _beyond(shape: Shape, model: str, models: StudyModels) -> str | None:
    """Why a model does not take a shape; None where it does."""
    outline, fixed = models.outline(model), models.fixed_axes(model)
    for axis, size in shape.sizes:
        if axis in fixed and size != fixed[axis]:
            return f"{model!r} takes {fixed[axis]} alone as {axis}; drop such requests"
        if size < outline.least.get(axis, 1):
            return f"{model!r} needs at least {outline.least[axis]} as {axis}; drop such requests"
        if size > outline.limits.get(axis, size):
            return f"{model!r} takes at most {outline.limits[axis]} as {axis}; drop such requests, or cut them"
    return None


@functools.lru_cache(maxsize=256)
def _read(name: str, given: str, seed: int, state: tuple[int, ...]) -> Requests:
    """A sequence; a log is read once as long as its file stays as it is."""
    return sequence(name, json.loads(given), seed)


def _state(file: str | None) -> tuple[int, ...]:
    """What shows whether a log was changed; of one that is not there reading says so."""
    try:
        status = Path(file).stat() if file else None
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status else ()


def _planned(
    one: ChangingCell, config: Mapping[str, Any], paths: Paths, *, padded: bool, elsewhere: bool
) -> ChangingCell | None:
    """A cell with its records; None of one of another device that nothing is recorded of.

    Args:
        elsewhere: Whether its records are read and never made.
    """
    if not one.device:
        return one
    folder = paths.changing(one.device, one.runtime, one.model, one.precision, one.sequence)
    numbers = range(1, config["protocol"]["processes"] + 1)
    planned = dataclasses.replace(one, runs=tuple(f"{folder}/run{number}.json" for number in numbers))
    if padded:
        made = tuple(f"{folder}/padded{number}.json" for number in numbers)
        planned = dataclasses.replace(planned, buckets=f"{folder}/buckets.json", padded=made)
    if one.available and not elsewhere:
        return planned
    return _as_recorded(planned) or (None if elsewhere else one)


def _as_recorded(planned: ChangingCell) -> ChangingCell | None:
    """A cell as it was measured on another device or in another environment; None where no process is recorded."""
    there = [Path(path).is_file() for path in planned.runs]
    if not any(there):
        return None
    if not all(there):
        first = there.index(False)
        reason = f"{sum(there)} of the {len(there)} processes that protocol asks for are recorded on {planned.device}"
        shown = f"set protocol: {{processes: {first}}} to show what there is, or " if first else ""
        lacking = Availability(reason, f"{shown}bring the others")
        return dataclasses.replace(planned, available=lacking, runs=(), buckets=None, padded=())
    buckets = planned.buckets if planned.buckets and Path(planned.buckets).is_file() else None
    padded = planned.padded if buckets and all(Path(path).is_file() for path in planned.padded) else ()
    return dataclasses.replace(planned, available=Availability(), buckets=buckets, padded=padded, recorded=True)


def _remedy() -> str:
    return f"name one that has: {', '.join(name for name, one in RUNTIMES.items() if one.changing)}"


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
