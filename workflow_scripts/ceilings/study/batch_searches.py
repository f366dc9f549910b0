"""The searches of a study for the best batch under a latency limit: of which cells, under what, and where."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import private
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import Availability
from ceilings.study.cell import Cell
from ceilings.study.config import nearest
from ceilings.study.paths import Paths
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import Asked
from ceilings.workload.batches import rest_of
from ceilings.workload.task import TASKS

FEWEST_PROCESSES = 3
"""A t interval of two processes is 13 standard deviations wide: a search would decide nothing."""

NEEDED = {"p50": 1, "p90": 64, "p95": 130, "p99": 662}
"""Fewest iterations that carry a percentile, as ``statistics.quantiles.minimum_samples`` has them: planning imports no
NumPy."""

BUILT = ("engine", "engine-cache")
"""Artifacts that are built for batches which are known while planning."""


@dataclasses.dataclass(frozen=True)
class BatchSearch:
    """A model, as a runtime executes it at a precision and a rest of a shape on a device, whose batch is searched.

    Attributes:
        device: Slug of the device that runs it; None if this machine has none of its kind.
        rest: The shape without its batch.
        available: Whether it can be measured here.
        record: The record of the search; None if it can neither be made nor was.
        recorded: Whether it was made earlier, on another device or in another environment; it is only read.
    """

    device: str | None
    runtime: str
    model: str
    precision: str
    rest: str
    available: Availability
    record: str | None = None
    recorded: bool = False

    @property
    def identity(self) -> str:
        """As a study names it: without its device."""
        return f"{self.runtime}/{self.model}/{self.precision}/{self.rest}"

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``plan.json``."""
        return {
            **{name: getattr(self, name) for name in ("device", "runtime", "model", "precision", "rest", "record")},
            "available": bool(self.available),
            "recorded": self.recorded,
            "reason": private.anonymous(self.available.reason),
            "remedy": private.anonymous(self.available.remedy),
        }


def batch_searches(
    config: Mapping[str, Any], cells: Iterable[Cell], paths: Paths, here: Collection[str]
) -> list[BatchSearch]:
    """The searches, each once a device: those that the devices ``here`` make, and those that others made."""
    planned: dict[tuple[str | None, str], BatchSearch] = {}
    for cell in cells:
        if cell.aa_of:
            continue
        name = (cell.runtime, cell.model, cell.precision, rest_of(cell.shape))
        one = BatchSearch(cell.device, *name, cell.available, recorded=cell.recorded)
        if not asked_of(config, cell):
            continue
        if RUNTIMES[cell.runtime].artifact in BUILT:
            one = dataclasses.replace(one, available=_built(cell.runtime))
        record = paths.best_batch(one.device, *name) if one.device else ""
        if one.device and one.available and not one.recorded:
            one = dataclasses.replace(one, record=record)
        elif Path(record).is_file():  # made elsewhere, of a cell that may have been measured there or not
            one = dataclasses.replace(one, record=record, recorded=True, available=Availability())
        elif one.recorded or (one.device and one.device not in here):
            continue
        planned.setdefault((cell.device, one.identity), one)
    return list(planned.values())


def asked_of(config: Mapping[str, Any], cell: Cell) -> bool:
    """Whether ``best_batch.cells`` names a cell, less its batch."""
    name = f"{cell.runtime}/{cell.model}/{cell.precision}/{rest_of(cell.shape)}"
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in config["best_batch"]["cells"])


def search_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is searched under: the study's section, complete."""
    given = config["best_batch"]
    times = given.get("limit_times")
    return {
        "limit_ms": given.get("limit_ms", None if times else config["targets"].get("latency_ms")),
        "limit_times": times,
        **{name: given[name] for name in ("percentile", "most", "multiple")},
        "processes": config["protocol"]["processes"],
    }


def problems(config: Mapping[str, Any], models: StudyModels, cells: Sequence[Asked]) -> Iterator[str]:
    """What of ``best_batch`` cannot be."""
    given = config["best_batch"]
    limits = [key for key in ("limit_ms", "limit_times") if key in given]
    if not given["cells"]:
        if limits:
            yield f"best_batch.{limits[0]}: needs best_batch.cells, whose batch is searched; add them"
        return
    known = {f"{one.runtime}/{one.model}/{one.precision}/{rest_of(one.shape)}": one.model for one in cells}
    for pattern in given["cells"]:
        fitting = fnmatch.filter(known, pattern)
        if not fitting:
            yield f"best_batch.cells: {pattern!r} fits no cell of the study less its batch, {nearest(pattern, known)}"
        for model in dict.fromkeys(known[name] for name in fitting):
            if reason := _unfit(model, models):
                yield f"best_batch.cells: {pattern!r} fits {model!r}, which {reason}"
    if len(limits) > 1:
        yield "best_batch: limit_ms and limit_times are two limits; keep one of the two"
    if not limits and "latency_ms" not in config["targets"]:
        yield "best_batch: says no limit; add limit_ms: 20, limit_times: 4, or targets: {latency_ms: 20}"
    if given["multiple"] > given["most"]:
        yield f"best_batch.multiple: {given['multiple']} is more than most, {given['most']}; lower it"
    yield from _imprecise(given["percentile"], config["protocol"])


def _imprecise(percentile: str, protocol: Mapping[str, Any]) -> Iterator[str]:
    """Why a protocol would leave every batch undecided."""
    processes, iterations = protocol["processes"], protocol["min_iterations"]
    if processes < FEWEST_PROCESSES:
        yield f"best_batch: decides by intervals over processes; set protocol: {{processes: {FEWEST_PROCESSES}}}"
    needed = NEEDED[percentile]
    if processes * iterations < needed:
        yield (
            f"best_batch.percentile: {percentile} needs {needed} iterations in all, and {processes} processes have "
            f"{processes * iterations} at least; set protocol: {{min_iterations: {-(-needed // processes)}}}"
        )


def _unfit(model: str, models: StudyModels) -> str | None:
    """Why no batch of a model can be searched; None where one can."""
    outline, fixed = models.outline(model), models.fixed_axes(model)
    if TASKS[outline.task].generates:
        return "generates text; name others"
    if "batch" not in outline.axes:
        return "has no axis batch; name others"
    if "batch" in fixed:
        return f"runs at batch {fixed['batch']} alone; name others, or set export.axes to dynamic"
    return None


def _built(runtime: str) -> Availability:
    return Availability(
        f"{runtime} executes engines that are built before anything is measured, and a search finds its batches later",
        "sweep its batches: the decision table names the best one within targets.latency_ms",
    )
