"""Text generation by ONNX Runtime on its CUDA execution provider.

The cache, the logits and the token that a pass reads stay on the device; of every pass the chosen tokens alone travel
to the host, by a copy on the stream that computes them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import onnxruntime
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from ceilings.cuda import device as cuda
from ceilings.errors import CellFailure
from ceilings.graphs.decoding import Decoding, largest
from ceilings.runtimes import placement
from ceilings.runtimes.generating import Generating
from ceilings.runtimes.onnxruntime_cuda import RUNS_BEFORE_CAPTURE, OnnxRuntimeCuda
from ceilings.runtimes.onnxruntime_generating_cpu import cache_of
from ceilings.runtimes.onnxruntime_session import session_options
from ceilings.workload.generation import Decoder, phase
from ceilings.workload.shape import Shape

GRAPH_ID = "gpu_graph_id"
"""Option of a run: which of a session's captured graphs it is."""

WITHOUT_GRAPH, STEP_GRAPH = "-1", "1"
"""Runs of ``WITHOUT_GRAPH`` are neither captured nor replayed."""

DISABLE_WAIT = "disable_synchronize_execution_providers"


class CudaDecoding(Decoding):
    """Requests on the device.

    Args:
        stream: What the session computes on.
        captured: Whether decode steps are captured: then a fused graph is given the buffer's length as the longest
            row's, a value that a captured graph keeps. A smaller one would leave out tokens of later steps.
    """

    device: ClassVar[str] = "cuda"

    def __init__(self, session: Any, decoder: Decoder, shape: Shape, stream: cuda.Stream, captured: bool) -> None:
        self._stream = stream
        self._captured = captured
        super().__init__(session, decoder, shape)
        # Row k holds the position of the newest token of pass k + 1, once for each row of the batch.
        places = np.arange(self.prompt - 1, self.length, dtype=np.int32)
        table = np.ascontiguousarray(np.repeat(places[:, None], self.batch, 1))
        self._table = cuda.DeviceBuffer(table.nbytes)
        self._table.upload(table)
        self._row_bytes = 4 * self.batch
        self.options = run_options(wait=False)
        self.step_options = run_options(wait=False, graph=STEP_GRAPH) if captured else self.options

    def allocate(self, nbytes: int) -> cuda.DeviceBuffer:
        return cuda.DeviceBuffer(nbytes)

    def put_lengths(self) -> None:
        row = self._table.pointer + (self.position - 1) * self._row_bytes
        cudart.cudaMemcpyAsync(self.lengths.pointer, row, self._row_bytes, cuda.D2D, self._stream.native)

    def total_length(self) -> int:
        return self.length if self._captured and self.position > 1 else self._reach

    def run(self, binding: Any) -> None:
        self.session.run_with_iobinding(binding, self.options if self.position == 1 else self.step_options)


def run_options(wait: bool, graph: str = WITHOUT_GRAPH) -> onnxruntime.RunOptions:
    """Options of a run: whether it waits for the device, and which captured graph it is."""
    options = onnxruntime.RunOptions()
    if not wait:
        options.add_run_config_entry(DISABLE_WAIT, "1")
    options.add_run_config_entry(GRAPH_ID, graph)
    return options


