"""ONNX Runtime on its CUDA execution provider."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure, UserError
from ceilings.runtimes import placement
from ceilings.runtimes.base import Inputs, example
from ceilings.runtimes.cuda_runner import CudaRunner
from ceilings.runtimes.onnxruntime_session import (
    ONNX_NUMBERS,
    applied,
    cuda_settings,
    inputs_of,
    open_session,
    output_types,
    session_options,
)
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload

PROVIDER = "CUDAExecutionProvider"

WITHOUT = ["WeightBiasQuantization"]
"""Optimizers of ORT that are left out. This one gives a classifier's bias an int32 DequantizeLinear, for which the
CUDA provider has no kernel: a copy to the CPU and back in each run, for which no integer product is gained."""

RUNS_BEFORE_CAPTURE = 3
"""Two regular runs are required; the capture takes place within one of these, all apart from the timing."""


class OnnxRuntimeCuda(CudaRunner):
    """Executes an ONNX variant with inputs and outputs bound to fixed addresses of the device.

    Options: ``cuda_graph`` (ORT captures and replays), ``dynamic`` (axes stay symbolic, and other shapes run first),
    and settings of ``OF_ORT_CUDA``.
    """

    provider: ClassVar[str] = PROVIDER

    def load(self) -> None:
        self.open_device()
        with self.phase("libraries"):
            self._libraries = self._preload()
        with self.failures():
            self._open()
            self._bind()
            self._make_ready()

    def _make_ready(self) -> None:
        """What has to run before the first inference."""
        if self.options.get("dynamic"):
            self._run_other_shapes()
        if self.options.get("cuda_graph"):
            with self.phase("capture"):
                for _ in range(RUNS_BEFORE_CAPTURE):
                    self.session.run_with_iobinding(self._binding)
                    self.stream.synchronize()

    def _preload(self) -> str:
        """Load what the provider needs; what could not be, in ONNX Runtime's words."""
        return preload()

    def _open(self) -> None:
        with self.phase("load"):
            options = self._options()
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            self.session = self._session(options, graph=bool(self.options.get("cuda_graph")))
        self._refuse_fallback()
        # Off by default only in name: without this a failing provider is replaced by the CPU's, with a line on stdout.
        self.session.disable_fallback()

    def _refuse_fallback(self) -> None:
        if self.provider not in self.session.get_providers():
            raise CellFailure("fallback", f"ONNX Runtime could not load its {self.provider}. {self._libraries}".strip())
        placement.refuse_fallback(placement.assigned(self.session), self.provider)

    def _options(self) -> onnxruntime.SessionOptions:
        """One CPU thread: no kernel that counts runs there, and idle threads of a pool would spin."""
        return session_options(1, None if self.options.get("dynamic") else self.shape, self.options)

    def _session(self, options: onnxruntime.SessionOptions, graph: bool = False) -> onnxruntime.InferenceSession:
        provider = {
            "device_id": "0",
            "user_compute_stream": str(self.stream.handle),
            "use_tf32": "1" if self.precision == "tf32" else "0",
            "enable_cuda_graph": "1" if graph else "0",
            **cuda_settings(self.options),
        }
        return open_session(self.artifact, options, [(PROVIDER, provider), "CPUExecutionProvider"], WITHOUT)

    def _bind(self) -> None:
        self._read_interface()
        self._buffers: dict[str, cuda.DeviceBuffer] = {}
        self._binding = self.session.io_binding()
        for name, values in self._example(self.shape).items():
            buffer = self._buffers[name] = cuda.DeviceBuffer(values.nbytes)
            buffer.upload(values)
            self._binding.bind_input(name, "cuda", 0, values.dtype.type, values.shape, buffer.pointer)
        self.input_buffers = {name: (buffer.pointer, buffer.nbytes) for name, buffer in self._buffers.items()}
        self._outputs = [cuda.DeviceBuffer(nbytes) for nbytes in self.output_bytes]
        self._pointers = tuple(buffer.pointer for buffer in self._outputs)
        for output, kind, sizes, pointer in zip(
            self.workload.outputs, self.output_types, self.output_sizes(), self._pointers, strict=True
        ):
            self._binding.bind_output(output.name, "cuda", 0, ONNX_NUMBERS[kind], sizes, pointer)
        # Else a run ends with a wait of its own, and host and device could not be told apart.
        self._unsynchronised = onnxruntime.RunOptions()
        self._unsynchronised.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._run = self.session.run_with_iobinding

    def _read_interface(self) -> None:
        """Which tensors the graph reads, and as what it writes the outputs."""
        self._inputs = inputs_of(self.session, self.workload)
        self.output_types = output_types(self.session, self.workload)

    def _example(self, shape: Shape) -> dict[str, NDArray[Any]]:
        """A feed of a shape."""
        values = example(self.workload, shape)
        return {tensor.name: values[tensor.name] for tensor in self._inputs}

    def _run_other_shapes(self) -> None:
        dynamic = {dim for value in self.session.get_inputs() for dim in value.shape if isinstance(dim, str)}
        with self.phase("other_shapes"):
            for shape in other_shapes(self.shape, [axis for axis in self.shape.axes if axis in dynamic]):
                self.session.run(None, self._example(shape))

    def launch(self, slot: Any) -> Any:
        self._run(self._binding, self._unsynchronised)

    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        return self._pointers

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        try:
            yield
        except (CellFailure, UserError):
            raise
        except Exception as error:  # ORT's exceptions share no base class but Exception
            if failure := self._explain(error):
                raise failure from error
            raise

    def _explain(self, error: Exception) -> CellFailure | None:
        """What an exception says about the cell; None if it says nothing."""
        return explain(error)

    def describe(self) -> dict[str, Any]:
        """Facts from one profiled run of a second session, after everything is timed.

        Raises:
            CellFailure: A node that computes ran on the CPU.
        """
        facts: dict[str, Any] = {
            "providers": self.session.get_providers(),
            "provider_options": dict(self.session.get_provider_options().get(self.provider) or {}),
            "session": applied(self.session),
            "disabled_optimizers": WITHOUT,
            "cuda_graph": bool(self.options.get("cuda_graph")),
            "dynamic_shapes": bool(self.options.get("dynamic")),
            "libraries": self._libraries,
        }
        facts["provider_options"].pop("user_compute_stream", None)  # an address
        try:
            nodes = self._profile()
        except Exception as error:  # a second copy of a model may not fit where one did
            return facts | placement.unknown(error)
        placement.refuse_fallback(nodes, self.provider)
        return facts | {"placement": placement.summary(nodes)}

    def _profile(self) -> list[placement.Node]:
        return placement.profile(self._options(), self._session, self._example(self.shape))


