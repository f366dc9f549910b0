"""Which ONNX variant a runtime executes, which one TensorRT gets, and whose work bounds a cell."""

from __future__ import annotations

from ceilings.runtimes.catalogue import REWRITTEN, Runtime


def graph_name(runtime: Runtime, precision: str) -> str | None:
    """The ONNX variant that a runtime executes, as its file is called without ``.onnx``; None for PyTorch modules."""
    if runtime.artifact == "weights":
        return None
    if runtime.artifact == "engine" or runtime.floats == "fp16":
        return engine_graph(precision)
    stored = stored_precision(precision)
    if runtime.artifact in REWRITTEN:
        return f"{stored}.{runtime.artifact}"
    return "int8.cpu" if (runtime.device, stored) == ("cpu", "int8") else stored


def counted_work(runtime: Runtime, precision: str) -> str | None:
    """The work that bounds a cell: that of the graph which its runtime executes, before anything is fused.

    The name of the unfused variant, except that tf32 stands for fp32's computed in TF32. None without a bound: the
    limits of CPUs are not measured, and what an engine from elsewhere computes is in no graph of ours.
    """
    if runtime.device != "cuda" or runtime.engine == "external":
        return None
    if precision == "tf32" or runtime.artifact in REWRITTEN:
        return precision
    if runtime.floats == "fp16":
        return engine_graph(precision)
    return graph_name(runtime, precision) or precision


def stored_precision(precision: str) -> str:
    """The precision that a graph is stored in: tf32 is a way to compute fp32's."""
    return "fp32" if precision == "tf32" else precision


def engine_graph(precision: str) -> str:
    """The variant whose unquantised part is in FP16: what TensorRT gets, since it fuses attention there."""
    return f"{precision}.half" if precision in ("int8", "fp8") else stored_precision(precision)
