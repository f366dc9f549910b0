"""The cells of a study on its machines: each thing that its sweeps ask for, once a device."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings.host import Host, kind_of
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study import batch_searches, colocations, overlaps
from ceilings.study.availability import Availability, availability, of_model, of_shape
from ceilings.study.cell import SECOND, Cell
from ceilings.study.engines import Engines
from ceilings.study.machines import Machines
from ceilings.study.paths import Paths
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import Asked, asked
from ceilings.study.variants import counted_work
from ceilings.workload.batches import rest_of
from ceilings.workload.generation import is_request, phase
from ceilings.workload.task import TASKS

RECORDED = "recorded"
"""Stands in ``devices`` for all of which the results hold records."""


class Planner:
    """Makes cells of what the sweeps ask for.

    Args:
        config: The study, checked, with its defaults.
        machines: What measures.
        paths: The results tree.
        models: The models of the study.
        engines: The engines of the study.
        traced: Whether anything here records captures.
        counted: Whether anything here reads hardware counters.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        machines: Machines,
        paths: Paths,
        models: StudyModels,
        engines: Engines,
        *,
        traced: bool,
        counted: bool,
    ) -> None:
        self.config = config
        self.machines = machines
        self.paths = paths
        self.models = models
        self.engines = engines
        self.traced = traced
        self.counted = counted

    def cells(self) -> list[Cell]:
        """Every cell, each once a device, the second cells of a device's A/A pairs after its others."""
        sweeps: dict[Asked, list[str]] = {}
        for one in asked(self.config, self.models):
            sweeps.setdefault(dataclasses.replace(one, sweep=""), []).append(one.sweep)
        planned = [cell for one, names in sweeps.items() for cell in self._cells(one, tuple(dict.fromkeys(names)))]
        named = set(self.config["devices"])
        here = [cell for cell in planned if {"auto", cell.device} & named and self._wanted_here(cell)]
        cells = [*here, *self._seconds(here)]
        each = list({cell.identity: cell for cell in planned}.values())
        for slug in self._read_only():
            seconds = (dataclasses.replace(cell, runtime=cell.runtime + SECOND) for cell in each)
            cells += self._all_recorded((*each, *seconds), slug)
        return cells

    def _read_only(self) -> list[str]:
        """The devices whose records are read and never made."""
        named = self.config["devices"]
        if named == [RECORDED]:  # also those of a machine whose devices are called like this one's
            return self.paths.recorded_devices()
        slugs = [*named, *(self.paths.recorded_devices() if RECORDED in named else ())]
        return [slug for slug in dict.fromkeys(slugs) if slug not in ("auto", RECORDED, *self.machines.devices)]

    def _wanted_here(self, cell: Cell) -> bool:
        """Whether its machine measures a cell: not where all of its sweeps leave it to machines without a GPU."""
        left = {name for name, sweep in self.config["sweeps"].items() if sweep.get("unless") == "gpu"}
        return self.machines.of(cell.device).gpu is None or not set(cell.sweeps) <= left

    def _cells(self, one: Asked, sweeps: tuple[str, ...]) -> Iterator[Cell]:
        """One for each device of its kind; one without a device where there is none, or may be more."""
        kind = RUNTIMES[one.runtime].device
        name = (one.runtime, one.model, one.precision)
        having = self.machines.having(kind)
        for host in having:
            yield self._cell(Cell(host.device(kind), *name, one.shape, sweeps, self._available(one, host)))
        if self.machines.undescribed:
            yield Cell(None, *name, one.shape, sweeps, self.machines.unknown)
        elif not having:
            yield Cell(None, *name, one.shape, sweeps, self._available(one, self.machines.hosts[0]))

    def _cell(self, cell: Cell) -> Cell:
        """A cell with what it asks for on its device."""
        device = cell.device or ""
        if not cell.available:
            # Two generations of TensorRT exclude each other: what one environment recorded stays when the other runs.
            return self._recorded(cell, device) or cell
        return dataclasses.replace(
            cell,
            runs=self._runs(cell, device),
            floor=self._floor(cell, device),
            engine=self._engine(cell, device),
            budget=self._budget(cell, device) if self.traced and self._asks_budget(cell) else None,
            counters=self._counters(cell, device) if self.counted and self._asks_counters(cell) else None,
            quality=self._quality(cell, device) if self._asks_quality(cell) else None,
            texts=self._texts(cell, device),
        )

    def _all_recorded(self, cells: Iterable[Cell], slug: str) -> Iterator[Cell]:
        """Those that were measured on a device; one of which processes are missing says so.

        One of which all are missing is there where something else was recorded of it, which belongs to it.
        """
        for cell in cells:
            if recorded := self._recorded(cell, slug) or self._begun(cell, slug):
                yield recorded

    def _begun(self, cell: Cell, slug: str) -> Cell | None:
        """``cell`` as one that fewer processes are recorded of than the study has; None if nothing is."""
        runs = self._runs(cell, slug)
        there = [Path(run).is_file() for run in runs]
        if not _is_of(slug, cell) or not (any(there) or self._beside(cell, slug)):
            return None
        first = there.index(False)  # records are read from the first process on
        reason = f"{sum(there)} of the {len(runs)} processes that protocol asks for are recorded of it on {slug}"
        shown = f"set protocol: {{processes: {first}}} to show what there is, or " if first else ""
        lacking = Availability(reason, f"{shown}bring the others")
        return Cell(slug, cell.runtime, cell.model, cell.precision, cell.shape, cell.sweeps, lacking)

    def _beside(self, cell: Cell, slug: str) -> bool:
        """Whether copies beside compute, a co-location or a search of a cell were recorded on a device."""
        if cell.aa_of:
            return False
        name = (slug, cell.runtime, cell.model, cell.precision)
        copies = Path(self.paths.overlap(*name, cell.shape), "run1.json")
        searched = Path(self.paths.best_batch(*name, rest_of(cell.shape)))
        return (
            (overlaps.asked_of(self.config, cell.identity) and copies.is_file())
            or colocations.on_record(self.config, cell.identity, slug, self.paths)
            or (batch_searches.asked_of(self.config, cell) and searched.is_file())
        )

    def _recorded(self, cell: Cell, slug: str) -> Cell | None:
        """``cell`` as measured earlier on another device or in another environment; None if it was not."""
        if not _is_of(slug, cell):
            return None
        runs = self._runs(cell, slug)
        if not all(Path(run).is_file() for run in runs):
            return None
        beside = {
            "floor": self._floor(cell, slug),
            "engine": self._engine(cell, slug),
            "budget": self._budget(cell, slug),
            "counters": self._counters(cell, slug),
            "quality": self._quality(cell, slug),
        }
        there = {key: path for key, path in beside.items() if path and Path(path).is_file()}
        blank = dict.fromkeys(beside)
        changes: dict[str, Any] = {**blank, **there, "available": Availability(), "runs": runs, "recorded": True}
        changes["texts"] = self._texts(cell, slug)  # made here where it did not come with them
        return dataclasses.replace(cell, device=slug, **changes)

    def _seconds(self, cells: list[Cell]) -> list[Cell]:
        """A second measurement of the noise cells: the named ones, else one on each device.

        That one is the first that can run; of cells that generate the first one of decode steps, since a prefill, which
        a few iterations sample, says little of how well steps are measured.
        """
        if "noise_cells" in self.config:
            chosen = [cell for cell in cells if cell.identity in self.config["noise_cells"]]
        else:
            first: dict[str | None, Cell] = {}
            for cell in sorted(cells, key=lambda cell: is_request(cell.shape) and phase(cell.shape) == "prefill"):
                if cell.available and not cell.recorded:
                    first.setdefault(cell.device, cell)
            chosen = list(first.values())
        return [self._second(cell) for cell in chosen]

    def _second(self, cell: Cell) -> Cell:
        second = dataclasses.replace(cell, runtime=cell.runtime + SECOND, budget=None, counters=None, quality=None)
        if not cell.available or not cell.device:
            return second
        if cell.recorded:
            missing = Availability("recorded in another environment, without an A/A pair", "run the study there")
            there = self._recorded(second, cell.device) or self._begun(second, cell.device)
            return there or dataclasses.replace(second, available=missing, runs=(), recorded=False)
        runs, texts = self._runs(second, cell.device), self._texts(second, cell.device)
        return dataclasses.replace(second, runs=runs, texts=texts)

    def _available(self, one: Asked, host: Host) -> Availability:
        found = self.availability(one.runtime, one.model, one.precision, host)
        return of_shape(RUNTIMES[one.runtime], one.shape) if found else found

    @functools.cache  # noqa: B019 - one study lives as long as the process
    def availability(self, runtime: str, model: str, precision: str, host: Host) -> Availability:
        """Whether a machine can run a model so."""
        spec = RUNTIMES[runtime]
        of_this_model = of_model(spec, model, self.models.outline(model), precision)
        return availability(spec, precision, host) if of_this_model else of_this_model

    def _runs(self, cell: Cell, device: str) -> tuple[str, ...]:
        name = (device, cell.runtime, cell.model, cell.precision, cell.shape)
        return tuple(
            self.paths.run(*name, process=number) for number in range(1, self.config["protocol"]["processes"] + 1)
        )

    def _engine(self, cell: Cell, device: str) -> str | None:
        if cell.spec.artifact != "engine":
            return None
        return f"{self.engines.path(cell.spec, cell.model, cell.precision, [cell.shape], device)}.json"

    def _floor(self, cell: Cell, device: str) -> str | None:
        work = counted_work(cell.spec, cell.precision)
        return self.paths.floor(device, cell.model, work, cell.shape) if work else None

    def _budget(self, cell: Cell, device: str) -> str:
        return f"{self.paths.trace(device, cell.runtime, cell.model, cell.precision, cell.shape)}.budget.json"

    def _counters(self, cell: Cell, device: str) -> str:
        return f"{self.paths.trace(device, cell.runtime, cell.model, cell.precision, cell.shape)}.ncu.json"

    def _quality(self, cell: Cell, device: str) -> str:
        return self.paths.quality(device, cell.runtime, cell.model, cell.precision)

    def _texts(self, cell: Cell, device: str) -> str | None:
        if not is_request(cell.shape):
            return None
        return self.paths.texts(device, cell.runtime, cell.model, cell.precision, cell.shape)

    def _asks_budget(self, cell: Cell) -> bool:
        return cell.spec.device == "cuda" and _fits(cell.identity, self.config["traces"]["cells"])

    def _asks_counters(self, cell: Cell) -> bool:
        return cell.spec.device == "cuda" and _fits(cell.identity, self.config["traces"]["counters"]["cells"])

    def _asks_quality(self, cell: Cell) -> bool:
        if TASKS[self.models.outline(cell.model).task].generates:
            return False  # No labelled text says which tokens are right; they are compared with FP32's in every run.
        return _fits(f"{cell.runtime}/{cell.model}/{cell.precision}", self.config["quality"]["cells"])


def _is_of(slug: str, cell: Cell) -> bool:
    """Whether a device is of the kind that a cell's runtime runs on."""
    return cell.spec.device == kind_of(slug)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
