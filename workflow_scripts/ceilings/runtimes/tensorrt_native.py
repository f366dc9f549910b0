"""TensorRT executing an engine natively: TensorRT 10 and 11, and TensorRT for RTX, whose Python surfaces agree here.

``tests/unit/runtimes/test_tensorrt_surface.py`` holds every call in here against the real bindings of all three.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from ceilings import gpu
from ceilings.cuda import device as cuda
from ceilings.engines import attention_plugin
from ceilings.engines import engine_record as record
from ceilings.engines.catalogue import BUILDERS
from ceilings.engines.library import bindings, make_logger
from ceilings.engines.profiles import Profile, Range, covering
from ceilings.errors import CellFailure
from ceilings.runtimes.pycuda_runner import PyCudaRunner

ELEMENT_TYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FLOAT": "float32",
}
"""TensorRT's names of element types that cross the boundary, and NumPy's."""

MESSAGES = (
    ("out-of-memory", re.compile(r"out of ?memory|OutOfMemory", re.IGNORECASE)),
    (
        "engine-incompatible",
        re.compile(
            r"serializ|magic tag|version tag|compute capability|different platform|not compatible|incompatible"
            r"|created with|lean runtime|engine plan",
            re.IGNORECASE,
        ),
    ),
    ("outside-profiles", re.compile(r"optimization profile|profile dimension|satisfyProfile", re.IGNORECASE)),
)
"""What TensorRT's messages say about a cell; its calls themselves return only False or None."""


