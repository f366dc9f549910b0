"""CUDA graphs, captured through the runtime API from whatever a block enqueues on a stream, whoever enqueues it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda


class Graph:
    """A captured sequence of work, launched as one.

    Attributes:
        native: The executable graph, as the bindings take it.
        nodes: Kernels, copies and so on in it.
    """

    native: Any = None
    nodes: int = 0

    def launcher(self, stream: cuda.Stream) -> Callable[[], None]:
        """A call that enqueues the graph on ``stream``; as lean as Python allows, for it is what gets timed."""
        launch, native, handle = cudart.cudaGraphLaunch, self.native, stream.native

        def enqueue() -> None:
            result = launch(native, handle)
            if result[0]:
                cuda.check(result, "launching a CUDA graph")

        return enqueue


@contextlib.contextmanager
def captured(stream: cuda.Stream) -> Iterator[Graph]:
    """Capture what the block enqueues on ``stream``, and on streams that it makes wait for it and joins again.

    Yields:
        The graph, ready to launch once the block has ended.

    Raises:
        CudaError: Something in the block cannot be captured.
    """
    # Only this thread is held to what a capture allows: NVML's or a framework's own threads may go on.
    mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    cuda.check(cudart.cudaStreamBeginCapture(stream.native, mode), "beginning a capture")
    graph = Graph()
    try:
        yield graph
    except BaseException:
        cudart.cudaStreamEndCapture(stream.native)  # else every later call on the stream fails for this
        cudart.cudaGetLastError()
        raise
    template = cuda.check(cudart.cudaStreamEndCapture(stream.native), "ending a capture")
    graph.nodes = int(cuda.check(cudart.cudaGraphGetNodes(template), "counting a graph's nodes")[1])
    graph.native = cuda.check(cudart.cudaGraphInstantiate(template, 0), "instantiating a graph")
    cuda.check(cudart.cudaGraphDestroy(template), "freeing a graph's template")
