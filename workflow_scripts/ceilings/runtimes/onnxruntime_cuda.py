"""ONNX Runtime on its CUDA execution provider."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure, UserError
from ceilings.runtimes import placement
from ceilings.runtimes.base import Inputs
from ceilings.runtimes.cuda_runner import CudaRunner
from ceilings.runtimes.onnxruntime_cpu import INPUTS, open_session, session_options

PROVIDER = "CUDAExecutionProvider"
OUTPUT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(bfloat16)": "bfloat16"}
ELEMENT_TYPES = {"float32": 1, "float16": 10, "bfloat16": 16}
"""onnx.TensorProto's numbers; as numbers, because numpy has no bfloat16."""

ARENA = "kSameAsRequested"
"""The default doubles with each extension: peak memory would tell powers of two rather than what the model needs."""

WITHOUT = ["WeightBiasQuantization"]
"""Optimizers of ORT that are left out. This one gives the classifier's bias an int32 DequantizeLinear, for which the
CUDA provider has no kernel: a copy to the CPU and back in each run, for which no integer product is gained."""

RUNS_BEFORE_CAPTURE = 3
"""Two regular runs are required; the capture takes place within one of these, all apart from the timing."""


class OnnxRuntimeCuda(CudaRunner):
    """Executes an ONNX variant with inputs and output bound to fixed addresses of the device.

    Options: ``cuda_graph`` (ORT captures and replays), ``dynamic`` (axes stay symbolic, and other shapes run first).
    """

    provider: ClassVar[str] = PROVIDER

    def load(self) -> None:
        self.open_device()
        with self.phase("libraries"):
            self._libraries = self._preload()
        with self.failures():
            self._open()
            self._bind()
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
        return session_options(1, None if self.options.get("dynamic") else self.shape)

    def _session(self, options: onnxruntime.SessionOptions, graph: bool = False) -> onnxruntime.InferenceSession:
        provider = {
            "device_id": "0",
            "user_compute_stream": str(self.stream.handle),
            "use_tf32": "1" if self.precision == "tf32" else "0",
            "arena_extend_strategy": ARENA,
            "enable_cuda_graph": "1" if graph else "0",
        }
        return open_session(self.artifact, options, [(PROVIDER, provider), "CPUExecutionProvider"], WITHOUT)

    def _bind(self) -> None:
        nbytes = int(np.prod(self.shape)) * 8
        self._buffers = {name: cuda.DeviceBuffer(nbytes) for name in INPUTS}
        for buffer in self._buffers.values():
            buffer.upload(np.ones(self.shape, np.int64))
        self.input_buffers = {name: (buffer.pointer, buffer.nbytes) for name, buffer in self._buffers.items()}
        output = self.session.get_outputs()[0]
        if output.type not in OUTPUT_TYPES:
            raise CellFailure("unsupported", f"the graph's logits are {output.type}; known: {', '.join(OUTPUT_TYPES)}")
        self.output_type = OUTPUT_TYPES[output.type]
        self.output_shape = (self.shape[0], self._classes())
        self._output = cuda.DeviceBuffer(self.output_bytes)
        self._binding = self.session.io_binding()
        for name, buffer in self._buffers.items():
            self._binding.bind_input(name, "cuda", 0, np.int64, self.shape, buffer.pointer)
        kind = ELEMENT_TYPES[self.output_type]
        self._binding.bind_output(output.name, "cuda", 0, kind, self.output_shape, self._output.pointer)
        # Else a run ends with a wait of its own, and host and device could not be told apart.
        self._unsynchronised = onnxruntime.RunOptions()
        self._unsynchronised.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._run = self.session.run_with_iobinding

    def _classes(self) -> int:
        """Width of the logits, from the graph; where it has none, from an inference."""
        width = self.session.get_outputs()[0].shape[-1]
        if isinstance(width, int):
            return width
        ones = np.ones(self.shape, np.int64)
        return int(self.session.run(None, dict.fromkeys(INPUTS, ones))[0].shape[-1])

    def _run_other_shapes(self) -> None:
        batch, sequence = self.shape
        with self.phase("other_shapes"):
            for shape in {(1, 16), (batch, max(1, sequence // 2)), (max(1, batch // 2), sequence)} - {self.shape}:
                ones = np.ones(shape, np.int64)
                self.session.run(None, dict.fromkeys(INPUTS, ones))

    def launch(self, slot: Any) -> Any:
        self._run(self._binding, self._unsynchronised)

    def output_pointer(self, launched: Any) -> int:
        return self._output.pointer

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
            "arena": ARENA,
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
        ones = np.ones(self.shape, np.int64)
        return placement.profile(self._options(), self._session, dict.fromkeys(INPUTS, ones))


class OnnxRuntimeCudaNoBinding(OnnxRuntimeCuda):
    """The same session called with arrays of the host: ORT copies in and out and waits."""

    transfers_inside = True

    def _bind(self) -> None:
        self.output_shape = (self.shape[0], self._classes())
        self.input_buffers = {}

    def place(self, inputs: Inputs) -> Any:
        return {name: np.ascontiguousarray(inputs[name]) for name in INPUTS}

    def activate(self, slot: Any) -> None:
        pass

    def launch(self, slot: Any) -> Any:
        return self.session.run(None, slot)

    def output_pointer(self, launched: Any) -> int:
        raise TypeError("the logits are on the host")

    def logits(self, launched: Any) -> NDArray[np.float32]:
        return launched[0].astype(np.float32, copy=False)


def preload() -> str:
    """Load the CUDA libraries of the ``nvidia-*`` packages, wherever those are installed, without PyTorch.

    ``onnxruntime.preload_dlls`` looks beside onnxruntime only; elsewhere it must be told the folder.

    Returns:
        What could not be loaded, in ONNX Runtime's words; empty if nothing.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        for kind, part in (("cuda", "cu13"), ("cudnn", "cudnn")):
            found = [folder / part / "lib" for folder in folders if (folder / part / "lib").is_dir()]
            chosen = {"cuda": kind == "cuda", "cudnn": kind == "cudnn"}
            onnxruntime.preload_dlls(**chosen, directory=str(found[0]) if found else None)
    return " ".join(told.getvalue().split())


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


def RUNNER(artifact: Path, precision: str, shape: tuple[int, int], threads: int, options: Any) -> CudaRunner:
    """The runner that the options ask for."""
    kind = OnnxRuntimeCuda if options.get("io_binding", True) else OnnxRuntimeCudaNoBinding
    return kind(artifact, precision, shape, threads, options)
