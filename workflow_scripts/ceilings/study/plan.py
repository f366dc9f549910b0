"""``plan.json``: what a study measures where, written down for everything that reads its results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings import SCHEMA_VERSION
from ceilings.host import Host
from ceilings.study.cell import Cell
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import left_out

SHORT = 400
"""Characters of a section that is shown as it is."""


def plan(
    config: Mapping[str, Any],
    host: Host,
    models: StudyModels,
    cells: Sequence[Cell],
    trace_source: tuple[str | None, str | None],
    *,
    lacking: Sequence[Mapping[str, Any]] = (),
    predictions: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The content of ``plan.json``.

    Args:
        config: The study, checked, with its defaults.
        host: This machine.
        models: The models of the study.
        cells: Its cells.
        trace_source: What records captures here, and why nothing does.
        lacking: What of the catalogue cannot run here, asked for or not.
        predictions: What was predicted of its cells before they were measured.
    """
    devices: list[dict[str, Any]] = [  # whose names this machine knows; those of others stand in their records
        {"slug": host.cpu_slug, "kind": "cpu", "name": host.cpu_name, "cores": host.cores}
    ]
    if host.gpu:
        devices.append({"kind": "cuda", **dataclasses.asdict(host.gpu)})
    content = {
        "schema_version": SCHEMA_VERSION,
        "study": config["study"],
        "seed": config["seed"],
        "devices": devices,
        "protocol": config["protocol"],
        "lengths": config["inputs"]["lengths"],
        "traces": {**config["traces"], "source": trace_source[0], "reason": trace_source[1]},
        "price_per_hour": config["price_per_hour"],
        "targets": config["targets"],
        "baseline": config["baseline"],
        "models": {name: _model(models, name) for name in dict.fromkeys(cell.model for cell in cells)},
        "left_out": left_out(config),
        "lacking": list(lacking),
        "predictions": list(predictions),
        "cells": [cell.to_json() for cell in cells],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def in_short(plan: str) -> list[str]:
    """A line for each section of ``plan.json`` and for each sweep: as it is, or a digest.

    Args:
        plan: Its content.
    """
    sections: dict[str, Any] = json.loads(plan)
    sweeps: dict[str, list[Any]] = {}
    for cell in sections.pop("cells"):
        for sweep in cell["sweeps"]:
            sweeps.setdefault(f"cells of sweeps.{sweep}", []).append(cell)
    models = {f"models.{name}": value for name, value in sections.pop("models").items()}
    lines = [_in_short(key, value) for key, value in {**sections, **models, **sweeps}.items()]
    return [*lines, f"plan.json: {_digest(plan)}"]


def _in_short(key: str, value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    if len(text) <= SHORT:
        return f"{key}: {text}"
    count = f"{len(value)}, " if isinstance(value, list) else ""
    return f"{key}: {count}{_digest(text)}"


def _digest(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _model(models: StudyModels, name: str) -> dict[str, Any]:
    definition, outline = models.definition(name), models.outline(name)
    weights = {"path": definition.path} if definition.path and definition.weights != "random" else definition.weights
    return {
        "architecture": outline.architecture,
        "task": outline.task,
        "family": outline.family,
        "weights": {"onnx": definition.onnx} if definition.onnx else weights,
        "largest": {**outline.limits, **models.fixed_axes(name)},
    }
