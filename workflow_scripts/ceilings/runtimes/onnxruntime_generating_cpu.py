"""Text generation by ONNX Runtime on its CPU execution provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ceilings.graphs.decoding import Decoding, largest
from ceilings.runtimes import placement
from ceilings.runtimes.base import Inputs, Runner
from ceilings.runtimes.generating import Generating
from ceilings.runtimes.onnxruntime_session import applied, cpu_session_options, open_session


class OnnxRuntimeGeneratingCpu(Generating, Runner):
    """Executes a graph of a forward pass, plain or fused; its axes stay dynamic, but for the batch."""

    def load(self) -> None:
        decoder = self.decoder
        with self.phase("load"):
            self.session = self._session(cpu_session_options(self.threads, self.options))
        self._decoding = Decoding(self.session, decoder, self.shape)
        self._ids = self._decoding.ids.array(np.int64, (self.shape.batch, self.shape["prompt"]))
        self._token = self._decoding.token.array(np.int64, (self.shape.batch,))
        self._logits = self._decoding.logits.array(np.float32, (self.shape.batch, decoder.vocabulary))

    def _session(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        return open_session(self.artifact, options, [placement.CPU])

    def place(self, element: Inputs) -> NDArray[np.int64]:
        return np.ascontiguousarray(element["input_ids"])

    def begin(self, slot: NDArray[np.int64]) -> None:
        self._ids[:] = slot
        self._decoding.begin()

    def prefill(self) -> None:
        self._decoding.advance()

    def step(self) -> None:
        self._decoding.advance()

    def arrived(self) -> NDArray[np.int64]:
        return self._token

    def top_logits(self, rows: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return largest(self._logits[:rows], top)

    def cache_bytes(self) -> int:
        return self._decoding.cache_bytes()

    def describe(self) -> dict[str, Any]:
        """Providers, and how the cache is kept."""
        providers, session = self.session.get_providers(), applied(self.session)
        return {"providers": providers, "session": session, "cache": cache_of(self._decoding)}


def cache_of(decoding: Decoding) -> str:
    """How a cache is kept, in words."""
    if decoding.fused:
        return "past and present in one buffer as long as the request"
    return "the present of a pass, as ONNX Runtime allocated it, is the past of the next"


RUNNER = OnnxRuntimeGeneratingCpu
