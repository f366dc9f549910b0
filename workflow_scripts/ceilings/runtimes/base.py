"""What every way to execute a model offers to the instrument.

Making ready, launching and reading are apart, so that the timed part is one call.
"""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Inputs = Mapping[str, NDArray[Any]]
"""One element of the ring: ``input_ids`` and ``attention_mask``, int64 (batch, sequence)."""


class Runner(abc.ABC):
    """One model, ready to run at one precision and shape.

    A slot is one element of the input ring where the runtime wants it, made by :meth:`place`.

    Args:
        artifact: The ONNX graph, or the folder of the weights.
        precision: Precision of the cell.
        shape: (batch, sequence).
        threads: Threads that CPU kernels use.
        options: Of the runtime's entry in the catalogue.
    """

    device: ClassVar[Literal["cpu", "cuda"]] = "cpu"
    """What executes it, so what measures it."""

    def __init__(
        self, artifact: Path, precision: str, shape: tuple[int, int], threads: int, options: Mapping[str, Any]
    ) -> None:
        self.artifact = artifact
        self.precision = precision
        self.shape = shape
        self.threads = threads
        self.options = options
        self.cold_start_ns: dict[str, int] = {}
        self.runs_ns: list[int] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Account the block's wall time to a phase of the cold start."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            self.cold_start_ns[name] = self.cold_start_ns.get(name, 0) + time.perf_counter_ns() - start

    @abc.abstractmethod
    def load(self) -> None:
        """Make the artifact ready to run, phase by phase.

        Raises:
            CellFailure: The runtime cannot run it.
        """

    @abc.abstractmethod
    def place(self, inputs: Inputs) -> Any:
        """Put one element of the ring where the runtime wants it."""

    @abc.abstractmethod
    def launch(self, slot: Any) -> Any:
        """Submit one inference. On a CPU it is done when this returns; on a GPU once its stream is.

        Safe to call from several threads on a CPU.
        """

    def run(self, slot: Any) -> Any:
        """One inference to its end, its time added to ``runs_ns``; returns what :meth:`launch` did.

        Raises:
            CellFailure: The runtime cannot run it.
        """
        start = time.perf_counter_ns()
        launched = self.launch(slot)
        self.runs_ns.append(time.perf_counter_ns() - start)
        return launched

    @abc.abstractmethod
    def logits(self, launched: Any) -> NDArray[np.float32]:
        """The logits (batch, classes) in float32, of what :meth:`launch` returned."""

    def describe(self) -> dict[str, Any]:
        """Facts about how it runs that belong beside the numbers."""
        return {}
