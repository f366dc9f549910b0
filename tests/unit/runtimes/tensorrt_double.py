"""A TensorRT that cannot compute, made from what the real bindings offer (``tensorrt_surface.json``), and a CUDA and a
PyCUDA whose device is the host's memory.

A call that the real bindings do not have, with arguments that they do not take, or to a property that they do not let
be set, fails here as it fails there. What a call does is in ``Behaviour``; one that has none there fails too.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import inspect
import types
from typing import Any

import numpy as np
import real_bindings as real

from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

TYPES = {"int64": "INT64", "float32": "FLOAT"}
"""TensorRT's names of the types that workloads have here."""

NUMPY = {"INT64": np.int64, "FLOAT": np.float32, "HALF": np.float16}


def sums(inputs: dict[str, Any]) -> dict[str, Any]:
    """Logits of a classifier that, per row, are the sum of the unmasked tokens, and its negative."""
    row = (inputs["input_ids"] * inputs["attention_mask"]).sum(axis=1)
    return {"logits": np.stack([row, -row], axis=1)}


def module(generation: str, behaviour: Behaviour) -> types.ModuleType:
    """A module with the classes of a generation of TensorRT."""
    surface = real.committed()[generation]
    made = types.ModuleType("tensorrt")
    made.__version__ = surface["version"]
    for name, offered in surface["classes"].items():
        setattr(made, name, _class(name, offered, behaviour))
    behaviour.trt = made
    return made


def _class(name: str, offered: dict[str, Any], behaviour: Behaviour) -> type:
    if "members" in offered:
        return enum.Enum(name, offered["members"])
    methods = {method: _method(name, method, forms, behaviour) for method, forms in offered["methods"].items()}
    readable = {each: _property(name, each, settable, behaviour) for each, settable in offered["properties"].items()}
    inner = {each: _class(each, kind, behaviour) for each, kind in offered["classes"].items()}
    values = {each: inner[kind][each] for each, kind in offered["values"].items()}
    return type(name, (), {**methods, **readable, **inner, **values})


def _method(owner: str, name: str, forms: list[list[list[Any]]], behaviour: Behaviour) -> Any:
    signatures = [
        inspect.Signature(
            inspect.Parameter(
                parameter,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if required else None,
            )
            for parameter, required in form
        )
        for form in forms
    ]

    def call(self: Any, *positional: Any, **named: Any) -> Any:
        for signature in signatures:
            try:
                signature.bind(*positional, **named)
            except TypeError:
                continue
            return behaviour.called(owner, name)(self, *positional, **named)
        raise TypeError(f"{owner}.{name}{positional}{named or ''}: the bindings take {[str(s) for s in signatures]}")

    return call


def _property(owner: str, name: str, settable: bool, behaviour: Behaviour) -> property:
    def write(self: Any, value: Any) -> None:
        behaviour.written.append((owner, name, value))
        if name == "profiler":
            behaviour.profiler = value

    def read(self: Any) -> Any:
        return behaviour.called(owner, name)(self)

    return property(read, write if settable else None)


@dataclasses.dataclass
class State:
    """What an execution context is set to."""

    engine: Any
    context: Any
    active: int
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    addresses: dict[str, int] = dataclasses.field(default_factory=dict)


