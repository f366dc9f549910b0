"""Text from PyTorch on the CPU: eager, with the cache that Transformers' ``generate`` takes by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ceilings.errors import CellFailure
from ceilings.models.load import load_module
from ceilings.runtimes.base import Inputs, Runner
from ceilings.runtimes.generating import Generating
from ceilings.runtimes.torch_cpu import ATTENTION
from ceilings.runtimes.torch_decoding import GrowingDecoding


class TorchGeneratingCpu(Generating, Runner):
    """Executes the weights operator by operator, one request at a time."""

    def load(self) -> None:
        torch.set_num_threads(self.threads)
        decoder = self.decoder
        with self.phase("load"):
            dtype = "bfloat16" if self.precision == "bf16" else "float32"
            module: Any = load_module(self.artifact, ATTENTION, dtype)
            self.attention = module.attention
            self._decoding = GrowingDecoding(module.model, decoder, self.shape, "cpu")

    def place(self, element: Inputs) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(element[self.workload.inputs[0].name]))

    def begin(self, slot: torch.Tensor) -> None:
        self._decoding.begin()
        self._decoding.prompt.copy_(slot)

    def prefill(self) -> None:
        with torch.inference_mode():
            self._decoding.prefill()

    def step(self) -> None:
        with torch.inference_mode():
            self._decoding.step()

    def arrived(self) -> NDArray[np.int64]:
        return self._decoding.newest

    def top_logits(self, rows: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self._decoding.top_logits(rows, top)

    def cache_bytes(self) -> int:
        return self._decoding.cache_bytes()

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what PyTorch raises where it lacks a kernel into CellFailure."""
        try:
            yield
        except NotImplementedError as error:
            raise CellFailure("unsupported", f"PyTorch cannot run it: {str(error)[:300]}") from error

    def describe(self) -> dict[str, Any]:
        return {"attention": self.attention, **self._decoding.describe()}


RUNNER = TorchGeneratingCpu
