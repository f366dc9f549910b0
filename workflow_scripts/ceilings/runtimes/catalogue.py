"""The runtimes that a study can name. Standard library only: read while the workflow is parsed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

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
        executes: ``weights`` (a PyTorch module), ``plain`` or ``fused`` (an ONNX variant).
        precisions: The precisions that it can run.
        packages: Distributions that it needs; their versions are part of what is measured.
        options: Passed to the runner as they are.
        note: What it is, for the documentation.
    """

    name: str
    device: Literal["cpu", "cuda"]
    module: str
    executes: Literal["weights", "plain", "fused"]
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    note: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_TORCH = ("torch", "transformers", "safetensors")
_TORCH_CUDA = (*_TORCH, "cuda-bindings")
_ORT_CUDA = ("onnxruntime-gpu", "cuda-bindings")
_FLOATS = ("fp32", "tf32", "fp16", "bf16")
_GRAPHS = ("fp32", "tf32", "fp16", "bf16", "int8")
_FUSABLE = ("fp32", "tf32", "fp16")

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
    Runtime("onnxruntime-cpu", "cpu", "onnxruntime_cpu", "plain", ("fp32", "int8"), ("onnxruntime",), "ORT's CPU EP"),
)

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in _ALL}
"""Every runtime by name."""
