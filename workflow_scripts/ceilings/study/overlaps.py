"""The cells whose copies are run beside their compute: which can be, where their records are, and what cannot."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import private
from ceilings.runtimes.catalogue import RUNTIMES, Runtime
from ceilings.study.availability import Availability
from ceilings.study.cell import Cell
from ceilings.study.config import nearest
from ceilings.study.paths import Paths, leading
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import Asked
from ceilings.workload.task import TASKS

KEY = ("device", "runtime", "model", "precision", "shape")

ON_GIVEN_STREAMS = ("torch_cuda", "onnxruntime_cuda", "ceilings_fused")
"""Modules whose runners launch on a stream that they are given, and read buffers of which each runner has its own."""

ELSEWHERE = "choose torch-cuda-eager, torch-cudagraph, onnxruntime-cuda or onnxruntime-cuda-graph"


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A cell whose schedules of copies and compute are measured on a device.

    Attributes:
        device: Slug of the GPU that runs it; None if this machine has none.
        available: Whether it can be measured here.
        runs: Its records, one for each process; empty if it can neither be measured nor was recorded.
        hidden: The account of its capture; None if there is none.
        recorded: Whether these were made elsewhere; they are only read.
    """

    device: str | None
    runtime: str
    model: str
    precision: str
    shape: str
    available: Availability
    runs: tuple[str, ...] = ()
    hidden: str | None = None
    recorded: bool = False

    @property
    def records(self) -> tuple[str, ...]:
        """All its records."""
        return (*self.runs, *([self.hidden] if self.hidden else []))

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``plan.json``."""
        return {
            **{name: getattr(self, name) for name in (*KEY, "hidden", "recorded")},
            "runs": list(self.runs),
            "available": bool(self.available),
            "reason": private.anonymous(self.available.reason),
            "remedy": private.anonymous(self.available.remedy),
        }


def overlaps(
    config: Mapping[str, Any], cells: Iterable[Cell], paths: Paths, *, here: Collection[str], traced: bool
) -> list[Overlap]:
    """The cells that ``overlap.cells`` names, each once a device.

    Args:
        here: Devices that the study is measured on; of others records are read.
        traced: Whether anything here records captures.
    """
    planned = []
    for cell in cells:
        if cell.aa_of or not asked_of(config, cell.identity):
            continue
        one = Overlap(cell.device, cell.runtime, cell.model, cell.precision, str(cell.shape), cell.available)
        if one.device is None:
            planned.append(one)
            continue
        names = {name: getattr(one, name) for name in KEY}
        folder = paths.overlap(**names)
        runs = tuple(f"{folder}/run{number}.json" for number in range(1, config["protocol"]["processes"] + 1))
        there = leading(runs)
        hidden = f"{folder}/hidden.json"
        # Made on another machine, or in another environment.
        if cell.recorded or one.device not in here or (not cell.available and there):
            if there:
                kept = hidden if Path(hidden).is_file() else None
                planned.append(dataclasses.replace(one, runs=there, hidden=kept, recorded=True))
        elif cell.available:
            planned.append(dataclasses.replace(one, runs=runs, hidden=hidden if traced else None))
        else:
            planned.append(one)
    return planned


def asked_of(config: Mapping[str, Any], identity: str) -> bool:
    """Whether ``overlap.cells`` names a cell."""
    return any(fnmatch.fnmatchcase(identity, pattern) for pattern in config["overlap"]["cells"])


def why_not(runtime: Runtime) -> str | None:
    """Why copies of a runtime cannot be put beside its compute; None where they can."""
    if runtime.device == "cpu":
        return "runs on the CPU, where nothing is copied"
    if not runtime.options.get("io_binding", True):
        return "copies within the call that computes, and waits"
    if runtime.options.get("mode") == "compile":
        return "holds compiled code that belongs to one thread and stream"
    if runtime.module not in ON_GIVEN_STREAMS:
        return "is not launched on streams that it is given, with buffers for each"
    return None


def problems(config: Mapping[str, Any], models: StudyModels, cells: Sequence[Asked]) -> Iterator[str]:
    """What of ``overlap`` cannot be."""
    known = {cell.identity: cell for cell in cells}
    for pattern in config["overlap"]["cells"]:
        fitting = fnmatch.filter(known, pattern)
        if not fitting:
            yield f"overlap.cells: {pattern!r} fits no cell of the study, {nearest(pattern, known)}"
        for runtime in dict.fromkeys(known[name].runtime for name in fitting):
            if reason := why_not(RUNTIMES[runtime]):
                yield f"overlap.cells: {pattern!r} fits {runtime}, which {reason}; {ELSEWHERE}"
        for model in dict.fromkeys(known[name].model for name in fitting):
            if TASKS[models.outline(model).task].generates:
                yield f"overlap.cells: {pattern!r} fits {model!r}, which generates text; name others"
