"""A TensorRT that cannot compute, made from what the real bindings offer (``tensorrt_surface.json``), and a CUDA and a
PyCUDA whose device is the host's memory.

A call that the real bindings do not have, with arguments that they do not take, or to a property that they do not let
be set, fails here as it fails there. What a call does is in ``Behaviour``; one that has none there fails too.
"""

from __future__ import annotations

import ctypes
import enum
import inspect
import types
from typing import Any

import numpy as np
import real_bindings as real

INPUTS = ("input_ids", "attention_mask")


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


class Behaviour:
    """An engine of a classifier: its logits are, per row, the sum of the unmasked tokens, and its negative.

    Attributes:
        profiles: (min, opt, max) shapes of each optimisation profile.
        refuses: Calls that fail, as TensorRT's calls do, with what the logger is then told.
        written: (class, property, value) of what was set.
    """

    def __init__(self, profiles: Any = (((1, 8), (2, 8), (4, 8)), ((1, 16), (2, 32), (8, 32)))) -> None:
        self.trt: Any = None
        self.profiles = profiles
        self.refuses: dict[str, str] = {}
        self.logits = "FLOAT"
        self.tensors = dict.fromkeys(INPUTS, "INT64") | {"logits": ""}
        self.active = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
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

    def ICudaEngine_create_execution_context(self, _: Any) -> Any:
        return self.trt.IExecutionContext.__new__(self.trt.IExecutionContext)

    def ICudaEngine_num_io_tensors(self, _: Any) -> int:
        return len(self.tensors)

    def ICudaEngine_get_tensor_name(self, _: Any, index: int) -> str:
        return list(self.tensors)[index]

    def ICudaEngine_get_tensor_mode(self, _: Any, name: str) -> Any:
        return self.trt.TensorIOMode["OUTPUT" if name == "logits" else "INPUT"]

    def ICudaEngine_get_tensor_dtype(self, _: Any, name: str) -> Any:
        return self.trt.DataType[self.tensors[name] or self.logits]

    def ICudaEngine_get_tensor_shape(self, _: Any, name: str) -> tuple[int, ...]:
        return (-1, 2) if name == "logits" else (-1, -1)

    def ICudaEngine_num_optimization_profiles(self, _: Any) -> int:
        return len(self.profiles)

    def ICudaEngine_get_tensor_profile_shape(self, _: Any, name: str, index: int) -> Any:
        assert name in INPUTS
        return list(self.profiles[index])

    def ICudaEngine_num_layers(self, _: Any) -> int:
        return 1

    def ICudaEngine_device_memory_size_v2(self, _: Any) -> int:
        return 0

    def ICudaEngine_num_aux_streams(self, _: Any) -> int:
        return 0

    def IExecutionContext_active_optimization_profile(self, _: Any) -> int:
        return self.active

    def IExecutionContext_set_optimization_profile_async(self, _: Any, index: int, stream: int) -> bool:
        self.active = index
        self.streams.append(stream)
        return True

    def IExecutionContext_set_input_shape(self, _: Any, name: str, shape: tuple[int, ...]) -> bool:
        low, _opt, high = self.profiles[self.active]
        self.shapes[name] = tuple(shape)
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def IExecutionContext_get_tensor_shape(self, _: Any, name: str) -> tuple[int, ...]:
        return (self.shapes[INPUTS[0]][0], 2)

    def IExecutionContext_set_tensor_address(self, _: Any, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def IExecutionContext_execute_async_v3(self, _: Any, stream_handle: int) -> bool:
        self.streams.append(stream_handle)
        Cuda.enqueue(self._infer)
        if self.profiler is not None:
            for name, ms in (("embeddings", 0.25), ("classifier", 0.5), ("embeddings", 0.25)):
                self.profiler.report_layer_time(name, ms)
        return True

    profiler: Any = None

    def _infer(self) -> None:
        batch, sequence = self.shapes[INPUTS[0]]
        read = [np.frombuffer(ctypes.string_at(self.addresses[n], batch * sequence * 8), np.int64) for n in INPUTS]
        sums = (read[0] * read[1]).reshape(batch, sequence).sum(axis=1)
        kind = {"FLOAT": np.float32, "HALF": np.float16}[self.logits]
        logits = np.stack([sums, -sums], axis=1).astype(kind)
        ctypes.memmove(self.addresses["logits"], logits.ctypes.data, logits.nbytes)


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
