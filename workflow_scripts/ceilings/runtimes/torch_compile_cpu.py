"""PyTorch on the CPU, compiled by Inductor: for one shape after another, or for all of them at once.

Options: ``dynamic``. Absent, as ``torch.compile`` is by default: the first shape gets a graph of its own, the second
one a graph whose sizes are symbols where both differ. False: each shape gets a graph. True: sizes are symbols from the
first on. ``marked``: the axes of the workload alone are, as ``mark_dynamic`` says it.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from ceilings.runtimes.base import Inputs
from ceilings.runtimes.compile_cache import compile_folder, end_compile_workers
from ceilings.runtimes.torch_cpu import TorchCpu
from ceilings.runtimes.torch_failures import as_cell_failures

MARKED = "marked"

REGION = "Torch-Compiled Region"
"""What PyTorch's profiler calls a call of compiled code."""


class TorchCompileCpu(TorchCpu):
    """Executes what Inductor makes of the weights; the first inference of a shape compiles."""

    def load(self) -> None:
        super().load()
        os.environ["TORCHINDUCTOR_CACHE_DIR"], self._cache = compile_folder()
        dynamic = self.options.get("dynamic")
        self._forward: Any = torch.compile(self.model, dynamic=None if dynamic == MARKED else dynamic)

    def place(self, element: Inputs) -> tuple[torch.Tensor, ...]:
        slot = super().place(element)
        if self.options.get("dynamic") == MARKED:
            for tensor, value in zip(self.workload.inputs, slot, strict=True):
                for index, dim in enumerate(tensor.dims):
                    if isinstance(dim, str):  # a size of 1 stays a constant: of a symbol PyTorch would refuse it
                        torch._dynamo.maybe_mark_dynamic(value, index)
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

    def compilations(self) -> int:
        """Graphs that Inductor compiled so far."""
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"])

    def runs_compiled(self, slot: tuple[torch.Tensor, ...]) -> bool:
        """Whether compiled code answers a slot. Beyond its limit PyTorch compiles no more and says so in its log only.

        By the profiler's events: no counter tells a graph that serves a new shape from none that does.
        """
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            self.launch(slot)
        return any(event.name.startswith(REGION) for event in profile.events() or ())

    def describe(self) -> dict[str, Any]:
        from torch._dynamo.utils import counters

        return super().describe() | {
            "dynamic": self.options.get("dynamic", "automatic"),
            "graphs": self.compilations(),
            "graph_breaks": sum(counters["graph_break"].values()),
            "recompile_limit": torch._dynamo.config.recompile_limit,
        }


RUNNER = TorchCompileCpu
