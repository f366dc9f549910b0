"""PyTorch on a GPU with requests of any shape: eager, compiled, and with a CUDA graph for each shape.

A slot holds the inputs on the device. A graph reads fixed addresses, so in that mode ``answer`` first copies the
inputs there; the first request of a shape captures it. ``torch.compile``'s own graphs, of ``reduce-overhead``, take a
shape's first three requests: one that compiles or runs, one that records, one that replays.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ceilings.cuda import device as cuda
from ceilings.runtimes import torch_compilation
from ceilings.runtimes.base import Inputs
from ceilings.runtimes.changing import Changing
from ceilings.runtimes.torch_cuda import TorchCuda, capture
from ceilings.workload.shape import Shape


@dataclasses.dataclass(frozen=True)
class Captured:
    """The graph of one shape, with what it cost.

    Attributes:
        inputs, outputs: Where it reads and writes.
        took_ns: Time of the runs before the capture and of the capture.
        nbytes: Memory of the device that these took: intermediate results, the graph itself.
    """

    graph: torch.cuda.CUDAGraph
    inputs: Sequence[torch.Tensor]
    outputs: tuple[torch.Tensor, ...]
    took_ns: int
    nbytes: int


@dataclasses.dataclass(frozen=True)
class Slot:
    """One element of the pool on the device."""

    shape: Shape
    values: tuple[torch.Tensor, ...]


class TorchChangingCuda(Changing, TorchCuda):
    """Executes the weights at whatever shape comes next."""

    def _allocate_inputs(self) -> None:
        """None that all requests share."""
        self.input_buffers = {}
        self._captured: dict[Shape, Captured] = {}

    def _compile(self) -> None:
        """Nothing runs before the first request: what it costs is what is measured."""
        self._forward = self._compiled(one_shape=False)

    def _capture(self) -> None:
        """The first request of a shape does it."""

    def place(self, element: Inputs) -> Slot:
        arrays = (np.ascontiguousarray(element[tensor.name]) for tensor in self.workload.inputs)
        values = tuple(torch.from_numpy(array).to(self.target) for array in arrays)
        if self.mode == "compile":
            torch_compilation.mark(self.workload, values, self.options)
        return Slot(self.shape, values)

    def launch(self, slot: Slot) -> tuple[torch.Tensor, ...]:
        if self.mode != "cudagraph":
            return self._forward(*slot.values)
        if (one := self._captured.get(slot.shape)) is None:
            one = self._captured[slot.shape] = self._of_shape(slot)
        for target, value in zip(one.inputs, slot.values, strict=True):
            target.copy_(value)
        one.graph.replay()
        return one.outputs

    def answer(self, slot: Slot) -> tuple[torch.Tensor, ...]:
        with self.failures():
            launched = self.launch(slot)
            self.stream.synchronize()
        return launched

    def run(self, slot: Slot) -> tuple[torch.Tensor, ...]:
        return self.answer(slot)

    def _of_shape(self, slot: Slot) -> Captured:
        """A graph of the slot's shape."""
        used, start = cuda.memory_used(), time.perf_counter_ns()
        inputs = tuple(value.clone() for value in slot.values)
        graph, outputs = capture(self.model, inputs)
        return Captured(graph, inputs, outputs, time.perf_counter_ns() - start, cuda.memory_used() - used)

    def outputs(self, launched: tuple[torch.Tensor, ...]) -> dict[str, NDArray[np.float32]]:
        return {
            output.name: value.float().cpu().numpy()
            for output, value in zip(self.workload.outputs, launched, strict=True)
        }

    def graphs_compiled(self) -> int | None:
        return {"compile": self.compilations(), "cudagraph": len(self._captured)}.get(self.mode)

    def compiled(self, slot: Slot) -> bool | None:
        return torch_compilation.runs_compiled(lambda: self.answer(slot)) if self.mode == "compile" else None

    def device_bytes(self) -> int:
        return cuda.memory_used()

    def describe(self) -> dict[str, Any]:
        captures = {
            str(shape): {"capture_ns": one.took_ns, "bytes": one.nbytes} for shape, one in self._captured.items()
        }
        return super().describe() | ({"captures": captures} if self.mode == "cudagraph" else {})


RUNNER = TorchChangingCuda
