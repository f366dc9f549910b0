"""ONNX Runtime on its CPU execution provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ceilings.errors import CellFailure, UserError
from ceilings.runtimes import placement
from ceilings.runtimes.base import Inputs, Runner

INPUTS = ("input_ids", "attention_mask")


class OnnxRuntimeCpu(Runner):
    """Executes an ONNX variant as a user's session does: its axes stay dynamic.

    Fixing them first is slower on this provider. ORT then merges each product with its bias into a Gemm before it looks
    for integer kernels, so a Q/DQ graph runs in floating point on weights that it dequantises in every run.
    """

    def load(self) -> None:
        with self.phase("load"):
            self.session = self._session(session_options(self.threads))

    def _session(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        return open_session(self.artifact, options, [placement.CPU])

    def place(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        return {name: np.ascontiguousarray(inputs[name]) for name in INPUTS}

    def launch(self, slot: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return self.session.run(None, slot)

    def logits(self, launched: list[NDArray[Any]]) -> NDArray[np.float32]:
        return launched[0].astype(np.float32, copy=False)

    def describe(self) -> dict[str, Any]:
        """Providers; of INT8 also which operators ran, by a profiled session of its own, after everything is timed."""
        facts: dict[str, Any] = {"providers": self.session.get_providers()}
        if self.precision != "int8":
            return facts
        feed = dict.fromkeys(INPUTS, np.ones(self.shape, np.int64))
        try:
            nodes = placement.profile(session_options(self.threads), self._session, feed)
        except Exception as error:  # a second copy of a model may not fit where one did
            return facts | placement.unknown(error)
        return facts | {"placement": placement.summary(nodes)}


def session_options(threads: int, shape: tuple[int, int] | None = None) -> onnxruntime.SessionOptions:
    """Options to use ``threads`` threads within an operator, and to fix the axes to ``shape`` if one is given."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for axis, size in zip(("batch", "sequence"), shape or (), strict=False):
        options.add_free_dimension_override_by_name(axis, size)
    return options


def open_session(
    graph: Any,
    options: onnxruntime.SessionOptions,
    providers: list[Any],
    without: list[str] | None = None,
    retry: bool = True,
) -> onnxruntime.InferenceSession:
    """Open a session; what a runtime cannot run becomes a CellFailure, what is damaged a UserError.

    Args:
        without: Names of ORT's optimizers to leave out.
        retry: Whether ORT may open it with its own choice of providers if these fail, which it says on stdout only.
    """
    try:
        return onnxruntime.InferenceSession(
            str(graph), options, providers=providers, disabled_optimizers=without, enable_fallback=int(retry)
        )
    except Exception as error:  # ORT's exceptions share no base class but Exception
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = type(error).__name__
        if kind in ("NotImplemented", "InvalidGraph") or "NOT_IMPLEMENTED" in message:
            raise CellFailure("unsupported", message) from error
        if kind in ("InvalidProtobuf", "NoSuchFile"):
            raise UserError(f"{graph} is damaged ({message}); delete it and run again to make it anew") from error
        if "memory" in message.lower() and "alloc" in message.lower():
            raise CellFailure("out-of-memory", message) from error
        raise


RUNNER = OnnxRuntimeCpu
