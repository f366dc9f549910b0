"""A runner whose stream and buffers are PyCUDA's, and which can replay its work as a CUDA graph.

What is enqueued is a subclass's business: a TensorRT engine, or anything else that reads ``input_buffers`` and writes
``output_buffers``.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

from ceilings.cuda import device as cuda
from ceilings.cuda import pycuda_memory
from ceilings.cuda.cuda_graph import Graph, captured
from ceilings.errors import CellFailure
from ceilings.runtimes.base import example
from ceilings.runtimes.cuda_runner import CudaRunner


class PyCudaRunner(CudaRunner):
    """Allocates once, when it loads; a launch is one call. Options: ``cuda_graph``.

    Attributes:
        output_buffers: Where the outputs are, by name in the workload's order.
        graph: What is replayed; None if every launch enqueues anew.
    """

    memory: ClassVar[Any] = pycuda_memory

    output_buffers: dict[str, pycuda_memory.DeviceBuffer]
    graph: Graph | None = None

    @abc.abstractmethod
    def enqueue(self) -> None:
        """Enqueue one inference on ``stream``."""

    def allocate(self) -> None:
        """Make the buffers of the inputs, with values that every model takes, and those of the outputs."""
        self._buffers: dict[str, pycuda_memory.DeviceBuffer] = {}
        for name, values in example(self.workload, self.shape).items():
            buffer = self._buffers[name] = self.memory.DeviceBuffer(values.nbytes)
            buffer.upload(values)
        self.input_buffers = {name: (buffer.pointer, buffer.nbytes) for name, buffer in self._buffers.items()}
        self.output_buffers = {
            output.name: self.memory.DeviceBuffer(nbytes)
            for output, nbytes in zip(self.workload.outputs, self.output_bytes, strict=True)
        }
        self._pointers = tuple(buffer.pointer for buffer in self.output_buffers.values())

    def prepare_launch(self) -> None:
        """Decide what a launch does, once the buffers are there."""
        self._launch: Callable[[], None] = self.enqueue
        if self.options.get("cuda_graph"):
            with self.phase("capture"):
                # Libraries choose, allocate and upload in the first call; none of that can be captured.
                self.enqueue()
                self.stream.synchronize()
                try:
                    with captured(self.stream) as graph:
                        self.enqueue()
                except cuda.CudaError as error:
                    raise CellFailure("unsupported", f"this cannot be captured into a CUDA graph: {error}") from error
                self.graph, self._launch = graph, graph.launcher(self.stream)

    def launch(self, slot: Any) -> Any:
        self._launch()

    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        return self._pointers

    def describe(self) -> dict[str, Any]:
        return {"cuda_graph": self.graph is not None, "graph_nodes": self.graph.nodes if self.graph else None}
