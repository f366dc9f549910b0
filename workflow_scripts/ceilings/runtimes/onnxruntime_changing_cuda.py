"""ONNX Runtime on its CUDA execution provider, with requests of any shape, each through a binding of its own.

One session with symbolic axes. A slot holds the inputs on the device, the outputs' buffers and the binding, so that a
request is a call and a wait. With ``cuda_graph`` each shape is captured under an annotation id of its own; a captured
graph reads fixed addresses, so all slots of a shape share one binding, and ``answer`` first copies its inputs there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure
from ceilings.runtimes.base import Inputs, example
from ceilings.runtimes.changing import Changing
from ceilings.runtimes.cuda_runner import as_float32
from ceilings.runtimes.onnxruntime_cuda import RUNS_BEFORE_CAPTURE, OnnxRuntimeCuda
from ceilings.runtimes.onnxruntime_session import ONNX_NUMBERS, session_options
from ceilings.workload.shape import Shape


class Binding:
    """Buffers of one shape on the device, bound to a session.

    Args:
        session: It.
        runner: Knows the tensors.
        graph: The annotation id of the shape's CUDA graph; None: none is captured.
    """

    def __init__(self, session: Any, runner: OnnxRuntimeChangingCuda, graph: int | None) -> None:
        self.shape = runner.shape
        self.binding = session.io_binding()
        self.inputs: dict[str, cuda.DeviceBuffer] = {}
        values = example(runner.workload, self.shape)
        for tensor in runner.read:
            value = values[tensor.name]
            buffer = self.inputs[tensor.name] = cuda.DeviceBuffer(value.nbytes)
            buffer.upload(value)
            self.binding.bind_input(tensor.name, "cuda", 0, value.dtype.type, value.shape, buffer.pointer)
        self.outputs = [cuda.DeviceBuffer(nbytes) for nbytes in runner.output_bytes]
        for output, kind, sizes, buffer in zip(
            runner.workload.outputs, runner.output_types, runner.output_sizes(), self.outputs, strict=True
        ):
            self.binding.bind_output(output.name, "cuda", 0, ONNX_NUMBERS[kind], sizes, buffer.pointer)
        self.options = onnxruntime.RunOptions()
        self.options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if graph is not None:
            self.options.add_run_config_entry("gpu_graph_id", str(graph))


class OnnxRuntimeChangingCuda(Changing, OnnxRuntimeCuda):
    """Executes an ONNX variant at whatever shape comes next."""

    def _options(self) -> onnxruntime.SessionOptions:
        """Symbolic axes, whatever the runtime does for a fixed shape."""
        return session_options(1, chosen=self.options)

    def _make_ready(self) -> None:
        """Nothing runs before the first request: what it costs is what is measured."""

    def _bind(self) -> None:
        self._read_interface()
        self.read = self._inputs
        self._graph = bool(self.options.get("cuda_graph"))
        self._bindings: dict[Shape, Binding] = {}
        self.input_buffers = {}

    def place(self, element: Inputs) -> Any:
        """Of a shape that is captured: (its binding, the inputs elsewhere on the device); else a binding of its own."""
        if not self._graph:
            slot = Binding(self.session, self, None)
            for name, buffer in slot.inputs.items():
                buffer.upload(np.ascontiguousarray(element[name]))
            return slot, {}
        if self.shape not in self._bindings:
            self._bindings[self.shape] = Binding(self.session, self, len(self._bindings) + 1)
        shared = self._bindings[self.shape]
        resident = {}
        for name in shared.inputs:
            value = np.ascontiguousarray(element[name])
            resident[name] = cuda.DeviceBuffer(value.nbytes)
            resident[name].upload(value)
        return shared, resident

    def answer(self, slot: Any) -> Any:
        """One request to its end. The first of a captured shape runs it as often as a capture takes."""
        one, resident = slot
        for name, buffer in resident.items():
            target = one.inputs[name]
            cudart.cudaMemcpyAsync(target.pointer, buffer.pointer, target.nbytes, cuda.D2D, self.stream.native)
        with self.failures():
            self.session.run_with_iobinding(one.binding, one.options)
            self.stream.synchronize()
        return slot

    def launch(self, slot: Any) -> Any:
        return self.answer(slot)

    def run(self, slot: Any) -> Any:
        return self.answer(slot)

    def outputs(self, launched: Any) -> dict[str, NDArray[np.float32]]:
        one, _ = launched
        arrays = {}
        for output, buffer, nbytes, kind in zip(
            self.workload.outputs, one.outputs, self.output_bytes, self.output_types, strict=True
        ):
            values = as_float32(cuda.download(buffer.pointer, nbytes), kind)
            arrays[output.name] = values.reshape(output.sizes(one.shape))
        return arrays

    def device_bytes(self) -> int:
        return cuda.memory_used()

    def describe(self) -> dict[str, Any]:
        facts = super().describe()
        return facts | {"dynamic_shapes": True, "capture_runs": RUNS_BEFORE_CAPTURE if self._graph else 0}


def RUNNER(*arguments: Any) -> OnnxRuntimeChangingCuda:
    """The runner; with IO binding only, since copies by the runtime would hide what a change costs.

    Raises:
        CellFailure: The options ask for a session that is called with arrays of the host.
    """
    options = arguments[-1]
    if not options.get("io_binding", True):
        raise CellFailure("unsupported", "changing shapes are measured with IO binding")
    return OnnxRuntimeChangingCuda(*arguments)