class Behaviour:
    """An engine of a workload.

    Attributes:
        workload: Its tensors; none of its axes is fixed.
        profiles: Names of the shapes at min, opt and max of each optimisation profile.
        compute: Its outputs by name, of its inputs by name.
        types: TensorRT's type of each tensor.
        refuses: Calls that fail, as TensorRT's calls do, with what the logger then gets.
        written: (class, property, value) of what was set.
    """

    def __init__(
        self,
        workload: Workload,
        profiles: Any = (("b1-s8", "b2-s8", "b4-s8"), ("b1-s16", "b2-s32", "b8-s32")),
        compute: Any = sums,
    ) -> None:
        self.trt: Any = None
        self.specs = {tensor.name: tensor for tensor in (*workload.inputs, *workload.outputs)}
        self.outputs = [tensor.name for tensor in workload.outputs]
        self.profiles = [tuple(map(Shape.parse, profile)) for profile in profiles]
        self.compute = compute
        self.refuses: dict[str, str] = {}
        self.types = {name: TYPES[tensor.dtype] for name, tensor in self.specs.items()}
        self.contexts: list[State] = []
        self.streams: list[int] = []
        self.written: list[tuple[str, str, Any]] = []
        self.said: list[str] = []

    def called(self, owner: str, name: str) -> Any:
        """What a call or a property does; a refused one tells the logger why and returns what a failing call does."""
        self.said.append(name)
        if name in self.refuses:
            message = self.refuses[name]

            def refuse(*_: Any, **__: Any) -> Any:
                self.logger.log(self.trt.ILogger.Severity.ERROR, message)

            return refuse
        return getattr(self, f"{owner}_{name.strip('_')}")

    def ILogger_init(self, _: Any) -> None:
        pass

    def IProfiler_init(self, _: Any) -> None:
        pass

    def Runtime_init(self, _: Any, logger: Any) -> None:
        self.logger = logger

    def Runtime_deserialize_cuda_engine(self, _: Any, content: bytes) -> Any:
        return self.trt.ICudaEngine.__new__(self.trt.ICudaEngine)

    @property
    def active(self) -> int:
        """The profile of the first context."""
        return self.contexts[0].active

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that the first context is set to."""
        return self.contexts[0].sizes

    def ICudaEngine_create_execution_context(self, engine: Any) -> Any:
        context = self.trt.IExecutionContext.__new__(self.trt.IExecutionContext)
        # The first one has the first profile; another one has none until it is given one that no context has.
        first = not any(one.engine is engine for one in self.contexts)
        self.contexts.append(State(engine, context, 0 if first else -1))
        return context

    def _of(self, context: Any) -> State:
        return next(one for one in self.contexts if one.context is context)

    def ICudaEngine_num_io_tensors(self, _: Any) -> int:
        return len(self.specs)

    def ICudaEngine_get_tensor_name(self, _: Any, index: int) -> str:
        return list(self.specs)[index]

    def ICudaEngine_get_tensor_mode(self, _: Any, name: str) -> Any:
        return self.trt.TensorIOMode["OUTPUT" if name in self.outputs else "INPUT"]

    def ICudaEngine_get_tensor_dtype(self, _: Any, name: str) -> Any:
        return self.trt.DataType[self.types[name]]

    def ICudaEngine_get_tensor_shape(self, _: Any, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(dim, str) else dim for dim in self.specs[name].dims)

    def ICudaEngine_num_optimization_profiles(self, _: Any) -> int:
        return len(self.profiles)

    def ICudaEngine_get_tensor_profile_shape(self, _: Any, name: str, index: int) -> Any:
        assert name not in self.outputs
        return [self.specs[name].sizes(shape) for shape in self.profiles[index]]

    def ICudaEngine_num_layers(self, _: Any) -> int:
        return 1

    def ICudaEngine_device_memory_size_v2(self, _: Any) -> int:
        return 0

    def ICudaEngine_num_aux_streams(self, _: Any) -> int:
        return 0

    def IExecutionContext_active_optimization_profile(self, context: Any) -> int:
        return self._of(context).active

    def IExecutionContext_set_optimization_profile_async(self, context: Any, index: int, stream: int) -> bool:
        state = self._of(context)
        others = [one for one in self.contexts if one.engine is state.engine and one is not state]
        assert index not in [one.active for one in others], "two contexts of an engine have one profile"
        state.active, state.sizes = index, {}
        self.streams.append(stream)
        return True

    def IExecutionContext_set_input_shape(self, context: Any, name: str, shape: tuple[int, ...]) -> bool:
        state = self._of(context)
        state.sizes |= {
            dim: size for dim, size in zip(self.specs[name].dims, shape, strict=True) if isinstance(dim, str)
        }
        low, _opt, high = (self.specs[name].sizes(each) for each in self.profiles[state.active])
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def IExecutionContext_get_tensor_shape(self, context: Any, name: str) -> tuple[int, ...]:
        return self.specs[name].sizes(Shape.of(self._of(context).sizes))

    def IExecutionContext_set_tensor_address(self, context: Any, name: str, memory: int) -> bool:
        self._of(context).addresses[name] = memory
        return True

    def IExecutionContext_execute_async_v3(self, context: Any, stream_handle: int) -> bool:
        self.streams.append(stream_handle)
        state = self._of(context)
        Cuda.enqueue(lambda: self._infer(state))
        if self.profiler is not None:
            for name, ms in (("embeddings", 0.25), ("classifier", 0.5), ("embeddings", 0.25)):
                self.profiler.report_layer_time(name, ms)
        return True

    profiler: Any = None

    def _infer(self, state: State) -> None:
        shape, inputs = Shape.of(state.sizes), {}
        for name, tensor in self.specs.items():
            if name not in self.outputs:
                raw = ctypes.string_at(state.addresses[name], tensor.nbytes(shape))
                inputs[name] = np.frombuffer(raw, NUMPY[self.types[name]]).reshape(tensor.sizes(shape))
        for name, values in self.compute(inputs).items():
            written = np.ascontiguousarray(values, NUMPY[self.types[name]])
            ctypes.memmove(state.addresses[name], written.ctypes.data, written.nbytes)


class Cuda:
    """CUDA's runtime API on the host's memory: calls as ``cuda.bindings.runtime`` has them, done at once.

    A capture keeps what is enqueued instead of doing it; launching the graph does it.
    """

    capturing: list[Any] | None = None
    uncapturable = False

    @classmethod
    def enqueue(cls, work: Any) -> None:
        """Do ``work`` now, or keep it if a capture is on."""
        if cls.capturing is None:
            work()
        else:
            cls.capturing.append(work)

    @classmethod
    def namespace(cls, **more: Any) -> types.SimpleNamespace:
        """What stands for ``cuda.bindings.runtime``."""
        from cuda.bindings import runtime as cudart

        def copy(to: int, at: int, nbytes: int, kind: Any, stream: Any = None) -> tuple[int]:
            cls.enqueue(lambda: ctypes.memmove(int(to), int(at), nbytes))
            return (0,)

        def begin(stream: Any, mode: Any) -> tuple[int]:
            cls.capturing = []
            return (0,)

        def end(stream: Any) -> tuple[Any, ...]:
            kept, cls.capturing = cls.capturing, None
            invalidated = cudart.cudaError_t.cudaErrorStreamCaptureInvalidated
            return (invalidated, None) if cls.uncapturable else (cudart.cudaError_t.cudaSuccess, kept)

        def launch(graph: list[Any], stream: Any) -> tuple[int]:
            for work in graph:
                work()
            return (0,)

        calls = {
            "cudaMemcpyAsync": copy,
            "cudaMemcpy": copy,
            "cudaStreamBeginCapture": begin,
            "cudaStreamEndCapture": end,
            "cudaGraphGetNodes": lambda graph: (0, None, len(graph)),
            "cudaGraphInstantiate": lambda graph, flags: (0, graph),
            "cudaGraphLaunch": launch,
        }
        done = ("cudaSetDevice", "cudaFree", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaGraphDestroy")
        calls |= dict.fromkeys((*done, "cudaGetLastError"), lambda *_: (0,))
        unknown = [name for name in calls if not hasattr(cudart, name)]
        assert not unknown, f"cuda.bindings has no {unknown}"
        kept = {name: getattr(cudart, name) for name in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode")}
        return types.SimpleNamespace(**calls, **kept, cudaStream_t=lambda handle: handle, **more)


def pycuda() -> dict[str, types.ModuleType]:
    """What stands for PyCUDA, as entries of ``sys.modules``; the real one runs in ``tests/gpu``."""
    package, driver = types.ModuleType("pycuda"), types.ModuleType("pycuda.driver")

    def allocate(nbytes: int) -> Any:
        assert nbytes > 0
        return _Allocation(nbytes)

    context = types.SimpleNamespace(push=lambda: None, pop=lambda: None)
    driver.init = lambda: None
    driver.Device = lambda index: types.SimpleNamespace(retain_primary_context=lambda: context)
    driver.Context = types.SimpleNamespace(synchronize=lambda: None)
    driver.Stream = lambda flags=0: types.SimpleNamespace(handle=4711, flags=flags)
    driver.Event = _Event
    driver.MemoryError = type("MemoryError", (Exception,), {})
    driver.mem_alloc = allocate
    driver.memcpy_htod = lambda to, values: ctypes.memmove(to, values.ctypes.data, values.nbytes)
    driver.pagelocked_empty = np.empty
    package.driver = driver
    return {"pycuda": package, "pycuda.driver": driver}


class _Allocation:
    def __init__(self, nbytes: int) -> None:
        self._memory = (ctypes.c_byte * nbytes)()

    def __int__(self) -> int:
        return ctypes.addressof(self._memory)


class _Event:
    def record(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def time_till(self, other: Any) -> float:
        return 1.5
