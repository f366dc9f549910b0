"""Records as their writers leave them, and as someone leaves them who edits one and corrects its digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ceilings import records

PROVENANCE = {
    "python": "3.11.9",
    "packages": {"torch": "2.13.0", "onnxruntime": "1.31.1"},
    "modules": {},
    "project_revision": "0123456789ab",
    "sources": {"graph": "ab" * 32},
}


def edit(path: Path | str, **changes: Any) -> None:
    """Change a record and correct its digest, whatever its schema says."""
    overwrite(path, json.loads(Path(path).read_text()) | changes)


def overwrite(path: Path | str, record: Any) -> None:
    """Write any content with the digest that belongs to it."""
    if isinstance(record, dict):
        record = {**record, "digest": records.digest(record)}
    Path(path).write_text(json.dumps(record))


WEIGHTS = {
    "status": "ok",
    "model": "m",
    "architecture": "distilbert",
    "source": "random",
    "why": "the hub is not reachable",
    "hub": None,
    "revision": None,
    "seed": 0,
    "parameters": 66_000_000,
    "limits": {},
    "sha256": "ab" * 32,
    "tokenizer": False,
    "provenance": PROVENANCE,
}

ENGINE = {
    "status": "ok",
    "failure": None,
    "built_by": "pipeline",
    "builder": "tensorrt11",
    "builder_version": "11.4.0.106",
    "precision": "int8",
    "device": "nvidia-h200",
    "gpu": "NVIDIA H200",
    "capabilities": [[9, 0]],
    "name": "b1-s128",
    "profiles": [],
    "version_compatible": False,
    "hardware_compatibility": "none",
    "layers_from": "inspector",
    "summary": {
        "layers": [1],
        "types": {},
        "products": {},
        "reformats": 0,
        "fused": [],
        "attention": {"softmax": 0, "fused": 0},
        "quantized": {"asked": 0, "ran": 0, "elsewhere": {}},
    },
    "seconds": {"build": 2.0},
    "engine_bytes": 6,
    "engine_sha256": "ab" * 32,
    "provenance": PROVENANCE,
}

ENGINE_CACHE = {
    "status": "ok",
    "failure": None,
    "device": "nvidia-double",
    "precision": "fp16",
    "shape": "b1-s8",
    "cold_start_ns": {},
    "provider": None,
    "provenance": PROVENANCE,
}


def weights(folder: Path, **changes: Any) -> None:
    """The ``provenance.json`` of a folder of weights."""
    records.write(folder / "provenance.json", "weights", WEIGHTS | changes)