class OnnxRuntimeCudaNoBinding(OnnxRuntimeCuda):
    """The same session called with arrays of the host: ORT copies in and out and waits."""

    transfers_inside = True

    def _bind(self) -> None:
        self._read_interface()
        self._names = [output.name for output in self.workload.outputs]
        self.input_buffers = {}

    def place(self, element: Inputs) -> Any:
        return {tensor.name: np.ascontiguousarray(element[tensor.name]) for tensor in self._inputs}

    def activate(self, slot: Any) -> None:
        pass

    def launch(self, slot: Any) -> Any:
        return self.session.run(self._names, slot)

    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        raise TypeError("the outputs are on the host")

    def outputs(self, launched: Any) -> dict[str, NDArray[np.float32]]:
        return {name: value.astype(np.float32, copy=False) for name, value in zip(self._names, launched, strict=True)}


def other_shapes(shape: Shape, axes: Sequence[str]) -> list[Shape]:
    """Shapes that a session has run before it is timed: each of ``axes`` halved, and all of them small.

    >>> [str(other) for other in other_shapes(Shape.parse("b8-s128"), ["batch", "sequence"])]
    ['b1-s16', 'b4-s128', 'b8-s64']
    """
    small = {axis: 1 if axis == "batch" else min(16, shape[axis]) for axis in axes}
    halved = [{axis: max(1, shape[axis] // 2)} for axis in axes]
    return sorted({shape.with_sizes(**sizes) for sizes in (small, *halved)} - {shape})


def preload() -> str:
    """Load the CUDA libraries of the ``nvidia-*`` packages, wherever those are installed, without PyTorch.

    ``onnxruntime.preload_dlls`` looks beside onnxruntime only; elsewhere it must be given the folder.

    Returns:
        What could not be loaded, in ONNX Runtime's words; empty if nothing.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    refused = io.StringIO()
    with contextlib.redirect_stdout(refused):
        for kind, part in (("cuda", "cu13"), ("cudnn", "cudnn")):
            places = [folder / part / "lib" for folder in folders if (folder / part / "lib").is_dir()]
            chosen = {"cuda": kind == "cuda", "cudnn": kind == "cudnn"}
            onnxruntime.preload_dlls(**chosen, directory=str(places[0]) if places else None)
    return " ".join(refused.getvalue().split())


def explain(error: Exception) -> CellFailure | None:
    """What an exception of ONNX Runtime says about the cell; None if it says nothing."""
    lines = str(error).strip().splitlines()
    message = lines[0][:300] if lines else type(error).__name__
    text = str(error).lower()
    if "out of memory" in text or "failed to allocate memory" in text or "cublas_status_alloc_failed" in text:
        return CellFailure("out-of-memory", message)
    if (
        type(error).__name__ == "NotImplemented"
        or "not_implemented" in text
        or "could not find an implementation" in text
    ):
        return CellFailure("unsupported", message)
    if "cannot use the graph capture feature" in text or "have not been partitioned" in text:
        return CellFailure("fallback", message)
    return None


def RUNNER(  # noqa: PLR0917 - a runner's own arguments
    artifact: Path, precision: str, workload: Workload, shape: Shape, threads: int, options: Any
) -> CudaRunner:
    """The runner that the options ask for."""
    kind = OnnxRuntimeCuda if options.get("io_binding", True) else OnnxRuntimeCudaNoBinding
    return kind(artifact, precision, workload, shape, threads, options)
