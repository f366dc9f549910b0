"""The runtimes that a study can name. Standard library only: read while the workflow is parsed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ceilings.engines.catalogue import BUILDERS

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
"""Every precision that a study can name. tf32 is fp32's graph with TF32 matrix units allowed."""

MINIMUM_CAPABILITY = {"tf32": (8, 0), "bf16": (8, 0), "fp8": (8, 9)}
"""CUDA compute capability from which on a precision has hardware; absent: any."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """One way to execute a model.

    Attributes:
        name: As the study, the paths and the tables call it.
        device: Where it runs.
        module: The module below ``ceilings.runtimes`` that holds its ``Runner``.
        executes: ``weights`` (a PyTorch module), ``plain`` or ``fused`` (an ONNX variant), ``engine`` (built from a
            plain variant), ``engine-cache`` (a plain variant, with the engine that the runtime itself built and kept).
        precisions: The precisions that it can run.
        packages: Distributions that it needs, ``a|b`` for either; their versions are part of what is measured.
        options: Passed to the runner as they are.
        builder: What builds the engine, a name of ``ceilings.engines.catalogue``; None where there is none.
        engine: Which engine: ``static`` (of exactly the cell's shape), ``profile`` (the first of the study's named
            profiles that takes the shape), ``external`` (one that the study names with its digest).
        floats: What the part of an int8 or fp8 graph that is not quantised computes in; always fp16 in engines.
        library: Shared library that must be loadable, by its soname; None where a package's presence says it all.
        capabilities: CUDA compute capabilities that it runs on, as patterns such as ``12.*``; empty: any.
        note: What it is, for the documentation.
    """

    name: str
    device: Literal["cpu", "cuda"]
    module: str
    executes: Literal["weights", "plain", "fused", "engine", "engine-cache"]
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    note: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    builder: str | None = None
    engine: Literal["static", "profile", "external"] = "static"
    floats: Literal["fp32", "fp16"] = "fp32"
    library: str | None = None
    capabilities: tuple[str, ...] = ()

    @property
    def environment(self) -> str:
        """The environment of ``envs/`` that has its packages: each generation of TensorRT needs one of its own."""
        if self.builder:
            return self.builder
        if self.module == "onnxruntime_tensorrt":
            return "tensorrt10"
        if self.module == "onnxruntime_tensorrt_rtx":
            return "onnxruntime-tensorrt-rtx"
        return "gpu" if self.device == "cuda" else "cpu"


_TORCH = ("torch", "transformers", "safetensors")
_TORCH_CUDA = (*_TORCH, "cuda-bindings")
_ORT_CPU = ("onnxruntime|onnxruntime-gpu",)
_ORT_CUDA = ("onnxruntime-gpu", "cuda-bindings")
_FLOATS = ("fp32", "tf32", "fp16", "bf16")
_GRAPHS = ("fp32", "tf32", "fp16", "bf16", "int8")
_FUSABLE = ("fp32", "tf32", "fp16")
_LIBRARIES = {
    "tensorrt10": "libnvinfer.so.10",
    "tensorrt11": "libnvinfer.so.11",
    "tensorrt-rtx": "libtensorrt_rtx.so.1",
}
_RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.*")


def _torch(name: str, note: str, **options: Any) -> Runtime:
    """PyTorch on a GPU."""
    return Runtime(name, "cuda", "torch_cuda", "weights", _FLOATS, _TORCH_CUDA, note, options)


def _ort(
    name: str, executes: Literal["plain", "fused"], precisions: tuple[str, ...], note: str, **options: Any
) -> Runtime:
    """ONNX Runtime on a GPU."""
    return Runtime(name, "cuda", "onnxruntime_cuda", executes, precisions, _ORT_CUDA, note, options)


def _tensorrt(
    name: str, builder: str, note: str, engine: Literal["static", "profile", "external"] = "static", **options: Any
) -> Runtime:
    """TensorRT, natively."""
    return Runtime(
        name,
        "cuda",
        "tensorrt_native",
        "engine",
        PRECISIONS,
        ("|".join(BUILDERS[builder].distributions), "pycuda", "cuda-bindings"),
        note,
        {"builder": builder, **options},
        builder=builder,
        engine=engine,
        floats="fp16",
        library=_LIBRARIES[builder],
        capabilities=_RTX_CAPABILITIES if builder == "tensorrt-rtx" else (),
    )


def _ort_tensorrt(name: str, note: str, **options: Any) -> Runtime:
    """ONNX Runtime on its TensorRT EP."""
    return Runtime(
        name,
        "cuda",
        "onnxruntime_tensorrt",
        "engine-cache",
        PRECISIONS,
        _ORT_CUDA,
        note,
        options,
        floats="fp16",
        library=_LIBRARIES["tensorrt10"],
    )


_ALL = (
    Runtime("torch-eager", "cpu", "torch_cpu", "weights", ("fp32", "bf16"), _TORCH, "PyTorch, operator by operator"),
    Runtime(
        "torch-int8-dynamic",
        "cpu",
        "torch_cpu",
        "weights",
        ("int8",),
        _TORCH,
        "PyTorch, linear layers in INT8 with activation ranges taken at run time",
        {"quantize": "dynamic"},
    ),
    Runtime("onnxruntime-cpu", "cpu", "onnxruntime_cpu", "plain", ("fp32", "int8"), _ORT_CPU, "ORT's CPU EP"),
    _torch("torch-cuda-eager", "PyTorch, kernel by kernel", mode="eager"),
    _torch("torch-compile", "torch.compile", mode="compile", compile_mode="default"),
    _torch(
        "torch-compile-reduce-overhead",
        "torch.compile with CUDA graphs",
        mode="compile",
        compile_mode="reduce-overhead",
    ),
    _torch(
        "torch-compile-max-autotune",
        "torch.compile with CUDA graphs and kernels chosen by timing",
        mode="compile",
        compile_mode="max-autotune",
    ),
    _torch("torch-cudagraph", "PyTorch's eager kernels, captured into one CUDA graph", mode="cudagraph"),
    _ort("onnxruntime-cuda", "plain", _GRAPHS, "ORT's CUDA EP with IO binding"),
    _ort("onnxruntime-cuda-noio", "plain", _GRAPHS, "ORT's CUDA EP called with host arrays", io_binding=False),
    _ort(
        "onnxruntime-cuda-dynamic",
        "plain",
        _GRAPHS,
        "ORT's CUDA EP with symbolic axes, after other shapes have run",
        dynamic=True,
    ),
    _ort("onnxruntime-cuda-graph", "plain", _GRAPHS, "ORT's CUDA EP replaying a CUDA graph", cuda_graph=True),
    _ort("onnxruntime-cuda-fused", "fused", _FUSABLE, "ORT's CUDA EP on fused operators"),
    _ort(
        "onnxruntime-cuda-fused-graph",
        "fused",
        _FUSABLE,
        "ORT's CUDA EP on fused operators, replaying a CUDA graph",
        cuda_graph=True,
    ),
    _tensorrt("tensorrt", "tensorrt11", "TensorRT 11, an engine for the shape"),
    _tensorrt("tensorrt-graph", "tensorrt11", "TensorRT 11, replaying a CUDA graph", cuda_graph=True),
    _tensorrt("tensorrt-profile", "tensorrt11", "TensorRT 11, an engine for a range of shapes", "profile"),
    _tensorrt("tensorrt-trtexec", "tensorrt11", "TensorRT 11, an engine that trtexec built", "external"),
    _tensorrt("tensorrt10", "tensorrt10", "TensorRT 10, an engine for the shape: what ORT's TensorRT EP runs inside"),
    _tensorrt("tensorrt10-graph", "tensorrt10", "TensorRT 10, replaying a CUDA graph", cuda_graph=True),
    _ort_tensorrt("onnxruntime-tensorrt", "ORT's TensorRT EP with IO binding"),
    _ort_tensorrt("onnxruntime-tensorrt-graph", "ORT's TensorRT EP replaying a CUDA graph", cuda_graph=True),
    _tensorrt("tensorrt-rtx", "tensorrt-rtx", "TensorRT for RTX, an engine for the shape"),
    _tensorrt("tensorrt-rtx-graph", "tensorrt-rtx", "TensorRT for RTX, replaying a CUDA graph", cuda_graph=True),
    Runtime(
        "onnxruntime-tensorrt-rtx",
        "cuda",
        "onnxruntime_tensorrt_rtx",
        "plain",
        PRECISIONS,
        (
            "onnxruntime|onnxruntime-gpu",
            "onnxruntime-ep-nv-tensorrt-rtx-cu13|onnxruntime-ep-nv-tensorrt-rtx-cu12",
            "cuda-bindings",
        ),
        "ORT with the TensorRT RTX plugin EP",
        floats="fp16",
        capabilities=("8.6", "8.9", "12.*"),
    ),
)

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in _ALL}
"""Every runtime by name."""
