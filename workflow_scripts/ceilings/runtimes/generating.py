"""What a runner of a task that generates offers: a request as a prefill and decode steps, each a thing to time.

Mixed into a ``Runner`` (before it, so that its methods win). A slot is one element of the pool, a batch of prompts.
What the timing loops see is an item, one output token: ``activate`` makes ready for it untimed, with the prefill where
it is the first decode step of its request, and ``launch`` is what is timed. The newest tokens travel to the host in
every iteration, as they do where a reader follows them.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.errors import CellFailure
from ceilings.workload import generation
from ceilings.workload.generation import Decoder
from ceilings.workload.shape import Shape
from ceilings.workload.workload import Workload


@dataclasses.dataclass(frozen=True)
class Item:
    """One output token of a request.

    Attributes:
        slot: The prompts, as ``place`` made them.
        position: Tokens of the request that came before.
    """

    slot: Any
    position: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a request gave.

    Attributes:
        tokens: (batch, generated), as a timed request gives them.
        logged: (rows, checked steps): the first tokens of the request that the logits are of.
        ids, logits: (rows, checked steps, top): the largest logits of the first tokens, and whose they are.
    """

    tokens: NDArray[np.int64]
    logged: NDArray[np.int64]
    ids: NDArray[np.int64]
    logits: NDArray[np.float32]


class Generating(abc.ABC):
    """A runner of requests. Subclasses say how a request begins, and how its parts are submitted."""

    shape: Shape
    workload: Workload

    @property
    def decoder(self) -> Decoder:
        """What generates.

        Raises:
            CellFailure: ``unsupported``: nothing does, or it has no positions for the requests.
        """
        decoder = self.workload.decoder
        if decoder is None:
            raise CellFailure("unsupported", f"a model of the task {self.workload.task.name} generates no text")
        if decoder.positions and generation.context(self.shape) > decoder.positions:
            raise CellFailure("unsupported", generation.too_long("the model", self.shape, decoder.positions))
        return decoder

    @abc.abstractmethod
    def begin(self, slot: Any) -> None:
        """Forget the request before, and put a slot's prompts where the prefill reads them. Untimed."""

    @abc.abstractmethod
    def prefill(self) -> Any:
        """Submit the forward pass over the prompts, the choice of the first tokens and their way to the host."""

    @abc.abstractmethod
    def step(self) -> Any:
        """Submit one forward pass over the newest tokens, the choice of the next ones and their way to the host."""

    @abc.abstractmethod
    def arrived(self) -> NDArray[np.int64]:
        """Wait for the newest tokens, (batch,). The array may be overwritten by the next step."""

    @abc.abstractmethod
    def top_logits(self, rows: int, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and values of the largest logits that the newest tokens were chosen from, (rows, top). Untimed."""

    @abc.abstractmethod
    def cache_bytes(self) -> int:
        """Bytes that it holds for keys and values: what it allocated, not what the request fills."""

    def iterations(self, slots: Sequence[Any]) -> Sequence[Item]:
        """What a timing loop goes through: of every request its decode steps, of ``g1`` its prefill."""
        first = 0 if generation.phase(self.shape) == "prefill" else 1
        return [Item(slot, first + k) for slot in slots for k in range(generation.steps(self.shape))]

    def activate(self, item: Item) -> None:
        """Make ready for an item, untimed."""
        if item.position > 1:
            return
        self.begin(item.slot)
        if item.position == 1:
            self.prefill()
            self.arrived()

    def launch(self, item: Item) -> Any:
        """Submit what an item is."""
        return self.step() if item.position else self.prefill()

    def request(self, slot: Any) -> list[int]:
        """One request as its reader sees it: ``perf_counter_ns`` at its begin and at the arrival of each token."""
        self.begin(slot)
        prefill, step, arrived, clock = self.prefill, self.step, self.arrived, time.perf_counter_ns
        times = [clock()]
        prefill()
        arrived()
        times.append(clock())
        for _ in range(self.shape["generated"] - 1):
            step()
            arrived()
            times.append(clock())
        return times

    def answer(self, slot: Any) -> Answer:
        """One request with what it is compared by. Untimed."""
        rows = min(self.shape.batch, generation.CHECKED_ROWS)
        self.begin(slot)
        self.prefill()
        tokens, tops = [self.arrived().copy()], [self.top_logits(rows, generation.TOP)]
        for position in range(1, self.shape["generated"]):
            self.step()
            tokens.append(self.arrived().copy())
            if position < generation.CHECKED_STEPS:
                tops.append(self.top_logits(rows, generation.TOP))
        ids, logits = (np.stack(part, 1) for part in zip(*tops, strict=True))
        made = np.stack(tokens, 1)
        return Answer(made, made[:rows, : ids.shape[1]], ids, logits)

    def first(self, slot: Any) -> None:
        """The first answer of the process, with which its cold start ends: a request up to its first token."""
        with self._failing():
            self.begin(slot)
            self.prefill()
            self.arrived()

    def run(self, slot: Any) -> Answer:
        """One request to its end; what :meth:`outputs` takes."""
        with self._failing():
            return self.answer(slot)

    def _failing(self) -> contextlib.AbstractContextManager[Any]:
        """What turns exceptions of the runtime into CellFailure, where the runner it is mixed into has that."""
        return getattr(self, "failures", contextlib.nullcontext)()

    def outputs(self, launched: Answer) -> dict[str, NDArray[Any]]:
        """``tokens``, ``logged``, ``ids`` and ``logits`` of an answer."""
        return {name: getattr(launched, name) for name in ("tokens", "logged", "ids", "logits")}
