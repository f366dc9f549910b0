"""What a cell is: one thing to measure."""

from __future__ import annotations

import dataclasses
from typing import Any

from ceilings import private
from ceilings.runtimes.catalogue import RUNTIMES, Runtime
from ceilings.study.availability import Availability
from ceilings.workload.shape import Shape

SECOND = ".aa"
"""Suffix of the runtime's name in the second of the two cells of an A/A pair."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing to measure: a model, as a runtime executes it, at a precision and a shape, on a device.

    Attributes:
        device: Slug of the device that runs it; None if this machine has none of its kind.
        runtime: Name of the runtime, with ``.aa`` for the second of an A/A pair.
        sweeps: The sweeps of the study that ask for it.
        available: Whether it can be measured here.
        runs: Its run records, one for each fresh process; empty if it can neither be measured nor was recorded.
        floor: The record of the least time that its device allows; None where nothing bounds it.
        engine: The record of the engine that it executes, which says what its layers compute in; None without one.
        budget: Its budget, if the study asks for a capture of it and one can be made or was.
        counters: What limits its kernels by hardware counters, if the study asks for that and it can be had or was.
        quality: The record of its answers to rows of data, if the study asks for that.
        texts: What the reference finds in the texts that it generated; None of what generates nothing.
        recorded: Whether these were made earlier, on another device or in another environment; they are only read.
    """

    device: str | None
    runtime: str
    model: str
    precision: str
    shape: Shape
    sweeps: tuple[str, ...]
    available: Availability
    runs: tuple[str, ...] = ()
    floor: str | None = None
    engine: str | None = None
    budget: str | None = None
    counters: str | None = None
    quality: str | None = None
    texts: str | None = None
    recorded: bool = False

    @property
    def aa_of(self) -> str | None:
        """The runtime of the first cell of the A/A pair whose second this is, if it is one."""
        return self.runtime.removesuffix(SECOND) if self.runtime.endswith(SECOND) else None

    @property
    def identity(self) -> str:
        """As a study names it: without its device."""
        return f"{self.runtime}/{self.model}/{self.precision}/{self.shape}"

    @property
    def spec(self) -> Runtime:
        """The runtime that executes it."""
        return RUNTIMES[self.aa_of or self.runtime]

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``plan.json``."""
        return {
            "device": self.device,
            "runtime": self.runtime,
            "stack": self.spec.stack,
            "levers": sorted(self.spec.levers),
            "artifact": self.spec.artifact,
            "aa_of": self.aa_of,
            "model": self.model,
            "precision": self.precision,
            "shape": str(self.shape),
            "axes": dict(self.shape.sizes),
            "lengths": self.shape.lengths,
            "sweeps": list(self.sweeps),
            "available": bool(self.available),
            "reason": private.anonymous(self.available.reason),
            "remedy": private.anonymous(self.available.remedy),
            "recorded": self.recorded,
            "runs": list(self.runs),
            "floor": self.floor,
            "engine": self.engine,
            "budget": self.budget,
            "counters": self.counters,
            "quality": self.quality,
            "texts": self.texts,
        }
