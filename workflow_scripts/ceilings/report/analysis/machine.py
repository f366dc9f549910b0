"""What the machine that would measure can do, as the plan has it: advice must not name what it cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Machine:
    """The machine that would measure.

    Attributes:
        devices: Slugs of its devices; empty: unknown.
        lacking: (runtime, model, precision) of what it cannot run, to the reason with its remedy.
        largest: (model, axis) to the largest size of the axis, where there is one.
    """

    devices: frozenset[str] = frozenset()
    lacking: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    largest: Mapping[tuple[str, str], int] = field(default_factory=dict)


UNKNOWN = Machine()


def machine_of(plan: Mapping[str, Any]) -> Machine:
    """The machine of a ``plan.json``; what an older one does not say is unknown."""
    devices = {device.get("slug") for device in plan["devices"]} - {None}
    lacking = {
        tuple(cell.split("/")): "; ".join(filter(None, (entry["reason"], entry["remedy"])))
        for entry in plan.get("lacking", ())
        for cell in entry["cells"]
    }
    largest = {
        (model, axis): size for model, one in plan["models"].items() for axis, size in one.get("largest", {}).items()
    }
    return Machine(frozenset(devices), lacking, largest)
