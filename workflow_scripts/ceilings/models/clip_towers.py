"""The two towers of a CLIP or an OpenCLIP. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLIP_TOWERS = {"image-embedding": "clip_vision_model", "sentence-embedding": "clip_text_model"}
"""``model_type`` of the tower that does a task."""

INNER = {"image-embedding": "vision_config", "sentence-embedding": "text_config"}
"""Where the configuration of a whole CLIP has its towers'."""


OPEN_CLIP_INNER = {"image-embedding": "vision_cfg", "sentence-embedding": "text_cfg"}
"""The same of an OpenCLIP."""


def with_tower_sizes(config: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The configuration of a model; of one with two towers, what the tower of the task has replaces its entries."""
    merged = dict(config)
    for inner in (INNER, OPEN_CLIP_INNER):
        if isinstance(sizes := config.get(inner.get(task, "")), Mapping):
            merged |= sizes
    return merged


def tower_config(config: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The configuration of one tower of a whole CLIP; that of a tower as it is."""
    if config.get("model_type") != "clip":
        return dict(config)
    tower = dict(config.get(INNER[task]) or {})
    if "projection_dim" in config:
        tower["projection_dim"] = config["projection_dim"]
    return tower
