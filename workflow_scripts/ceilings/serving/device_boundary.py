"""A runner whose buffers are the device's, fed from page-locked memory of the host as in the end-to-end series."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ceilings.measure.transfers import end_to_end, host_element, verify_transfers
from ceilings.runtimes.base import Inputs, Runner, example
from ceilings.runtimes.cuda_runner import CudaRunner, as_float32
from ceilings.serving.executor import Boundary
from ceilings.workload.shape import Shape


class DeviceBoundary(Boundary):
    """One batch of one runner: inputs go into page-locked memory, and from there as at the cell's host boundary."""

    name = "page-locked memory, then the device"
    copies = 1

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        assert isinstance(runner, CudaRunner)
        self._device = runner
        inputs = example(runner.workload, runner.shape)
        self._element = host_element(runner, inputs, runner.place(inputs), pinned=True)
        buffers = self._element.keep[: len(runner.input_buffers)]  # the inputs come first, in this order
        self._inputs = {
            name: buffer.array(inputs[name].shape, inputs[name].dtype)
            for name, buffer in zip(runner.input_buffers, buffers, strict=True)
        }
        self._submit = end_to_end(runner)

    def at(self, shape: Shape) -> DeviceBoundary | None:
        """Buffers of another batch on the same session of ONNX Runtime, where its axes stay open."""
        if not self._device.options.get("dynamic"):  # an option of ONNX Runtime's runner alone
            return None
        other: Any = copy.copy(self._device)
        other.shape = shape
        other._bind()
        return DeviceBoundary(other)

    def first(self, inputs: Inputs) -> None:
        """The first run, and whether what is copied is what the runner reads."""
        self._device.run(self._element.slot)
        verify_transfers(self._device, self._element)
        self._device.runs_ns.clear()

    def run(self, inputs: Inputs) -> Any:
        with self._device.failures():
            for name, room in self._inputs.items():
                np.copyto(room, inputs[name])
            launched = self._submit(self._element)
            self._device.stream.synchronize()
            return launched

    def outputs(self, launched: Any) -> dict[str, np.ndarray]:
        return {
            output.name: as_float32(raw, kind).reshape(sizes)
            for output, raw, kind, sizes in zip(
                self._device.workload.outputs,
                self._element.values,
                self._device.output_types,
                self._device.output_sizes(),
                strict=True,
            )
        }
