"""Text from PyTorch on a GPU: with a growing cache kernel by kernel; with a static one also compiled and captured."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ceilings.models.load import load_module
from ceilings.runtimes.compile_cache import end_compile_workers
from ceilings.runtimes.cuda_runner import CudaRunner
from ceilings.runtimes.generating import Generating
from ceilings.runtimes.torch_cuda import ATTENTION, DTYPES, TorchCuda
from ceilings.runtimes.torch_decoding import GrowingDecoding, StaticDecoding, TorchDecoding
from ceilings.workload.generation import Decoder


class TorchGeneratingCuda(Generating, TorchCuda):
    """Executes the weights, one request at a time.

    Options: those of :class:`TorchCuda`, and ``cache``: ``static`` (default) or ``growing``, which runs eagerly only.
    """

    def load(self) -> None:
        self.mode = str(self.options.get("mode", "eager"))
        if self.mode not in ("eager", "compile", "cudagraph") or (self._growing and self.mode != "eager"):
            raise ValueError(f"unknown options of the PyTorch runtime that generates: {dict(self.options)}")
        decoder = self.decoder
        self.open_device()
        with self.failures():
            self._choose_products()
            with self.phase("load"):
                self.model = load_module(self.artifact, ATTENTION, DTYPES[self.precision], "cuda")
                torch.cuda.synchronize()
            self._enter_stream()
            with self.phase("cache"):
                self._decoding = self._decode(decoder)
                self.stream.synchronize()
            prompt = self._decoding.prompt
            self.input_buffers = {self.workload.inputs[0].name: (prompt.data_ptr(), prompt.nbytes)}
            if isinstance(self._decoding, StaticDecoding):
                self._make_ready(self._decoding)

    @property
    def _growing(self) -> bool:
        return self.options.get("cache") == "growing"

    def _decode(self, decoder: Decoder) -> TorchDecoding:
        """What makes the passes of a request."""
        kind = GrowingDecoding if self._growing else StaticDecoding
        return kind(self.model.model, decoder, self.shape, "cuda")

    def _make_ready(self, decoding: StaticDecoding) -> None:
        """Compile and capture what the mode asks for: nothing of it is left for a request."""
        if self.mode == "compile":
            self._open_compile_cache()
            kind = str(self.options.get("compile_mode", "default"))
            decoding.compile(kind)
            with self.phase("compile"):
                decoding.warm(1)
                self.stream.synchronize()
            if kind != "default":
                # The first call compiled; the second warms the graph's memory pool up and the third captures.
                with self.phase("capture"):
                    decoding.warm()
                    self.stream.synchronize()
            end_compile_workers()
        elif self.mode == "cudagraph":
            with self.phase("capture"):
                decoding.capture()
                self.stream.synchronize()

    def begin(self, slot: Any) -> None:
        self._decoding.begin()
        CudaRunner.activate(self, slot)
        self.stream.synchronize()  # what a request takes begins with its prefill

    def prefill(self) -> None:
        self._decoding.prefill()

    def step(self) -> None:
        self._decoding.step()

    def arrived(self) -> NDArray[np.int64]:
        self.stream.synchronize()
        return self._decoding.newest

    def top_logits(self, rows: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self._decoding.top_logits(rows, top)

    def cache_bytes(self) -> int:
        return self._decoding.cache_bytes()

    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        raise NotImplementedError("tokens go to the host with each pass; nothing is left to copy")

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **self._decoding.describe()}


RUNNER = TorchGeneratingCuda
