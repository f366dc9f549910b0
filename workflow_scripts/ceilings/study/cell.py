"""What a cell is: one thing to measure."""

from __future__ import annotations

import dataclasses
from typing import Any

from ceilings.runtimes.catalogue import RUNTIMES, Runtime
from ceilings.study.availability import Availability

TWIN = ".twin"
"""Suffix of the runtime's name in the second of the two cells of an A/A pair."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A static input shape."""

    batch: int
    sequence: int

    def __str__(self) -> str:
        return f"b{self.batch}-s{self.sequence}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing to measure: a model, as a runtime executes it, at a precision and a shape, on a device.

    Attributes:
        runtime: Name of the runtime, with ``.twin`` for the second of an A/A pair.
        device: Slug of the device that runs it; None if this machine has none of its kind.
        sweeps: The sweeps of the study that ask for it.
        available: Whether it can be measured here.
        runs: Its run records, one for each fresh process; empty if it can neither be measured nor was recorded.
        floor: The record of the least time that its device allows; None where nothing bounds it.
        engine: The record of the engine that it executes, which says what its layers compute in; None without one.
        budget: Its budget, if the study asks for a capture of it and one can be made or was.
        recorded: Whether these were made earlier, on another device or in another environment; they are only read.
    """

    device: str | None
    runtime: str
    model: str
    precision: str
    shape: Shape
    sweeps: tuple[str, ...]
    available: Availability
    runs: tuple[str, ...]
    floor: str | None = None
    engine: str | None = None
    budget: str | None = None
    recorded: bool = False

    @property
    def twin_of(self) -> str | None:
        """The runtime whose A/A twin this is, if it is one."""
        return self.runtime.removesuffix(TWIN) if self.runtime.endswith(TWIN) else None

    @property
    def identity(self) -> str:
        """As a study names it: without its device."""
        return f"{self.runtime}/{self.model}/{self.precision}/{self.shape}"

    @property
    def spec(self) -> Runtime:
        """The runtime that executes it."""
        return RUNTIMES[self.twin_of or self.runtime]

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``plan.json``."""
        return {
            "device": self.device,
            "runtime": self.runtime,
            "twin_of": self.twin_of,
            "model": self.model,
            "precision": self.precision,
            "batch": self.shape.batch,
            "sequence": self.shape.sequence,
            "sweeps": list(self.sweeps),
            "available": bool(self.available),
            "reason": self.available.reason,
            "remedy": self.available.remedy,
            "runs": list(self.runs),
            "floor": self.floor,
            "engine": self.engine,
            "budget": self.budget,
        }
