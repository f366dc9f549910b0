"""Stacks that findings ask for by name, and the runtimes of the catalogue that have given levers.

A stack is a value of the column of that name. Cells are chosen by stack and levers; a runtime's name is never read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ceilings.report.analysis.measured_cell import REFERENCE, Cell
from ceilings.runtimes.catalogue import GRAPH, IO_BINDING, RUNTIMES, STATIC

PYTORCH = "PyTorch"
ORT_CPU, ORT_CUDA, ORT_TENSORRT = "onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-tensorrt"
TENSORRT, TENSORRT_RTX, ORT_TENSORRT_RTX = "tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt-rtx"
TENSORRT_STACKS = frozenset(
    {
        *(TENSORRT, "tensorrt-profile", "tensorrt-trtexec", "tensorrt10"),
        *(ORT_TENSORRT, TENSORRT_RTX, ORT_TENSORRT_RTX),
    }
)
"""Everything that executes what TensorRT built."""

TENSORRT_PACKAGES = "tensorrt"
"""What the names of distributions with TensorRT's libraries begin with."""

PROVIDERS = {TENSORRT: ORT_TENSORRT, TENSORRT_RTX: ORT_TENSORRT_RTX}
"""Native TensorRT, and the provider of ONNX Runtime that it is held against."""

DEFAULTS = frozenset({IO_BINDING, STATIC})
"""Levers that a stack which knows them has unless a runtime is there to show what they bring."""


def base_levers(stack: str) -> frozenset[str]:
    """The levers of a stack as it is: those of ``DEFAULTS`` that it knows."""
    return frozenset[str]().union(*(one.levers for one in RUNTIMES.values() if one.stack == stack)) & DEFAULTS


def as_it_is(cell: Cell) -> bool:
    """Whether no lever was pulled on its stack but the precision."""
    return cell.levers == base_levers(cell.stack)


def lower_precisions_only(runtime: str) -> bool:
    """Whether a runtime of the catalogue cannot run in FP32 at all."""
    known = RUNTIMES.get(runtime)
    return known is not None and REFERENCE not in known.precisions


def is_eager(cell: Cell) -> bool:
    """Whether PyTorch runs it operator by operator, with the weights as they are."""
    return cell.stack == PYTORCH and not cell.levers and not lower_precisions_only(cell.runtime)


def like_native(cell: Cell) -> frozenset[str]:
    """Levers of the provider's cell that a native one is held against: a CUDA graph where that has one."""
    return base_levers(PROVIDERS[cell.stack]) | (cell.levers & {GRAPH})


def runtime_of(stack: str, *levers: str, device: str = "cuda", precision: str = REFERENCE) -> str:
    """The catalogue's runtime of a stack with these levers beside those that it has as it is: for a study to name."""
    wanted = base_levers(stack) | set(levers)
    return next(
        one.name
        for one in RUNTIMES.values()
        if (one.stack, one.device, one.levers) == (stack, device, wanted) and precision in one.precisions
    )


def runtimes_of(stack: str, *levers: Iterable[str], **choice: Any) -> list[str]:
    """A runtime for each set of levers."""
    return [runtime_of(stack, *one, **choice) for one in levers]
