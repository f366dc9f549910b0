"""The boundary at the host: an inference with the copies of its inputs and outputs, on one stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda
from ceilings.runtimes.base import Inputs
from ceilings.runtimes.cuda_runner import CudaRunner, as_float32


@dataclasses.dataclass(frozen=True)
class HostElement:
    """One element of the input pool in host memory, with room for its outputs.

    Attributes:
        copies: (device pointer, host pointer, bytes) of each input.
        room: (host pointer, bytes) of each output, in the workload's order.
        values: Each output's bytes.
        slot: The same element on the device.
        keep: What holds the memory.
    """

    copies: tuple[tuple[int, int, int], ...]
    room: tuple[tuple[int, int], ...]
    values: tuple[np.ndarray, ...]
    slot: Any
    keep: tuple[Any, ...]


def host_element(runner: CudaRunner, inputs: Inputs, slot: Any, pinned: bool) -> HostElement:
    """One element in host memory, page-locked or not, once and for all iterations."""
    copies: list[tuple[int, int, int]] = []
    keep: list[Any] = []
    for name, (pointer, nbytes) in runner.input_buffers.items():
        source = np.ascontiguousarray(inputs[name])
        if source.nbytes != nbytes:
            raise ValueError(f"input {name} has {source.nbytes} bytes; the runtime reads {nbytes}")
        host, values, owner = _memory(runner, source.shape, source.dtype, pinned)
        values[...] = source
        copies.append((pointer, host, nbytes))
        keep.append(owner)
    room = [_memory(runner, (nbytes,), np.dtype(np.uint8), pinned) for nbytes in runner.output_bytes]
    return HostElement(
        tuple(copies),
        tuple((host, values.nbytes) for host, values, _ in room),
        tuple(values for _, values, _ in room),
        slot,
        (*keep, *(owner for _, _, owner in room)),
    )


def _memory(runner: CudaRunner, sizes: tuple[int, ...], dtype: np.dtype, pinned: bool) -> tuple[int, np.ndarray, Any]:
    """Host memory: its pointer, an array on it, and what frees it."""
    if not pinned:
        values = np.zeros(sizes, dtype)
        return values.ctypes.data, values, values
    buffer = runner.memory.PinnedBuffer(int(np.prod(sizes)) * dtype.itemsize)
    return buffer.pointer, buffer.array(sizes, dtype), buffer


def end_to_end(runner: CudaRunner) -> Callable[[HostElement], Any]:
    """What enqueues an inference from host to host: copies in, launch, copies out, on one stream; the loop waits."""
    copy, to_device, to_host = cudart.cudaMemcpyAsync, cuda.H2D, cuda.D2H
    handle, launch, pointers = runner.stream.native, runner.launch, runner.output_pointers

    def submit(element: HostElement) -> Any:
        for destination, source, size in element.copies:
            copy(destination, source, size, to_device, handle)
        launched = launch(element.slot)
        for (host, size), device in zip(element.room, pointers(launched), strict=True):
            copy(host, device, size, to_host, handle)
        return launched

    return submit


def verify_transfers(runner: CudaRunner, element: HostElement) -> None:
    """Compare the outputs that an end-to-end iteration leaves on the host with those that the runner reads.

    Raises:
        RuntimeError: They differ: the timed copies are not those of this inference.
    """
    for values in element.values:
        values[:] = 0
    end_to_end(runner)(element)
    runner.stream.synchronize()
    copied = [as_float32(raw, kind) for raw, kind in zip(element.values, runner.output_types, strict=True)]
    outputs = runner.outputs(runner.run(element.slot))
    for (name, read), values in zip(outputs.items(), copied, strict=True):
        expected = read.ravel()
        scale = float(np.abs(expected).max(initial=0)) or 1.0
        if not np.allclose(values, expected, rtol=0, atol=0.02 * scale):
            difference = np.abs(values - expected).max()
            raise RuntimeError(f"output {name} as copied differs from what the runner reads by {difference:.3g}")
