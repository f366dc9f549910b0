"""What every way to execute a model offers to the instrument.

Making ready, launching and reading are apart, so that the timed part is one call. Names, types and dimensions of
tensors are the workload's: no runtime knows any of its own.
"""

from __future__ import annotations

import abc
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ceilings import import_clock
from ceilings.errors import CellFailure
from ceilings.workload.shape import Shape
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

Inputs = Mapping[str, NDArray[Any]]
"""One element of the input pool: an array for each of the workload's inputs, of its type and its sizes at the shape."""


class Runner(abc.ABC):
    """One model, ready to run at one precision and shape.

    A slot is one element of the input pool where the runtime wants it, made by :meth:`place`.

    Args:
        artifact: The ONNX graph, the engine or its record, or the folder of the weights.
        precision: Precision of the cell.
        workload: The tensors that the model reads and writes.
        shape: Sizes of the workload's axes.
        threads: Threads that CPU kernels use.
        options: Of the runtime's entry in the catalogue.
    """

    device: ClassVar[Literal["cpu", "cuda"]] = "cpu"
    """What executes it, so what measures it."""

    def __init__(  # noqa: PLR0917 - the order is every runner's interface
        self,
        artifact: Path,
        precision: str,
        workload: Workload,
        shape: Shape,
        threads: int,
        options: Mapping[str, Any],
    ) -> None:
        self.artifact = artifact
        self.precision = precision
        self.workload = workload
        self.shape = shape
        self.threads = threads
        self.options = options
        self.cold_start_ns: dict[str, int] = {}
        self.runs_ns: list[int] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Account the block's wall time to a phase of the cold start, less what others in it account for.

        Imports are no phase's, and a phase within the block has its own time: so the phases add up to no more than all.
        """
        imports, inner, start = import_clock.spent_ns(), sum(self.cold_start_ns.values()), time.perf_counter_ns()
        try:
            yield
        finally:
            took = time.perf_counter_ns() - start - (import_clock.spent_ns() - imports)
            took -= sum(self.cold_start_ns.values()) - inner
            self.cold_start_ns[name] = self.cold_start_ns.get(name, 0) + took

    @abc.abstractmethod
    def load(self) -> None:
        """Make the artifact ready to run, phase by phase.

        Raises:
            CellFailure: The runtime cannot run it.
        """

    @abc.abstractmethod
    def place(self, element: Inputs) -> Any:
        """Put one element of the input pool where the runtime wants it."""

    def iterations(self, slots: Sequence[Any]) -> Sequence[Any]:
        """What a timing loop goes through, in turn: the slots, or several parts of each."""
        return slots

    def activate(self, slot: Any) -> None:  # noqa: B027 - most runners on a CPU read a slot where it lies
        """Make ready for what :meth:`iterations` gave. Not timed."""

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

    def first(self, slot: Any) -> Any:
        """The first answer of the process, with which its cold start ends: an inference. Returns what :meth:`run` does.

        Raises:
            CellFailure: The runtime cannot run it.
        """
        return self.run(slot)

    @abc.abstractmethod
    def outputs(self, launched: Any) -> dict[str, NDArray[np.float32]]:
        """The workload's outputs by name, in float32, of what :meth:`launch` returned."""

    def output_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Dimensions of the outputs, in the workload's order.

        Raises:
            CellFailure: An output has an axis that the shape does not give.
        """
        for output in self.workload.outputs:
            if unknown := [dim for dim in output.dims if isinstance(dim, str) and self.shape.get(dim) is None]:
                raise CellFailure("unsupported", f"the size of {output.name} along {unknown[0]} follows from no input")
        return tuple(output.sizes(self.shape) for output in self.workload.outputs)

    def describe(self) -> dict[str, Any]:
        """Facts about how it runs that belong beside the numbers."""
        return {}


def example(workload: Workload, shape: Shape) -> dict[str, NDArray[Any]]:
    """Inputs that every model takes, by name: all elements of a tensor alike. Nothing is measured with them."""
    return {
        tensor.name: np.full(tensor.sizes(shape), _element(tensor), np.dtype(tensor.dtype))
        for tensor in workload.inputs
    }


def _element(tensor: TensorSpec) -> int:
    """1, or what is nearest to it among the values that a tensor may hold."""
    if tensor.content in ("tokens", "integers"):
        return min(max(1, tensor.low), max(tensor.low, tensor.high))
    return 0 if tensor.content == "zeros" else 1
