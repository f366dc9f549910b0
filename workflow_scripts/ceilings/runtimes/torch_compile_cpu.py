"""PyTorch on the CPU, compiled by Inductor: for one shape after another, or for all of them at once."""

from __future__ import annotations

import os
from typing import Any

import torch

from ceilings.runtimes import torch_compilation
from ceilings.runtimes.base import Inputs
from ceilings.runtimes.compile_cache import compile_folder, end_compile_workers
from ceilings.runtimes.torch_cpu import TorchCpu
from ceilings.runtimes.torch_failures import as_cell_failures


class TorchCompileCpu(TorchCpu):
    """Executes what Inductor makes of the weights; the first inference of a shape compiles. Options: ``sizes``."""

    def load(self) -> None:
        super().load()
        os.environ["TORCHINDUCTOR_CACHE_DIR"], self._cache = compile_folder()
        dynamic = torch_compilation.DYNAMIC[torch_compilation.sizes_of(self.options)]
        self._forward: Any = torch.compile(self.model, dynamic=dynamic)

    def place(self, element: Inputs) -> tuple[torch.Tensor, ...]:
        slot = super().place(element)
        torch_compilation.mark(self.workload, slot, self.options)
        return slot

    def launch(self, slot: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            return self._forward(*slot)

    def first(self, slot: tuple[torch.Tensor, ...]) -> Any:
        with self.phase("compile"):
            launched = self.run(slot)
        end_compile_workers()
        return launched

    def run(self, slot: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        with as_cell_failures():
            return super().run(slot)

    def describe(self) -> dict[str, Any]:
        return super().describe() | torch_compilation.facts(self.options)


RUNNER = TorchCompileCpu
