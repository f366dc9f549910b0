"""What measurements work with: a loaded runner, its pool of inputs, and the loops of its device."""

from __future__ import annotations

import abc
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ceilings.measure.loop import requests
from ceilings.measure.stopping import Protocol, secondary

Element = Mapping[str, np.ndarray]
"""One element of the input pool in host memory: an array of each input."""


class Measurement(typing.Protocol):
    """A module of ``ceilings.measure.measurements``."""

    def measure(self, bench: Any) -> dict[str, Any]:
        """Series by name, for the run record's ``series``."""
        ...


class Bench(abc.ABC):
    """A cell while it is measured; made before its runner loads, so that it knows the device's state before.

    Attributes:
        runner: What runs the cell: loaded, and run at least once.
        slots: The pool, each element placed where the runtime wants it.
        elements: The pool in host memory.
        protocol: Of the study.
        shorter: Of the series beside the main one.
        measuring: The measurement that is being done; empty before the first.
        flags: Warnings that belong beside the numbers; a measurement may add to them.
    """

    slots: Sequence[Any]
    elements: Sequence[Element]
    protocol: Protocol
    shorter: Protocol

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.flags: list[str] = []
        self.measuring = ""

    def refuse_other_device(self, slug: str) -> None:  # noqa: B027 - not every device can be asked
        """Raise unless the cell runs on the device that it names.

        Raises:
            UserError: It runs on another one.
        """

    @property
    def batch(self) -> int:
        """Inputs of one inference."""
        return int(self.runner.shape.batch)

    @abc.abstractmethod
    def closed_loop(
        self, submit: Callable[[Any], Any] | None = None, *, items: Sequence[Any] | None = None, main: bool = False
    ) -> dict[str, Any]:
        """A series in which each inference waits for the one before.

        Args:
            submit: What is timed, called with the items in turn; default: the runner's launch.
            items: Default: the runner's iterations over the slots.
            main: Whether it is the cell's latency: under the whole protocol. Others are under ``shorter``.

        Returns:
            A series as :func:`ceilings.measure.loop.closed_loop` gives it.
        """

    @property
    def whole(self) -> int:
        """Iterations of one slot: they are measured together."""
        return len(self.runner.iterations(self.slots[:1]))

    def requests(self) -> tuple[list[list[int]], dict[str, Any]]:
        """Whole requests of a runner that generates, one after another, under ``shorter``.

        Returns:
            Times of each request and how the series ended, as :func:`ceilings.measure.loop.requests` gives them.
        """
        return requests(self.runner.request, self.slots, self.shorter)[:2]

    @abc.abstractmethod
    def saturated(self) -> dict[str, Any]:
        """The throughput with requests queued, as :func:`ceilings.measure.loop.saturated` gives it."""

    def measure(
        self,
        slots: Sequence[Any],
        elements: Sequence[Element],
        protocol: Protocol,
        measurements: Mapping[str, Measurement],
    ) -> dict[str, Any]:
        """Do all measurements, in order.

        Args:
            slots: The pool, placed.
            elements: The pool in host memory.
            protocol: Of the study.
            measurements: By name.

        Returns:
            The record's ``series`` and ``flags``, and what else belongs beside them.

        Raises:
            CellFailure: The runtime failed, for one because memory ran out.
        """
        self.slots, self.elements = slots, elements
        self.protocol, self.shorter = protocol, secondary(protocol)
        return self._measure(measurements)

    def _measure(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        """The record's part, once pool and protocol are known."""
        return {"series": self._series(measurements), "flags": self.flags}

    def _series(self, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
        series: dict[str, Any] = {}
        for name, measurement in measurements.items():
            self.measuring = name
            more = measurement.measure(self)
            if again := sorted(series.keys() & more.keys()):
                raise RuntimeError(f"the measurement {name} gives the series {again[0]}, which another gave before")
            series |= more
            self.note_memory()
        return series

    def note_memory(self) -> None:  # noqa: B027 - a CPU has none
        """Read how much memory of the device the process has now."""

    def memory(self) -> dict[str, Any]:
        """The record's ``memory`` of the device; for a failed cell up to the failure."""
        return {"peak_device_bytes": None}
