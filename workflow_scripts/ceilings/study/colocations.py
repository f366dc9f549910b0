"""The co-locations of a study: what of them cannot be, where they are measured, and what their code is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import private
from ceilings.cuda import mps
from ceilings.host import Host
from ceilings.measure.colocation import CARDS, MPS, SHARED, SPLIT, THREADS, UNSPLIT, Sharing
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.availability import Availability
from ceilings.study.cell import Cell
from ceilings.study.config import no_cell
from ceilings.study.machines import Machines
from ceilings.study.paths import Paths, leading
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import Asked
from ceilings.workload.task import TASKS


@dataclasses.dataclass(frozen=True)
class Colocation:
    """A group of instances on one device, and one way in which they share it.

    Attributes:
        name: The group, as the study calls it.
        device: Slug of the device; None if this machine has none of its kind.
        cells: A cell for each instance.
        available: Whether it can be measured here.
        runs: Its records, one for each run; empty if it can neither be measured nor was recorded.
        recorded: Whether these were made elsewhere; they are only read.
    """

    name: str
    device: str | None
    sharing: Sharing
    cells: tuple[str, ...]
    available: Availability
    runs: tuple[str, ...] = ()
    recorded: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``plan.json``."""
        return {
            "group": self.name,
            "device": self.device,
            "how": self.sharing.how,
            "cores": self.sharing.cores,
            "cells": list(self.cells),
            "runs": list(self.runs),
            "available": bool(self.available),
            "reason": private.anonymous(self.available.reason),
            "remedy": private.anonymous(self.available.remedy),
            "recorded": self.recorded,
        }


def ways(entry: Mapping[str, Any]) -> list[Sharing]:
    """How the instances of a group share their device, every way that the study asks for."""
    return [
        Sharing(how, cores)
        for how in entry.get("how", [THREADS])
        for cores in entry.get("cores", [SHARED])
        if how not in UNSPLIT or cores == SHARED
    ]


def colocations(config: Mapping[str, Any], cells: Sequence[Cell], paths: Paths, machines: Machines) -> list[Colocation]:
    """Every co-location, once a way to share and a device that the study has its cells on."""
    found: list[Colocation] = []
    for name, entry in config["colocation"].items():
        by_device: dict[str | None, dict[str, Cell]] = {}
        for cell in cells:
            if cell.identity in entry["cells"]:
                by_device.setdefault(cell.device, {})[cell.identity] = cell
        for device, members in by_device.items():
            for sharing in ways(entry):
                planned = Colocation(name, device, sharing, tuple(entry["cells"]), Availability())
                found += _on_device(planned, members, config["protocol"]["processes"], paths, machines)
    return found


def _on_device(
    one: Colocation, members: Mapping[str, Cell], runs: int, paths: Paths, machines: Machines
) -> Iterator[Colocation]:
    device = one.device or ""
    records = tuple(paths.colocation(device, one.name, str(one.sharing), run=run) for run in range(1, runs + 1))
    there = leading(records) if one.device else ()
    if any(cell.recorded for cell in members.values()) or (device and device not in machines.devices):
        if there:
            yield dataclasses.replace(one, runs=there, recorded=True)
        return
    lacking = [cell.available for cell in members.values() if not cell.available]
    available = lacking[0] if lacking else available_on(one, machines.of(one.device))
    if not available and there:  # measured in another environment, or with more cards in sight
        yield dataclasses.replace(one, runs=there, recorded=True)
    else:
        yield dataclasses.replace(one, available=available, runs=records if available and one.device else ())


def on_record(config: Mapping[str, Any], identity: str, device: str, paths: Paths) -> bool:
    """Whether a run of a co-location that a cell is in was recorded on a device."""
    return any(
        Path(paths.colocation(device, name, str(sharing), run=1)).is_file()
        for name, entry in config["colocation"].items()
        if identity in entry["cells"]
        for sharing in ways(entry)
    )


def available_on(one: Colocation, host: Host) -> Availability:
    """Whether instances can share a device of a host in this way; with reason and remedy if not."""
    if one.sharing.how == MPS and (problem := mps.problem()):
        return Availability(*problem)
    if one.sharing.cores == SPLIT and host.cores < len(one.cells):
        return Availability(
            f"{host.cores} cores cannot be split among {len(one.cells)} instances",
            "use cores: [shared], fewer instances, or a machine with more cores",
        )
    if one.sharing.how == CARDS and host.cards is not None and host.cards < len(one.cells):
        return Availability(
            f"{len(one.cells)} instances need {len(one.cells)} cards, and {host.cards} of the kind can be seen",
            "make more visible with CUDA_VISIBLE_DEVICES, or name fewer cells",
        )
    return Availability()


def modules(device: str) -> list[str]:
    """The modules that shape a record beside those of its cells' runtimes, by kind of device."""
    of_gpus = ["ceilings.measure.cards_watch", "ceilings.measure.gpu_watch", "ceilings.cuda.mps"]
    return [
        "ceilings.measure.colocation",
        "ceilings.measure.colocation_worker",
        "ceilings.measure.instance",
        f"ceilings.measure.{device}_bench",
        *(of_gpus if device == "cuda" else ()),
    ]


# ---- what cannot be --------------------------------------------------------------------------------------------------


def problems(config: Mapping[str, Any], models: StudyModels, cells: Iterable[Asked]) -> Iterator[str]:
    """What of the co-locations cannot be, each with its place in the study and its remedy."""
    known = {cell.identity: cell for cell in cells}
    for name, entry in config["colocation"].items():
        where = f"colocation.{name}"
        unknown = [cell for cell in entry["cells"] if cell not in known]
        for cell in unknown:
            if cell.count("/") != 3:
                yield (
                    f"{where}.cells: {cell!r} names no cell; write RUNTIME/MODEL/PRECISION/SHAPE, as "
                    f"{next(iter(known))}"
                )
            else:
                yield f"{where}.cells: {no_cell(cell, known)}"
        if not unknown:
            yield from _impossible(where, entry, [known[cell] for cell in entry["cells"]], models)


def _impossible(where: str, entry: Mapping[str, Any], asked: Sequence[Asked], models: StudyModels) -> Iterator[str]:
    for cell in asked:
        if TASKS[models.outline(cell.model).task].generates:
            yield (
                f"{where}.cells: {cell.identity!r} generates text, whose instances are not co-located yet; name a cell "
                "that answers at once"
            )
    devices = {RUNTIMES[cell.runtime].device: cell.identity for cell in asked}
    if len(devices) > 1:
        yield f"{where}.cells: {' and '.join(devices.values())} run on two devices; make two groups"
        return
    how, cores = entry.get("how", [THREADS]), entry.get("cores", [SHARED])
    if "cuda" not in devices and MPS in how:
        yield f"{where}.how: mps is a service of CUDA, and its cells run on the CPU; write threads or processes"
    if "cuda" not in devices and CARDS in how:
        yield f"{where}.how: cards are GPUs, and its cells run on the CPU; write threads or processes"
    if "cuda" in devices and SPLIT in cores:
        yield f"{where}.cores: its cells run on a GPU, whose instances share it by threads, processes or mps; remove it"
    if SPLIT in cores and set(how) <= UNSPLIT:
        yield f"{where}.cores: {' and '.join(how)} has no cores to split; remove it"
    products = {cell.precision for cell in asked if RUNTIMES[cell.runtime].artifact == "weights"}
    if "cuda" in devices and THREADS in how and {"fp32", "tf32"} <= products:
        yield (
            f"{where}.how: PyTorch switches TF32 on or off for a whole process, so fp32 and tf32 cannot be threads of "
            "one; write processes"
        )
