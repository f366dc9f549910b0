"""BERT and DistilBERT on the kernels of ``ceilings.kernels``, captured into one CUDA graph."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from ceilings import gpu
from ceilings.kernels import encoder_weights, fp8_weights, tiles
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.persistent import PersistentEncoder
from ceilings.models.load import load_module
from ceilings.runtimes.compile_cache import compile_folder
from ceilings.runtimes.torch_cuda import TorchCuda
from ceilings.runtimes.triton_kernels import FACTS, tiles_fit


class CeilingsFused(TorchCuda):
    """Executes the weights on our kernels.

    Options: ``mode``, which is cudagraph; ``overlapped``: whether a kernel starts while the one before it ends;
    ``projected``: whether attention and its output projection are one launch; and ``persistent``: whether embedding and
    layers are.
    """

    def _model(self) -> Encoder:
        os.environ["TRITON_CACHE_DIR"], self._cache = compile_folder()
        weights = encoder_weights.of(load_module(self.artifact, dtype="float16", device="cuda"))
        if self.precision == "fp8":
            weights = fp8_weights.quantised(weights)
        batch, sequence = self.shape.batch, self.shape["sequence"]
        if self.options.get("persistent"):
            self._tiles_from = "defaults"
            return PersistentEncoder(weights, batch, sequence, tiles.PERSISTENT, programs=multiprocessors())
        tuned = tiles.kept(gpu.visible().slug, weights.sizes(batch * sequence))
        self._tiles_from = "tuned for this device and shape" if tuned else "defaults"
        cut = tuned or tiles.defaults(batch * sequence, self.precision)
        how = {"overlapped": self.options.get("overlapped", True), "projected": self.options.get("projected", False)}
        return Encoder(weights, batch, sequence, cut, **how)

    def _capture(self) -> None:
        with self.phase("compile"):
            self.model(*self._inputs)
            self.stream.synchronize()
        super()._capture()

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        with super().failures(), tiles_fit():
            yield

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            **FACTS,
            "overlapped": self.model.overlapped,
            "projected": self.model.projected,
            "persistent": isinstance(self.model, PersistentEncoder),
            "tiles": tiles.written(self.model.tiles),
            "tiles_from": self._tiles_from,
            "products": self.model.products(),
        }


def multiprocessors() -> int:
    """How many the device has: programs of the persistent kernel, which are then all resident."""
    return int(torch.cuda.get_device_properties(0).multi_processor_count)


RUNNER = CeilingsFused
