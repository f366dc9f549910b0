@dataclasses.dataclass(frozen=True)
class HostElement:
    """One element of the ring in host memory, with room for its logits.

    Attributes:
        copies: (device pointer, host pointer, bytes) of each input.
        output: Host pointer of the logits.
        values: The logits' bytes.
        slot: The same element on the device.
        keep: What owns the memory.
    """

    copies: tuple[tuple[int, int, int], ...]
    output: int
    values: np.ndarray
    slot: Any
    keep: tuple[Any, ...]


def host_element(runner: CudaRunner, inputs: Inputs, slot: Any, pinned: bool) -> HostElement:
    """Put one element into host memory, page-locked or not, once and for all iterations."""
    copies: list[tuple[int, int, int]] = []
    keep: list[Any] = []
    for name, (pointer, nbytes) in runner.input_buffers.items():
        source = np.ascontiguousarray(inputs[name])
        if source.nbytes != nbytes:
            raise ValueError(f"input {name} has {source.nbytes} bytes; the runtime reads {nbytes}")
        if pinned:
            buffer = runner.memory.PinnedBuffer(nbytes)
            buffer.array(source.shape, source.dtype)[...] = source
            copies.append((pointer, buffer.pointer, nbytes))
            keep.append(buffer)
        else:
            source = source.copy()
            copies.append((pointer, source.ctypes.data, nbytes))
            keep.append(source)
    if pinned:
        room = runner.memory.PinnedBuffer(runner.output_bytes)
        values = room.array((runner.output_bytes,), np.uint8)
        return HostElement(tuple(copies), room.pointer, values, slot, (*keep, room))
    values = np.zeros(runner.output_bytes, np.uint8)
    return HostElement(tuple(copies), values.ctypes.data, values, slot, tuple(keep))


def end_to_end(runner: CudaRunner, elements: Sequence[HostElement]) -> Regime:
    """Copy in, launch, copy out, on one stream; the wait is the loop's."""
    copy, to_device, to_host = cudart.cudaMemcpyAsync, cuda.H2D, cuda.D2H
    handle, launch, pointer, nbytes = runner.stream.native, runner.launch, runner.output_pointer, runner.output_bytes

    def submit(element: HostElement) -> Any:
        for destination, source, size in element.copies:
            copy(destination, source, size, to_device, handle)
        launched = launch(element.slot)
        copy(element.output, pointer(launched), nbytes, to_host, handle)
        return launched

    return Regime(_nothing, submit, elements)


def _nothing(_: Any) -> None:
    pass


def verify_transfers(runner: CudaRunner, element: HostElement) -> None:
    """Compare the logits that an end-to-end iteration leaves on the host with the runner's own.

    Raises:
        RuntimeError: They differ: the timed copies are not those of this inference.
    """
    element.values[:] = 0
    end_to_end(runner, [element]).submit(element)
    runner.stream.synchronize()
    found = as_float32(element.values, runner.output_type)
    expected = runner.logits(runner.run(element.slot)).ravel()
    scale = float(np.abs(expected).max()) or 1.0
    if not np.allclose(found, expected, rtol=0, atol=0.02 * scale):
        raise RuntimeError(f"copied logits differ from the runner's by {np.abs(found - expected).max():.3g}")
