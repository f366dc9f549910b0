"""Tiny typed graphs, and the one builder that runs without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.graphs.conftest import CALIBRATION, Tiny

from ceilings.engines.catalogue import BUILDERS
from ceilings.graphs import calibration, graph, precision, quantize

RTX = BUILDERS["tensorrt-rtx"]


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What engines are built from, by precision; ``int8.plain`` has its rest in FP32."""
    tiny = Tiny("distilbert", tmp_path_factory.mktemp("distilbert"))
    ranges = calibration.calibrate(tiny.simplified, tiny.weights, CALIBRATION, 1)[0]
    kept = quantize.Quantization(keep=["*ffn/lin1/MatMul"])
    models = {name: precision.convert(tiny.model, name)[0] for name in ("fp32", "fp16", "bf16")}
    for name in ("int8", "fp8"):
        models[name] = quantize.quantize(tiny.model, ranges, name, quantize.Quantization(), "fp16").model
    models["int8.plain"] = quantize.quantize(tiny.model, ranges, "int8", quantize.Quantization()).model
    models["int8.kept"] = quantize.quantize(tiny.model, ranges, "int8", kept, "fp16").model
    paths = {name: tiny.folder / f"{name}.onnx" for name in models}
    for name, model in models.items():
        graph.save(model, paths[name])
    return paths


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
