"""PyTorch on a GPU: eager, compiled by Inductor, and captured into a CUDA graph by hand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch

from ceilings.errors import CellFailure
from ceilings.models.load import load_module
from ceilings.runtimes import torch_compilation
from ceilings.runtimes.base import example
from ceilings.runtimes.compile_cache import compile_folder, end_compile_workers
from ceilings.runtimes.cuda_runner import CudaRunner
from ceilings.runtimes.torch_failures import as_cell_failures

ATTENTION = "sdpa"
"""transformers' own default: what a user of PyTorch runs. Exports use another, which fuses."""

DTYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
WARM_RUNS = 3
"""Before a capture: libraries choose kernels and allocate workspaces in the first calls."""

_FOR_GOOD = contextlib.ExitStack()
"""Never left. A runner may not own it: the guard that dies with its runner, whenever the garbage collector comes, would
set the modes of the thread back to what they were, in the midst of what the thread does by then."""

MASK_CHECK = {
    "eager": "transformers asks on the host, each call, whether the mask is all ones, and if so drops it",
    "compile": "transformers keeps the mask while compiling, so attention kernels that take one run",
    "cudagraph": "transformers keeps the mask while capturing, so attention kernels that take one run",
}


class TorchCuda(CudaRunner):
    """Executes the weights. Options: ``mode`` (eager, compile, cudagraph); to compile, ``compile_mode`` and ``sizes``.

    ``output_types`` are known once it has run.
    """

    target: ClassVar[str] = "cuda"
    """What PyTorch calls the device."""

    output_types: tuple[str, ...] = ()

    def load(self) -> None:
        self.mode = str(self.options.get("mode", "eager"))
        self.open_device()
        with self.failures():
            self._choose_products()
            with self.phase("load"):
                self.model: Any = self._model()
                self._allocate_inputs()
                torch.cuda.synchronize()
            self.output_sizes()  # refuses outputs of unknown size before anything runs
            self._enter_stream()
            self._forward: Any = self.model
            if self.mode == "compile":
                self._compile()
            elif self.mode == "cudagraph":
                self._capture()
            elif self.mode != "eager":
                raise ValueError(f"unknown mode {self.mode!r} of the PyTorch runtime")

    def _allocate_inputs(self) -> None:
        """Where every launch reads: graphs keep addresses."""
        values = example(self.workload, self.shape)
        self._inputs = tuple(torch.from_numpy(value).to(self.target) for value in values.values())
        torch_compilation.mark(self.workload, self._inputs, self.options)
        self.input_buffers = {
            name: (value.data_ptr(), value.numel() * value.element_size())
            for name, value in zip(values, self._inputs, strict=True)
        }

    def _model(self) -> Any:
        """What takes the inputs on the device and returns the outputs there."""
        if isinstance(self.sibling, TorchCuda):
            return self.sibling.model
        return load_module(self.artifact, ATTENTION, DTYPES[self.precision], self.target)

    def _choose_products(self) -> None:
        """Let products of FP32 numbers use TF32 units or not, as the precision says."""
        # Sets both of PyTorch's own switches alike; setting one of them makes reading the other an error.
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")

    def _enter_stream(self) -> None:
        """Let PyTorch enqueue on the runner's stream, in inference mode."""
        # Of this thread, for good: a server would not enter and leave them for each request either.
        self._torch_stream = torch.cuda.ExternalStream(self.stream.handle)
        self.enter_stream()
        _FOR_GOOD.enter_context(torch.inference_mode())

    def enter_stream(self) -> None:
        torch.cuda.set_stream(self._torch_stream)

    def launch(self, slot: Any) -> Any:
        return self._forward(*self._inputs)

    def run(self, slot: Any) -> Any:
        launched = super().run(slot)
        if not self.output_types:
            self._take_outputs(launched)
        return launched

    def _take_outputs(self, launched: tuple[torch.Tensor, ...]) -> None:
        """What the first inference shows of the outputs: their types are the model's business."""
        for output, value, sizes in zip(self.workload.outputs, launched, self.output_sizes(), strict=True):
            if tuple(value.shape) != sizes:
                raise CellFailure("unsupported", f"{output.name} has shape {tuple(value.shape)}, not {sizes}")
            if not value.is_contiguous():
                raise ValueError(f"{output.name} is a view with gaps; models give outputs that lie in one piece")
        self.output_types = tuple(str(value.dtype).removeprefix("torch.") for value in launched)

    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        return tuple(value.data_ptr() for value in launched)

    def _open_compile_cache(self) -> None:
        """Say where compiled kernels go."""
        os.environ["TORCHINDUCTOR_CACHE_DIR"], self._cache = compile_folder()
        os.environ.pop("TRITON_CACHE_DIR", None)  # then Inductor puts it below its own

    def _compiled(self, *, one_shape: bool) -> Any:
        """The model, to be compiled when it runs.

        Args:
            one_shape: Whether sizes stay constants unless the options say otherwise, also beside another instance of
                the model in this process, which PyTorch would take for a second shape.
        """
        self._open_compile_cache()
        sizes = torch_compilation.sizes_of(self.options)
        dynamic = False if one_shape and sizes == torch_compilation.AUTOMATIC else torch_compilation.DYNAMIC[sizes]
        kind = self.compile_mode
        return torch.compile(self.model, mode=None if kind == "default" else kind, dynamic=dynamic)

    @property
    def compile_mode(self) -> str:
        """PyTorch's name of how it compiles."""
        return str(self.options.get("compile_mode", "default"))

    def _compile(self) -> None:
        self._forward = self._compiled(one_shape=True)
        with self.phase("compile"):
            self.launch(None)
            self.stream.synchronize()
        if self.compile_mode != "default":
            # The first call compiled; the second warms the graph's memory pool up and the third captures.
            with self.phase("capture"):
                for _ in range(WARM_RUNS):
                    self.launch(None)
                self.stream.synchronize()
        end_compile_workers()

    def _capture(self) -> None:
        with self.phase("capture"):
            self._graph, captured = capture(self.model, self._inputs)
        replay = self._graph.replay

        def forward(*_: Any) -> Any:
            replay()
            return captured

        self._forward = forward

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        with as_cell_failures():
            yield

    def compilations(self) -> int:
        return torch_compilation.compilations() if self.mode == "compile" else 0

    def describe(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "mode": self.mode,
            "attention": self.model.attention,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "allocator_peak_bytes": torch.cuda.max_memory_reserved(),
        }
        if self.workload.mask:
            facts["mask"] = MASK_CHECK[self.mode]
        if self.mode == "compile":
            from torch._dynamo.utils import counters

            inductor = counters["inductor"]
            hits = int(inductor["fxgraph_cache_hit"])
            facts |= {
                **torch_compilation.facts(self.options),
                "compile_mode": self.compile_mode,
                "cudagraph_skips": int(inductor["cudagraph_skips"]),
                "compile_cache": f"warm: {hits} graphs came from it" if hits else "cold",
            }
        return facts


def capture(model: Any, inputs: Sequence[torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A CUDA graph of the model on these inputs, and its outputs; both keep their addresses."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_RUNS):
            model(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        captured = model(*inputs)
    return graph, captured


RUNNER = TorchCuda
