"""A cell made ready from its task: the same for a process that measures and for one that is captured."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ceilings.models import pool
from ceilings.runtimes.base import Runner
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

CELL = ("device", "runtime", "model", "precision", "shape")
"""Keys of a task's ``cell``, all strings: they name it in a record."""


def artifact_file(task: Mapping[str, Any]) -> Path:
    """The file that a task's artifact is: of a folder of weights, the weights."""
    artifact = Path(task["artifact"])
    return artifact / "model.safetensors" if artifact.is_dir() else artifact


def read_pool(task: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
    """The elements of the input pool that a task names, each an array of every input."""
    return pool.elements(pool.load_pool(task["inputs"]))


def pool_facts(task: Mapping[str, Any]) -> dict[str, Any]:
    """Where the inputs of a task come from, and the share of their tokens that are no padding; None if not known."""
    content = pool.load(task["inputs"])
    share, source = content.get("real_share"), content.get("source")
    return {
        "source": None if source is None else str(source),
        "real_share": None if share is None else float(share),
    }


def make_runner(task: Mapping[str, Any]) -> Runner:
    """The runner of a task's cell, not loaded yet.

    Args:
        task: With ``cell`` (``precision`` and ``shape``), ``spec`` (``module``, ``threads``, ``options``), and the
            paths ``artifact`` and ``workload``.
    """
    spec, cell = task["spec"], task["cell"]
    module = importlib.import_module(f"ceilings.runtimes.{spec['module']}")
    runner: Runner = module.RUNNER(
        Path(task["artifact"]),
        cell["precision"],
        Workload.read(task["workload"]),
        Shape.parse(cell["shape"]),
        spec["threads"],
        spec["options"],
    )
    return runner