class OnnxRuntimeGeneratingCuda(Generating, OnnxRuntimeCuda):
    """Executes a graph of a forward pass, plain or fused. Its axes stay dynamic, but for the batch.

    Options: ``cuda_graph`` (decode steps are captured and replayed; a prefill, of other sizes, never is).
    """

    def _options(self) -> onnxruntime.SessionOptions:
        """As of every runner; of the axes the batch alone is fixed, since a prefill and a step differ in the others."""
        return session_options(1, Shape.of({"batch": self.shape.batch}), self.options)

    def _bind(self) -> None:
        self._captures = bool(self.options.get("cuda_graph")) and phase(self.shape) == "decode"
        self._decoding = self._requests(self.session, self._captures)
        ids = self._decoding.ids
        self.input_buffers = {"input_ids": (ids.pointer, ids.nbytes)}
        self.output_types = ("int64", "float32")
        self._token_bytes = self._decoding.token.nbytes
        self._pinned = cuda.PinnedBuffer(self._token_bytes)
        self._token = self._pinned.array((self.shape.batch,), np.int64)

    def _requests(self, session: Any, captured: bool) -> CudaDecoding:
        return CudaDecoding(session, self.decoder, self.shape, self.stream, captured)

    def _make_ready(self) -> None:
        if self._captures:
            with self.phase("capture"):
                self._capture()

    def _capture(self) -> None:
        """Have ONNX Runtime capture a step, which it does within its first runs; what they generate is forgotten."""
        zeros = np.zeros((self.shape.batch, self.shape["prompt"]), np.int64)
        self._decoding.ids.upload(zeros)
        self._decoding.begin()
        self._decoding.advance()
        replaying, self._decoding.step_options = self._decoding.step_options, run_options(wait=True, graph=STEP_GRAPH)
        for _ in range(RUNS_BEFORE_CAPTURE):
            self._decoding.position = 1  # the same step again: a short request may have no other
            self._decoding.advance()
            self.stream.synchronize()
        self._decoding.step_options = replaying

    def begin(self, slot: Any) -> None:
        OnnxRuntimeCuda.activate(self, slot)
        self._decoding.begin()

    def prefill(self) -> None:
        self._pass()

    def step(self) -> None:
        self._pass()

    def _pass(self) -> None:
        self._decoding.advance()
        cudart.cudaMemcpyAsync(
            self._pinned.pointer, self._decoding.token.pointer, self._token_bytes, cuda.D2H, self.stream.native
        )

    def arrived(self) -> NDArray[np.int64]:
        self.stream.synchronize()
        return self._token

    def top_logits(self, rows: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        width = self.decoder.vocabulary
        raw = cuda.download(self._decoding.logits.pointer, 4 * rows * width)
        return largest(raw.view(np.float32).reshape(rows, width), top)

    def cache_bytes(self) -> int:
        return self._decoding.cache_bytes()

    def output_pointers(self, launched: Any) -> tuple[int, ...]:
        raise TypeError("tokens arrive on the host, one by one")

    def describe(self) -> dict[str, Any]:
        """Facts as of every runner on this provider; placement is that of the pass that an iteration is.

        Raises:
            CellFailure: A node that computes ran on the CPU, or something was copied to the host.
        """
        facts = super().describe()
        copies = (facts.get("placement") or {}).get("copies", {})
        if count := copies.get("MemcpyToHost"):
            raise CellFailure("fallback", f"{count} tensors of a pass were copied to the host (MemcpyToHost)")
        captured = "decode steps are captured and replayed, the prefill runs kernel by kernel"
        return facts | {
            "cuda_graph": self._captures,
            "captured": captured if self._captures else None,
            "dynamic_shapes": True,
            "cache": cache_of(self._decoding),
        }

    def _profile(self) -> list[placement.Node]:
        """Nodes of one pass in a separate session, of a decode step after the prefill that it needs."""
        steps = 1 if phase(self.shape) == "decode" else 0

        def run(session: Any) -> None:
            requests = self._requests(session, captured=False)
            requests.ids.upload(np.zeros((self.shape.batch, self.shape["prompt"]), np.int64))
            requests.begin()
            for _ in range(1 + steps):
                requests.advance()
            self.stream.synchronize()

        nodes = placement.profile_of(self._options(), self._session, run)
        placement.refuse_fallback(nodes, self.provider)
        return nodes[len(nodes) // 2 :] if steps else nodes  # a prefill and a step run the same nodes


def RUNNER(*arguments: Any) -> OnnxRuntimeGeneratingCuda:
    """The runner of a cell."""
    return OnnxRuntimeGeneratingCuda(*arguments)
