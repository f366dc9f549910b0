"""PyTorch on the CPU, compiled by Inductor, with requests of any shape."""

from __future__ import annotations

from typing import Any

from ceilings.runtimes import torch_compilation
from ceilings.runtimes.changing import Changing
from ceilings.runtimes.torch_compile_cpu import TorchCompileCpu


class TorchCompileChangingCpu(Changing, TorchCompileCpu):
    """One compiled module for all shapes; it compiles anew, up to PyTorch's limit, where no graph fits."""

    def graphs_compiled(self) -> int:
        return torch_compilation.compilations()

    def compiled(self, slot: Any) -> bool:
        return torch_compilation.runs_compiled(lambda: self.launch(slot))


RUNNER = TorchCompileChangingCpu
