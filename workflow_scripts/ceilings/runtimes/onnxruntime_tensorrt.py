"""ONNX Runtime on its TensorRT execution provider, starting from an engine that the provider kept."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime

from ceilings import gpu
from ceilings.engines import cache, libraries
from ceilings.errors import CellFailure
from ceilings.runtimes import placement
from ceilings.runtimes.onnxruntime_cuda import WITHOUT, OnnxRuntimeCuda
from ceilings.runtimes.onnxruntime_session import open_session, session_options
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
TF32_SWITCH = "NVIDIA_TF32_OVERRIDE"
"""The provider has no option for TF32, which TensorRT allows unless it is forbidden. 0 in this variable forbids it to
NVIDIA's libraries, TensorRT's builder among them; it must be set before they are loaded."""


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """Executes an ONNX variant as one TensorRT engine. Options: ``cuda_graph`` (ORT captures and replays).

    ``artifact`` is the record that building the engine left. The graph is the typed one with dynamic axes, and the
    engine has one profile of exactly the cell's shape, as the native runtimes' have. Neither the CUDA provider nor the
    CPU's may take a node.
    """

    provider = "TensorrtExecutionProvider"

    plan: cache.Plan
    kept: dict[str, Any]

    def load(self) -> None:
        self._take_plan()
        before = cache.contents(self.plan.folder)
        super().load()
        changed = sorted(name for name, facts in cache.contents(self.plan.folder).items() if before.get(name) != facts)
        if changed:
            raise CellFailure("engine-incompatible", f"the provider built anew: it wrote {', '.join(changed)}")

    def _take_plan(self) -> None:
        device = gpu.visible().slug
        self.kept, self.plan = cache.load(self.artifact, device=device, versions=self.versions())

    def versions(self) -> dict[str, str | None]:
        """Of what makes and reads an engine."""
        return {"onnxruntime": onnxruntime.__version__, LIBRARIES[0]: libraries.version(LIBRARIES[0])}

    def _preload(self) -> str:
        if self.precision == "tf32":
            os.environ.pop(TF32_SWITCH, None)
        else:
            os.environ[TF32_SWITCH] = "0"
        others = super()._preload()
        return " ".join(filter(None, (*_load_tensorrt(), others)))

    def _options(self) -> onnxruntime.SessionOptions:
        return session_options(1)

    def _session(self, options: onnxruntime.SessionOptions, graph: bool = False) -> onnxruntime.InferenceSession:
        settings = provider_options(self.plan, shapes(self.workload, self.shape), self.stream.handle, graph)
        return open_session(self.plan.graph, options, [(self.provider, settings)], WITHOUT, retry=False)

    def _refuse_fallback(self) -> None:
        super()._refuse_fallback()
        placement.require_one_partition(self.session, self.provider)

    def _explain(self, error: Exception) -> CellFailure | None:
        return super()._explain(error) or tensorrt_failure(error, self._libraries)

    def facts(self) -> dict[str, Any]:
        """The provider's options, and what it took."""
        options = dict(self.session.get_provider_options().get(self.provider) or {})
        options.pop("user_compute_stream", None)  # an address
        nodes = placement.assigned(self.session)
        return {"options": options, "partitions": 1, "nodes": len(nodes), "tf32_switch": os.environ.get(TF32_SWITCH)}

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "engine_cache": {
                "hit": True,  # else loading had raised
                "files": sorted(self.kept["files"]),
                "first_start_ns": self.kept["cold_start_ns"],
            },
            "provider": self.facts(),
        }


class Builder(OnnxRuntimeTensorRt):
    """The same, from an empty folder: the provider builds the engine while the session opens."""

    def __init__(self, plan: cache.Plan, precision: str, workload: Workload, shape: Shape) -> None:
        super().__init__(Path(plan.graph), precision, workload, shape, 1, {})
        self.plan = plan

    def load(self) -> None:
        OnnxRuntimeCuda.load(self)


def shapes(workload: Workload, shape: Shape) -> str:
    """Every input with its dimensions, as the provider takes them.

    >>> from ceilings.workload.task import TASKS
    >>> from ceilings.workload.tensors import TensorSpec
    >>> image = TensorSpec("pixel_values", "float32", ("batch", 3, "image", "image"))
    >>> shapes(Workload(TASKS["image-embedding"], (image,), ()), Shape.parse("b2-i224"))
    'pixel_values:2x3x224x224'
    """
    return ",".join(
        f"{tensor.name}:{'x'.join(map(str, sizes))}" for tensor in workload.inputs if (sizes := tensor.sizes(shape))
    )


def provider_options(plan: cache.Plan, one_shape: str, stream: int, cuda_graph: bool) -> Mapping[str, str]:
    """All that shapes an engine or a run, also where it is the default.

    fp16, bf16 and int8 are off, so that the typed graph alone says what computes in which type. According to the change
    that brought it (pull request 19695 of microsoft/onnxruntime, 2024) the provider then makes a strongly typed
    network. That it takes these options is tested; which network it makes of them was not seen: that takes TensorRT.

    Args:
        plan: Graph, folders and the builder's settings.
        one_shape: What the only optimisation profile takes, of :func:`shapes`.
        stream: Handle of the stream to run on.
        cuda_graph: Whether the provider captures and replays.
    """
    return {
        "device_id": "0",
        "user_compute_stream": str(stream),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": plan.folder,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": plan.timing_cache,
        "trt_force_timing_cache": "False",
        "trt_profile_min_shapes": one_shape,
        "trt_profile_opt_shapes": one_shape,
        "trt_profile_max_shapes": one_shape,
        "trt_builder_optimization_level": str(plan.optimization_level),
        "trt_max_workspace_size": str((plan.workspace_mb or 0) << 20),
        "trt_fp16_enable": "False",
        "trt_bf16_enable": "False",
        "trt_int8_enable": "False",
        "trt_layer_norm_fp32_fallback": "False",
        "trt_min_subgraph_size": "1",
        "trt_context_memory_sharing_enable": "False",
        "trt_cuda_graph_enable": str(cuda_graph),
    }


def tensorrt_failure(error: Exception, missing: str = "") -> CellFailure | None:
    """What an exception of the provider says about the cell; None if it is not the provider's.

    Args:
        missing: The libraries that could not be loaded, in the linker's words.
    """
    text = " ".join(str(error).split())
    if "install TensorRT libraries" in text or "Provider not available" in text:
        why = missing or text[-200:]
        return CellFailure("fallback", f"ONNX Runtime could not load its TensorRT provider: {why}"[:600])
    if "could not deserialize engine" in text or "failed to deserialize engine" in text.lower():
        return CellFailure("engine-incompatible", text[:300])
    if "build engine" in text.lower() or "failed to create engine" in text:
        return CellFailure("build-failed", text[:300])
    if type(error).__name__ == "EPFail" or re.search(r"TensorRT.?RTX|TensorRT EP", text):
        return CellFailure("runtime-error", text[:300])
    return None


def _load_tensorrt() -> list[str]:
    """Load TensorRT's libraries where the provider's own search would not find them; what could not be loaded."""
    with contextlib.suppress(ImportError):
        importlib.import_module(libraries.PACKAGES[0])  # the vendor's package loads what belongs together
    refused = []
    for name in LIBRARIES:
        try:
            ctypes.CDLL(str(libraries.find(name) or name), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            refused.append(str(error))
    return refused


RUNNER = OnnxRuntimeTensorRt
