"""ONNX Runtime on its CPU execution provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ceilings.runtimes import placement
from ceilings.runtimes.base import Inputs, Runner, example
from ceilings.runtimes.onnxruntime_session import applied, cpu_session_options, inputs_of, open_session, output_types


class OnnxRuntimeCpu(Runner):
    """Executes an ONNX variant as a user's session does: its axes stay dynamic.

    Fixing them first is slower on this provider. ORT then merges each product with its bias into a Gemm before it looks
    for integer kernels, so a Q/DQ graph runs in floating point on weights that it dequantises in every run.

    Options: settings of ``OF_ORT_CPU``.
    """

    def load(self) -> None:
        with self.phase("load"):
            self.session = self._session(self._options())
        self._inputs = inputs_of(self.session, self.workload)
        output_types(self.session, self.workload)  # refuses a graph of something else
        self._names = [output.name for output in self.workload.outputs]

    def _options(self) -> onnxruntime.SessionOptions:
        return cpu_session_options(self.threads, self.options)

    def _session(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        return open_session(self.artifact, options, [placement.CPU])

    def place(self, element: Inputs) -> dict[str, NDArray[Any]]:
        return {tensor.name: np.ascontiguousarray(element[tensor.name]) for tensor in self._inputs}

    def launch(self, slot: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return self.session.run(self._names, slot)

    def outputs(self, launched: list[NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        return {name: value.astype(np.float32, copy=False) for name, value in zip(self._names, launched, strict=True)}

    def describe(self) -> dict[str, Any]:
        """Providers; of INT8 also which operators ran, by a profiled session of its own, after everything is timed."""
        facts: dict[str, Any] = {"providers": self.session.get_providers(), "session": applied(self.session)}
        if self.precision != "int8":
            return facts
        try:
            feed = self.place(example(self.workload, self.shape))
            nodes = placement.profile(self._options(), self._session, feed)
        except Exception as error:  # a second copy of a model may not fit where one did
            return facts | placement.unknown(error)
        return facts | {"placement": placement.summary(nodes)}


RUNNER = OnnxRuntimeCpu
