"""vLLM on a GPU, generating: its offline engine with defaults, without CUDA graphs, or eager."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

from ceilings.errors import CellFailure
from ceilings.runtimes.compile_cache import end_compile_workers
from ceilings.runtimes.cuda_runner import CudaRunner
from ceilings.runtimes.torch_failures import as_cell_failures, first_line
from ceilings.runtimes.vllm_engine import EngineRequests, OfflineEngine


class VllmGenerating(EngineRequests, CudaRunner):
    """Executes the weights by vLLM. Options: ``mode`` (default, compile or eager), ``captured``."""

    stream_hidden: ClassVar[bool] = True
    """vLLM creates its streams, and a launch returns with the tokens: events of ours would see nothing."""

    transfers_inside = True

    def load(self) -> None:
        decoder = self.decoder
        self.input_buffers, self.output_types = {}, ()
        self.open_device()
        with self.failures():
            try:
                with self.phase("load"):
                    self.engine = OfflineEngine(self.artifact, self.precision, decoder, self.shape, self.options)
            except ValueError as error:  # a model or a setting that vLLM refuses
                raise CellFailure("unsupported", first_line(error)) from error
            for stage, spent in self.engine.spent_ns.items():
                if spent:
                    self.cold_start_ns[stage] = spent
                    self.cold_start_ns["load"] = max(0, self.cold_start_ns["load"] - spent)
        end_compile_workers()

    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        return ()

    def compilations(self) -> int:
        if self.engine.mode == "eager":
            return 0
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"])

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        with as_cell_failures():
            yield

    def describe(self) -> dict[str, Any]:
        import torch

        return {
            **self.engine.describe(),
            "cuda": torch.version.cuda,
            "allocator_peak_bytes": torch.cuda.max_memory_reserved(),
            "logits_from": "separate requests, with logprobs",
            "differing_answers": self.differing,
        }


RUNNER = VllmGenerating
