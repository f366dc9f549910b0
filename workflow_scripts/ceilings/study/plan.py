"""``plan.json``: what a study measures where, written down for everything that reads its results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ceilings import files, private, records
from ceilings.host import Host
from ceilings.study.batch_searches import BatchSearch
from ceilings.study.cell import Cell
from ceilings.study.changing_cells import ChangingCell
from ceilings.study.colocations import Colocation
from ceilings.study.deployments import Deployed
from ceilings.study.overlaps import Overlap
from ceilings.study.study_models import StudyModels
from ceilings.study.sweeps import left_out

SHORT = 400
"""Characters of a section that is shown as it is."""


def plan(
    config: Mapping[str, Any],
    hosts: Sequence[Host],
    models: StudyModels,
    cells: Sequence[Cell],
    trace_source: tuple[str | None, str | None],
    *,
    counters_lack: str | None = None,
    lacking: Sequence[Mapping[str, Any]] = (),
    predictions: Sequence[Mapping[str, Any]] = (),
    changing: Sequence[ChangingCell] = (),
    changes: Sequence[Mapping[str, Any]] = (),
    searches: Sequence[BatchSearch] = (),
    deployed: Sequence[Deployed] = (),
    colocated: Sequence[Colocation] = (),
    overlaps: Sequence[Overlap] = (),
    transfers: Sequence[str] = (),
) -> str:
    """The content of ``plan.json``.

    Args:
        config: The study, checked, with its defaults.
        hosts: The machines that measure.
        models: The models of the study.
        cells: Its cells.
        trace_source: What records captures here, and why nothing does.
        counters_lack: Why no hardware counters are read here.
        lacking: What of the catalogue cannot run here, asked for or not.
        predictions: What was predicted of its cells before they were measured.
        changing: Its cells of changing shapes.
        changes: Those of them that are captured, with their records.
        searches: Its searches for the best batch.
        deployed: Its deployments.
        colocated: Its co-locations.
        overlaps: Its cells whose copies are run beside their compute.
        transfers: The records of transfers between hosts and their GPUs.
    """
    devices: dict[str, dict[str, Any]] = {}  # whose names are known here; those of others stand in their records
    for host in hosts:
        cpu = {"slug": host.cpu_slug, "kind": "cpu", "name": host.cpu_name, "cores": host.cores}
        devices.setdefault(host.cpu_slug, cpu)
        if host.gpu:
            devices.setdefault(host.gpu.slug, {"kind": "cuda", **dataclasses.asdict(host.gpu)})
    content = {
        "study": config["study"],
        "seed": config["seed"],
        "devices": list(devices.values()),
        "protocol": config["protocol"],
        "tolerances": config["parity"],
        "lengths": {name: _lengths(given) for name, given in config["inputs"]["lengths"].items()},
        "traces": {
            **config["traces"],
            "source": trace_source[0],
            "reason": trace_source[1],
            "counters": {**config["traces"]["counters"], "reason": counters_lack},
        },
        "price_per_hour": config["price_per_hour"],
        "targets": config["targets"],
        "baseline": config["baseline"],
        "models": {name: _model(models, name) for name in dict.fromkeys(cell.model for cell in cells)},
        "left_out": left_out(config),
        "lacking": list(lacking),
        "predictions": list(predictions),
    }
    content = private.anonymous(content) | {
        "lacking": list(lacking),
        "predictions": list(predictions),
        "cells": [cell.to_json() for cell in cells],
        **({"changing": [cell.to_json() for cell in changing]} if changing else {}),
        **({"changes": list(changes)} if changes else {}),
        **({"best_batch": [one.to_json() for one in searches]} if searches else {}),
        "serving": [one.to_json() for one in deployed],
        **({"colocation": [one.to_json() for one in colocated]} if colocated else {}),
        **({"overlap": [one.to_json() for one in overlaps]} if overlaps else {}),
        **({"transfers": list(transfers)} if transfers else {}),
    }
    return records.as_text(records.sealed("plan", content))


def in_short(plan: str) -> list[str]:
    """A line for each section of ``plan.json``, for each thing that a sweep varies, and for all: as it is, or a digest.

    Args:
        plan: Its content.
    """
    sections = {key: value for key, value in json.loads(plan).items() if key not in records.SEAL}
    sweeps: dict[str, dict[str, None]] = {}
    for cell in sections.pop("cells"):
        varied = {f"{key}s": cell[key] for key in ("runtime", "model", "precision", "shape")}
        if not cell["available"]:
            varied["cells not measured here"] = cell["reason"]
        for sweep in cell["sweeps"]:
            for key, value in varied.items():
                sweeps.setdefault(f"sweeps.{sweep} {key}", {})[value] = None
    models = {f"models.{name}": value for name, value in sections.pop("models").items()}
    varied = {key: list(values) for key, values in sweeps.items()}
    lines = [_in_short(key, value) for key, value in {**sections, **models, **varied}.items()]
    return [*lines, f"plan.json: {_digest(plan)}"]


def _in_short(key: str, value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    if len(text) <= SHORT:
        return f"{key}: {text}"
    count = f"{len(value)}, " if isinstance(value, list) else ""
    return f"{key}: {count}{_digest(text)}"


def _digest(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _lengths(given: Mapping[str, Any]) -> dict[str, Any]:
    """How long texts are; of a file its last name and its digest."""
    if "file" not in given:
        return dict(given)
    path = files.expanded(given["file"])
    return {"file": path.name, **({"sha256": files.sha256(path)} if path.is_file() else {})}


def _model(models: StudyModels, name: str) -> dict[str, Any]:
    definition, outline = models.definition(name), models.outline(name)
    weights = {"path": definition.source} if definition.path and definition.weights != "random" else definition.weights
    return {
        "architecture": outline.architecture,
        "task": outline.task,
        "family": outline.family,
        "weights": {"onnx": definition.source} if definition.onnx else weights,
        "largest": {**outline.limits, **models.fixed_axes(name)},
    }
