"""TensorRT executing one engine natively with requests of any shape that its optimisation profiles take.

A slot holds inputs and outputs of its shape on the device. ``answer`` does what a server does for a request: it
switches the context to the profile that takes the shape where another one is active, sets the shapes of the inputs
where they differ from the request before, binds the addresses, enqueues and waits.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ceilings.cuda import device as cuda
from ceilings.engines.profiles import covering
from ceilings.runtimes.base import Inputs
from ceilings.runtimes.changing import Changing
from ceilings.runtimes.tensorrt_native import TensorRt
from ceilings.workload.shape import Shape


@dataclasses.dataclass
class Ready:
    """An execution context, with the profile and the shape that it is set to."""

    context: Any
    profile: int
    shape: Shape | None = None


@dataclasses.dataclass(frozen=True)
class Slot:
    """One element of the pool on the device, with where its outputs go.

    Attributes:
        profile: Index of the profile that takes it: the engine's first one that does.
        sizes: Of each input, by name.
        addresses: Of each input and output, by name.
        outputs: Addresses of the outputs, in the workload's order.
        buffers: What keeps them.
    """

    shape: Shape
    profile: int
    sizes: tuple[tuple[str, tuple[int, ...]], ...]
    addresses: tuple[tuple[str, int], ...]
    outputs: tuple[int, ...]
    buffers: tuple[Any, ...]


class TensorRtChanging(Changing, TensorRt):
    """Executes an engine at whatever shape comes next. Options: ``builder``, ``contexts``."""

    def _select_profile(self) -> None:
        self._read_profiles()
        contexts = [self.context, *self._other_contexts()]
        self._contexts = [Ready(context, context.active_optimization_profile) for context in contexts]
        self._switches = 0
        if len(contexts) > 1:
            for index, ready in enumerate(self._contexts):
                self._switch(ready, index)
            self.stream.synchronize()

    def _bind(self) -> None:
        self._take_output_types()
        self.input_buffers = {}
        self._handle = self.stream.handle

    def prepare_launch(self) -> None:
        """Nothing runs before the first request: what it costs is what is measured."""

    def place(self, element: Inputs) -> Slot:
        index = covering(self.profiles, self.shape)
        inputs = {}
        for tensor in self.workload.inputs:
            value = np.ascontiguousarray(element[tensor.name])
            inputs[tensor.name] = self.memory.DeviceBuffer(value.nbytes)
            inputs[tensor.name].upload(value)
        outputs = {
            output.name: self.memory.DeviceBuffer(nbytes)
            for output, nbytes in zip(self.workload.outputs, self.output_bytes, strict=True)
        }
        return Slot(
            self.shape,
            index,
            tuple((tensor.name, tensor.sizes(self.shape)) for tensor in self.workload.inputs),
            tuple((name, buffer.pointer) for name, buffer in {**inputs, **outputs}.items()),
            tuple(buffer.pointer for buffer in outputs.values()),
            (*inputs.values(), *outputs.values()),
        )

    def answer(self, slot: Slot) -> Slot:
        ready = self._contexts[slot.profile if len(self._contexts) > 1 else 0]
        context = ready.context
        if ready.profile != slot.profile:
            self._switch(ready, slot.profile)
        if ready.shape != slot.shape:
            for name, sizes in slot.sizes:
                if not context.set_input_shape(name, sizes):
                    self._require(False, f"setting the shape of {name} to {sizes}")
            ready.shape = slot.shape
        for name, pointer in slot.addresses:
            if not context.set_tensor_address(name, pointer):
                self._require(False, f"binding {name}")
        if not context.execute_async_v3(self._handle):
            self._require(False, "enqueueing an inference")
        self.stream.synchronize()
        return slot

    def launch(self, slot: Slot) -> Slot:
        return self.answer(slot)

    def run(self, slot: Slot) -> Slot:
        return self.answer(slot)

    def _switch(self, ready: Ready, profile: int) -> None:
        """Make a profile the active one of a context, whose shapes are to be set anew then."""
        if ready.profile == profile:
            return
        context = ready.context
        if not context.set_optimization_profile_async(profile, self.stream.handle):
            self._require(False, f"selecting optimisation profile {profile}")
        ready.profile, ready.shape = profile, None
        self._switches += 1

    def output_pointers(self, launched: Slot) -> tuple[int, ...]:
        return launched.outputs

    def name_work(self) -> None:
        for ready in self._contexts:
            context = ready.context
            context.nvtx_verbosity = self.trt.ProfilingVerbosity.LAYER_NAMES_ONLY

    def device_bytes(self) -> int:
        return cuda.memory_used()

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"contexts": len(self._contexts), "profile_switches": self._switches}


RUNNER = TensorRtChanging
