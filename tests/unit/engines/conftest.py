"""Tiny typed graphs, and the one builder that runs without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.engines.variants import Variants

from ceilings.engines.catalogue import BUILDERS

RTX = BUILDERS["tensorrt-rtx"]
GRAPHS = ("fp32", "fp16", "bf16", "int8", "fp8", "int8.plain", "int8.kept")


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What engines are built from, by precision."""
    variants = Variants(tmp_path_factory.mktemp("distilbert"))
    return {name: variants.save(name) for name in GRAPHS}


@pytest.fixture(scope="session")
def spec() -> Callable[..., dict[str, Any]]:
    """The slice of a study that an engine of tensorrt-rtx depends on."""
    if not RTX.installed():
        pytest.skip(f"{RTX.distributions[0]} {RTX.major}.* is not installed")

    def make(name: str = "b1-s32", **changes: Any) -> dict[str, Any]:
        return {
            "name": name,
            "builder": RTX.name,
            "version": RTX.installed(),
            "gpu": None,
            "capability": [8, 9],
            "profiles": [{"batch": [1, 1, 1], "sequence": [32, 32, 32]}],
            "optimization_level": 3,
            "workspace_mb": None,
            "version_compatible": False,
            "hardware_compatibility": "none",
            "timing_cache": None,
            "tf32": False,
            **changes,
        }

    return make
