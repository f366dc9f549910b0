"""What a study says about one model, checked. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.models.catalogue import ARCHITECTURES, Architecture

SOURCES = ("auto", "pretrained", "random")
KEYS = {"name", "architecture", "hub", "config", "weights", "seed"}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """One model of a study.

    Attributes:
        name: Its slug.
        architecture: A key of ``ARCHITECTURES``.
        config: What differs from the base model's configuration.
        weights: ``auto``, ``pretrained``, ``random``, or the folder they lie in.
        hub: Repository of pretrained weights; None takes the architecture's.
        seed: Of the random weights.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    weights: str | Path
    hub: str | None
    seed: int

    @property
    def family(self) -> Architecture:
        return ARCHITECTURES[self.architecture]

    @property
    def repository(self) -> str:
        return self.hub or self.family.hub


def read(value: Mapping[str, Any]) -> ModelSpec:
    """Check a model's slice of the study.

    Raises:
        UserError: A key or value that is not known.
    """
    unknown = sorted(set(value) - KEYS)
    if unknown:
        raise UserError(f"--model has the unknown key {unknown[0]!r}; known: {', '.join(sorted(KEYS))}")
    name = str(value.get("name", "model"))
    architecture = value.get("architecture")
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"model {name!r} has the unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}"
        )
    weights = value.get("weights", "auto")
    if isinstance(weights, Mapping) and set(weights) == {"path"}:
        weights = Path(str(weights["path"])).expanduser()
    elif weights not in SOURCES:
        raise UserError(
            f'model {name!r} has weights {weights!r}; give one of {", ".join(SOURCES)}, or {{"path": "a folder"}}'
        )
    return ModelSpec(
        name=name,
        architecture=architecture,
        config=dict(value.get("config") or {}),
        weights=weights,
        hub=value.get("hub"),
        seed=int(value.get("seed", 0)),
    )
