"""What answers for a model that is an ONNX file: ONNX Runtime on the CPU, with the graph as it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ceilings import records
from ceilings.errors import CellFailure, UserError


def graph_runner(
    graph: Path | str, outputs: Sequence[str], threads: int
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """What answers an element by ONNX Runtime on the CPU, with the graph as it is written.

    Raises:
        UserError: The graph is damaged.
        CellFailure: ONNX Runtime cannot load it; of a call: it cannot run it on this element.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own types, without a common base
        if type(error).__name__ in ("InvalidProtobuf", "NoSuchFile"):
            raise UserError(f"{graph} is damaged ({_line(error)}); {records.anew(graph)}") from None
        raise CellFailure("unsupported", f"ONNX Runtime cannot load the graph on a CPU: {_line(error)}") from None

    def run(element: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            answers: list[np.ndarray] = session.run(list(outputs), dict(element))
        except Exception as error:
            raise CellFailure(
                "runtime-error",
                f"ONNX Runtime cannot run the graph on a CPU: {_line(error)}; correct the file, or the axes and inputs "
                "that the study gives of it",
            ) from None
        return answers

    return run


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
