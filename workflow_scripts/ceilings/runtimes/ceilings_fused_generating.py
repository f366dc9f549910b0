"""Text from GPT-2 on a GPU: the prompt by PyTorch, every token after it by the kernels of ``ceilings.kernels``.

Both passes are CUDA graphs and share one static cache and the weights. A step's graph leaves the next token and its
position on the device, where its next replay reads them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import triton

from ceilings import gpu
from ceilings.kernels import decoder_tiles, decoder_weights, tiles
from ceilings.kernels.decoder import Decoder as Step
from ceilings.kernels.decoder_tiles import StepTiles
from ceilings.runtimes.compile_cache import compile_folder
from ceilings.runtimes.torch_decoding import StaticDecoding
from ceilings.runtimes.torch_generating_cuda import TorchGeneratingCuda
from ceilings.runtimes.triton_kernels import tiles_fit
from ceilings.workload import generation
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape


class FusedDecoding(StaticDecoding):
    """With PyTorch's prefill, and steps on our kernels, which read of the cache what the context fills.

    Args:
        model: GPT-2 of Transformers, in FP16.
        decoder: What its cache is made of.
        shape: Of a request.
        device: As torch names it.
        tuned: How a step is cut; None: by default.
        overlapped: Whether a kernel starts while the one before it ends.
    """

    def __init__(
        self,
        model: Any,
        decoder: Decoder,
        shape: Shape,
        device: str,
        tuned: StepTiles | None = None,
        *,
        overlapped: bool = False,
    ) -> None:
        super().__init__(model, decoder, shape, device)
        cut = tuned or decoder_tiles.defaults(shape.batch, self.length, decoder.heads)
        cache = [(layer.keys, layer.values) for layer in self.cache.layers]
        self.fused = Step(decoder_weights.of(model), cache, self.token, cut, overlapped=overlapped)

    def _prefill_pass(self) -> torch.Tensor:
        logits = super()._prefill_pass()
        self.fused.position.fill_(self.shape["prompt"])
        return logits

    def _step_pass(self) -> torch.Tensor:
        self.fused()
        return self.fused.logits

    def describe(self) -> dict[str, Any]:
        return {
            "cache": self.kind,
            "length": self.length,
            "read": "attention of a step reads the keys and values of the context, without a mask; that of a prefill "
            f"reads {self.prefill_read}",
            "prefill": "PyTorch",
            "overlapped": self.fused.overlapped,
            "tiles": tiles.written(self.fused.tiles),
        }


class CeilingsFusedGenerating(TorchGeneratingCuda):
    """Executes the weights, one request at a time.

    Options: ``mode``, which is cudagraph, and ``overlapped``: whether a kernel starts while the one before it ends.
    """

    def _decode(self, decoder: Decoder) -> FusedDecoding:
        os.environ["TRITON_CACHE_DIR"], self._cache = compile_folder()
        length, config = generation.context(self.shape), self.model.model.config
        size = decoder_tiles.sizes(self.shape.batch, length, config.hidden_size, decoder.layers)
        tuned = tiles.kept(gpu.visible().slug, size, kind=StepTiles)
        self._tiles_from = "tuned for this device and shape" if tuned else "defaults"
        overlapped = bool(self.options.get("overlapped", True))
        return FusedDecoding(self.model.model, decoder, self.shape, "cuda", tuned, overlapped=overlapped)

    def _make_ready(self, decoding: StaticDecoding) -> None:
        with self.phase("compile"):
            decoding.warm(1)
            self.stream.synchronize()
        super()._make_ready(decoding)

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        with super().failures(), tiles_fit():
            yield

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "triton": triton.__version__, "tiles_from": self._tiles_from}


RUNNER = CeilingsFusedGenerating
