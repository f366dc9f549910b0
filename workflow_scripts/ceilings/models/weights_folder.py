"""What a weights folder holds, and what its small files say. Standard library only.

``config.json``, ``model.safetensors``, ``workload.json``, ``provenance.json`` and, where the weights came with them,
``tokenizer.json`` and ``preprocessor_config.json``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ceilings import files, records
from ceilings.errors import CellFailure, UserError
from ceilings.workload import generation
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
PROVENANCE = "provenance.json"
TOKENIZER = "tokenizer.json"
PROCESSOR = "preprocessor_config.json"
REMEDY = "delete the weights folder and run again to make it anew"


def read_config(weights_dir: Path | str) -> dict[str, Any]:
    """The model's configuration; empty for an ONNX file, which has none.

    Raises:
        UserError: Damaged, or another one than the folder was made with.
    """
    path, record = Path(weights_dir, CONFIG), Path(weights_dir, PROVENANCE)
    if not os.path.lexists(path):
        return {}
    config = files.read_json(path, REMEDY)
    if not isinstance(config, dict):
        raise UserError(f"{path} is no JSON object; {REMEDY}")
    if record.is_file() and files.sha256(path) != provenance(weights_dir).get("config_sha256", files.sha256(path)):
        raise UserError(f"{path} is not what was made, by {record}; {records.anew(path)}")
    return config


def provenance(weights_dir: Path | str) -> dict[str, Any]:
    """Where the weights come from, or why there are none.

    Raises:
        UserError: Missing or damaged.
    """
    return records.read(Path(weights_dir, PROVENANCE), "weights")


def digest(weights_dir: Path | str) -> str | None:
    """SHA-256 of the weights as their record has it; None where no record is beside them, or there are none.

    Raises:
        UserError: The record is damaged.
    """
    known = provenance(weights_dir) if Path(weights_dir, PROVENANCE).is_file() else {}
    return known.get("sha256")


def weight_bytes(weights_dir: Path | str) -> int:
    """Size of the file of the weights.

    Raises:
        UserError: There are none.
    """
    path = Path(weights_dir, WEIGHTS)
    if not path.is_file():
        raise UserError(f"{path} does not exist; {REMEDY}")
    return path.stat().st_size


def limits(weights_dir: Path | str) -> dict[str, tuple[int, int]]:
    """Smallest and largest size of the axes that have bounds, as ``provenance.json`` has them.

    Raises:
        CellFailure: The model could not be made.
    """
    record = provenance(weights_dir)
    if failure := record.get("failure"):
        raise CellFailure(failure["kind"], failure["message"])
    return {axis: (low, high) for axis, (low, high) in record.get("limits", {}).items()}


def refuse_impossible(weights_dir: Path | str, shape: Shape) -> None:
    """Refuse a shape that the model cannot take.

    Raises:
        CellFailure: The model could not be made.
        UserError: An axis is larger than the model's, or not its only size, or prompt and generated tokens together
            are more than its positions.
    """
    for axis, (low, high) in limits(weights_dir).items():
        size = shape.get(axis)
        if size is None:
            continue
        if low == high != size:
            raise UserError(f"{axis} {size} is not the {high} that {weights_dir} takes; set it to {high}")
        if size < low:
            raise UserError(f"{axis} {size} is shorter than the {low} that {weights_dir} needs; lengthen it")
        if size > high:
            what = "positions" if axis == "sequence" else axis
            raise UserError(f"{axis} {size} is longer than the {high} {what} of {weights_dir}; shorten it")
    decoder = Workload.read(weights_dir).decoder
    if decoder and decoder.positions and generation.context(shape) > decoder.positions:
        raise UserError(generation.too_long(str(weights_dir), shape, decoder.positions))
