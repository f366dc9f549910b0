"""What every runtime on a GPU shares: one stream, one set of input buffers, one boundary.

An inference reads ``input_buffers`` and leaves its outputs where :meth:`CudaRunner.output_pointers` says. All of it is
enqueued on ``stream``. So the same four steps fit a runtime that replays a captured graph and one that launches kernel
by kernel: put an element of the pool into the input buffers (from the device or from the host), launch, fetch, wait.
"""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from ceilings.cuda import device as cuda
from ceilings.runtimes.base import Inputs, Runner

Slot = dict[str, Any]
"""One element of the pool, resident on the device: a buffer of the runner's ``memory`` for each input."""


class CudaRunner(Runner):
    """A runner whose launches only enqueue.

    Attributes:
        stream: Where everything happens.
        given_stream: What becomes ``stream`` in place of a new one; set before :meth:`load` is called.
        sibling: A loaded runner of the same cell, whose weights this one may read; set before :meth:`load` is called.
        input_buffers: (pointer, bytes) of what a launch reads, by input.
        output_types: Element types of the outputs, in the workload's order: as NumPy calls them, or ``bfloat16``.
    """

    device = "cuda"

    transfers_inside: ClassVar[bool] = False
    """Whether a launch itself copies from and to the host, and waits: then there is no device-resident boundary. Of
    models that generate, whose tokens always travel to the host: whether the call that submits waits for them."""

    stream_hidden: ClassVar[bool] = False
    """Whether the runtime keeps its stream to itself, and a launch waits until it is done: then nobody outside can time
    the device or the submitting calls. ``stream``, if there is one, is not where the work is."""

    memory: ClassVar[Any] = cuda
    """What makes the stream, the pool's slots and the pinned buffers: a module with ``Stream``, ``DeviceBuffer`` and
    ``PinnedBuffer``."""

    input_buffers: Mapping[str, tuple[int, int]]
    output_types: tuple[str, ...]
    given_stream: cuda.Stream | None = None
    sibling: CudaRunner | None = None

    def open_device(self) -> None:
        """Create the context and the stream; its own phase, since it belongs to no runtime."""
        with self.phase("context"):
            cuda.initialise()
            self.stream: cuda.Stream = self.given_stream or self.memory.Stream()

    def enter_stream(self) -> None:
        """Let the calling thread's next launches of this runner enqueue on ``stream``, after another runner's."""

    @property
    def exposed_stream(self) -> cuda.Stream | None:
        """Where launches enqueue; None where the runtime hides that."""
        return None if self.stream_hidden else self.stream

    def name_work(self) -> None:
        """Called once before a capture: tell a profiler what the work is, where that costs time. Never timed."""

    def place(self, element: Inputs) -> Any:
        slot: Slot = {}
        for name, (_, nbytes) in self.input_buffers.items():
            slot[name] = self.memory.DeviceBuffer(nbytes)
            slot[name].upload(element[name])
        return slot

    def activate(self, slot: Any) -> None:
        """Enqueue the copies that put ``slot`` into the input buffers. Not timed."""
        copy, kind, stream = cudart.cudaMemcpyAsync, cuda.D2D, self.stream.native
        for name, (pointer, nbytes) in self.input_buffers.items():
            copy(pointer, slot[name].pointer, nbytes, kind, stream)

    def run(self, slot: Any) -> Any:
        with self.failures():
            self.activate(slot)
            launched = self.launch(slot)
            self.stream.synchronize()
            return launched

    @abc.abstractmethod
    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        """Where the outputs of a launch are on the device, in the workload's order."""

    @property
    def output_bytes(self) -> tuple[int, ...]:
        """Sizes of the outputs, in the workload's order."""
        return tuple(
            math.prod(sizes) * storage(kind).itemsize
            for sizes, kind in zip(self.output_sizes(), self.output_types, strict=True)
        )

    def outputs(self, launched: Any) -> dict[str, NDArray[np.float32]]:
        arrays = {}
        for output, pointer, nbytes, kind in zip(
            self.workload.outputs,
            self.output_pointers(launched),
            self.output_bytes,
            self.output_types,
            strict=True,
        ):
            values = as_float32(cuda.download(pointer, nbytes), kind)
            arrays[output.name] = values.reshape(output.sizes(self.shape))
        return arrays

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Turn the runtime's own exceptions into CellFailure where they say something about the cell."""
        yield

    def compilations(self) -> int:
        """How many graphs were compiled so far; must not grow while timed."""
        return 0


def storage(kind: str) -> np.dtype[Any]:
    """How the bytes of an element type are read; numpy has no bfloat16."""
    return np.dtype(np.uint16 if kind == "bfloat16" else kind)


def as_float32(raw: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """Bytes of a tensor as float32. A bfloat16 is the upper half of a float32."""
    values = np.frombuffer(raw.tobytes(), storage(kind))
    if kind == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
