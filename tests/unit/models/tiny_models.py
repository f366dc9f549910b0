"""Definitions of tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ceilings.models import definition

DISTILBERT = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 64,
    "vocab_size": 500,
    "max_position_embeddings": 64,
}
Checkpoint = Callable[..., tuple[Path, Any]]


def tiny(**changes: object) -> definition.Definition:
    value = {"architecture": "distilbert", "weights": "random", "seed": 0, "config": DISTILBERT}
    return definition.read("tiny", {**value, **changes})


def of_path(path: Path, **changes: object) -> definition.Definition:
    return definition.read("tiny", {"path": str(path), **changes})