class TensorRt(PyCudaRunner):
    """Executes an engine.

    Options: ``builder`` (the generation, of ``ceilings.engines.catalogue``), ``cuda_graph``, ``contexts``: ``one``
    (default), or ``per-profile``, which at one shape take memory alone.
    """

    def load(self) -> None:
        self.open_device()
        generation = BUILDERS[self.options["builder"]]
        with self.phase("libraries"):
            trt = self.trt = bindings(generation)
        with self.phase("load"):
            facts = record.load(self.artifact)
            content = record.verified(
                self.artifact,
                builder=generation.name,
                version=trt.__version__,
                device=gpu.visible().slug,
                capability=cuda.capability(),
            )
        self.log = make_logger(trt)
        if attention_plugin.NAME.encode() in content:
            # By name: such an engine alone needs PyTorch and Triton.
            kernels = importlib.import_module("ceilings.kernels.tensorrt_attention")
            self.plugin = attention_plugin.register(trt, kernels.run)
        with self.phase("deserialize"):
            runtime = self.runtime = self._runtime()
            # Such an engine brings its own small runtime, which is code; its digest is known by now.
            runtime.engine_host_code_allowed = bool(facts["version_compatible"])
            self.engine = self._made(runtime.deserialize_cuda_engine(content), "deserialising the engine")
        del content
        with self.phase("execution_context"):
            self.context = self._make_context()
            self._select_profile()
        self._bind()
        self.prepare_launch()

    def _runtime(self) -> Any:
        try:
            return self.trt.Runtime(self.log)
        except TypeError as error:  # the bindings' way to say that the library made none
            raise failure(f"making a runtime ({error})", self.log.errors) from error

    def _make_context(self) -> Any:
        context = self._made(self.engine.create_execution_context(), "making an execution context")
        # Engines are built to tell their layers; telling them to a profiler at each inference costs the host time.
        context.nvtx_verbosity = self.trt.ProfilingVerbosity.NONE
        return context

    def _other_contexts(self) -> list[Any]:
        """Those of further profiles, where each has a context."""
        count = len(self.profiles) - 1 if self.options.get("contexts") == "per-profile" else 0
        return [self._make_context() for _ in range(count)]

    def _read_profiles(self) -> None:
        """The engine's profiles, and the first that takes the shape."""
        self._refuse_another_interface()
        self.profiles = [self._profile(i) for i in range(self.engine.num_optimization_profiles)]
        self.profile = covering(self.profiles, self.shape)

    def _select_profile(self) -> None:
        self._read_profiles()
        context, self._kept = self.context, self._other_contexts()
        if context.active_optimization_profile != self.profile:
            done = context.set_optimization_profile_async(self.profile, self.stream.handle)
            self._require(done, f"selecting optimisation profile {self.profile}")
            self.stream.synchronize()
        for tensor in self.workload.inputs:
            sizes = tensor.sizes(self.shape)
            done = context.set_input_shape(tensor.name, sizes)
            self._require(done, f"setting the shape of {tensor.name} to {sizes}")

    def _refuse_another_interface(self) -> None:
        """An engine of another model, or of other types, is not fed."""
        engine = self.engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        wanted = [tensor.name for tensor in self.workload.inputs], [tensor.name for tensor in self.workload.outputs]
        if (set(inputs), set(outputs)) != tuple(map(set, wanted)):
            raise CellFailure(
                "unsupported",
                f"the engine is of another model: it reads {', '.join(inputs)} and writes {', '.join(outputs)}, and "
                f"the model reads {', '.join(wanted[0])} and writes {', '.join(wanted[1])}",
            )
        for tensor in self.workload.inputs:
            if (kind := self._type(tensor.name)) != tensor.dtype:
                raise CellFailure(
                    "unsupported", f"the engine reads {tensor.name} as {kind}; the inputs are {tensor.dtype}"
                )

    def _type(self, name: str) -> str:
        """Element type of a tensor: NumPy's name, else TensorRT's."""
        kind = self.engine.get_tensor_dtype(name).name
        return ELEMENT_TYPES.get(kind, kind)

    def _profile(self, index: int) -> Profile:
        """A profile as the engine itself has it; an engine without dynamic axes has one, which holds no ranges."""
        ranges: dict[str, Range] = {}
        for tensor in self.workload.inputs:
            sizes = tuple(self.engine.get_tensor_shape(tensor.name))
            low = best = high = sizes
            if any(size < 0 for size in sizes):
                low, best, high = (tuple(part) for part in self.engine.get_tensor_profile_shape(tensor.name, index))
            for axis, *range_ in zip(tensor.dims, low, best, high, strict=True):
                if isinstance(axis, str):
                    ranges.setdefault(axis, (range_[0], range_[1], range_[2]))
        return Profile(ranges)

    def _take_output_types(self) -> None:
        for output in self.workload.outputs:
            if (kind := self._type(output.name)) not in ELEMENT_TYPES.values():
                known = ", ".join(ELEMENT_TYPES.values())
                raise CellFailure("unsupported", f"the engine's {output.name} is {kind}; known: {known}")
        self.output_types = tuple(self._type(output.name) for output in self.workload.outputs)

    def _bind(self) -> None:
        self._take_output_types()
        context = self.context
        for output, sizes in zip(self.workload.outputs, self.output_sizes(), strict=True):
            if (actual := tuple(context.get_tensor_shape(output.name))) != sizes:
                raise CellFailure("unsupported", f"the engine's {output.name} has shape {actual}, not {sizes}")
        self.allocate()
        addresses = {name: pointer for name, (pointer, _) in self.input_buffers.items()}
        addresses |= {name: buffer.pointer for name, buffer in self.output_buffers.items()}
        for name, pointer in addresses.items():
            self._require(context.set_tensor_address(name, pointer), f"binding {name}")
        self._execute, self._handle = context.execute_async_v3, self.stream.handle

    def name_work(self) -> None:
        self.context.nvtx_verbosity = self.trt.ProfilingVerbosity.LAYER_NAMES_ONLY

    def enqueue(self) -> None:
        if not self._execute(self._handle):
            self._require(False, "enqueueing an inference")

    def _made(self, thing: Any, what: str) -> Any:
        """``thing``, which TensorRT made; it returns None where it could not."""
        self._require(thing is not None, what)
        return thing

    def _require(self, done: bool, what: str) -> None:
        """Raise what TensorRT said if a call of it did not succeed."""
        if not done:
            raise failure(what, self.log.errors)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "builder": self.options["builder"],
            "tensorrt": self.trt.__version__,
            "profile": self.profile,
            "profiles": [str(profile) for profile in self.profiles],
            "layers": self.engine.num_layers,
            "activation_bytes": self.engine.device_memory_size_v2,
            "auxiliary_streams": self.engine.num_aux_streams,
            "messages": self.log.errors[-5:],
        }


def failure(what: str, errors: list[str]) -> CellFailure:
    """What TensorRT's errors say about a cell, once ``what`` did not succeed."""
    reason = " | ".join(errors[-3:]) or "TensorRT gave no reason"
    text = f"{what} failed: {reason}"
    kind = next((kind for kind, pattern in MESSAGES if pattern.search(text)), "runtime-error")
    return CellFailure(kind, text[:600])


RUNNER = TensorRt
