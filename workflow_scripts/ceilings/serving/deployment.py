"""What a deployment is: one server with its cells, how requests reach it, and the loads that it gets.

Standard library only: plans are made of it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from typing import Any

SERVERS = {"embedded": "mlserver", "triton": "pytriton"}
"""Servers that are started here, each with the package that brings it."""

HOMES = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine in the address of an endpoint."""


@dataclasses.dataclass(frozen=True)
class Load:
    """What a window asks of the server.

    Attributes:
        cell: The cell that is asked for.
        concurrency: Users of a closed loop; None of an open one.
        asked: The rate of an open loop as the study gives it: requests a second, or such as ``0.8x``.
    """

    cell: str
    concurrency: int | None = None
    asked: str | None = None

    @property
    def kind(self) -> str:
        """``closed`` or ``open``."""
        return "closed" if self.concurrency is not None else "open"

    @property
    def words(self) -> str:
        """The load for a message.

        >>> Load("c", concurrency=4).words, Load("c", asked="20").words, Load("c", asked="0.8x").words
        ('4 clients', '20 requests a second', '0.8x the highest throughput')
        """
        if self.asked is None:
            return f"{self.concurrency} client{'s' * (self.concurrency != 1)}"
        return f"{self.asked} the highest throughput" if share_of(self.asked) else f"{self.asked} requests a second"

    def rate(self, highest: Mapping[str, float]) -> float | None:
        """Requests a second; None of a closed loop.

        Args:
            highest: By cell: the highest throughput of its closed loops.
        """
        if self.asked is None:
            return None
        share = share_of(self.asked)
        return float(self.asked) if share is None else share * highest[self.cell]


def share_of(rate: float | str) -> float | None:
    """What ``0.8x`` stands for; None of a rate in requests a second.

    >>> share_of("0.8x"), share_of(20)
    (0.8, None)
    """
    text = str(rate)
    return float(text[:-1]) if text.endswith("x") else None


@dataclasses.dataclass(frozen=True)
class Deployment:
    """One server that serves cells, as the study describes it.

    Attributes:
        server: ``embedded``, ``triton``, or the URL of an endpoint.
        cells: RUNTIME/MODEL/PRECISION/SHAPE, the shape that of one request.
        batching: As :class:`ceilings.serving.executor.Batching` takes it; None: each request is a batch.
        triton: Another Triton, ``path`` and ``backend``.
        endpoint_models: By cell, the name of its model at an endpoint.
        metrics: Of an endpoint, the URL of its metrics; None: it is not known.
    """

    server: str
    cells: tuple[str, ...]
    transport: str = "http"
    shared_memory: str = "none"
    batching: Mapping[str, Any] | None = None
    instances: int = 1
    round_trip_ms: float = 0
    concurrency: tuple[int, ...] = ()
    rates: tuple[float | str, ...] = ()
    triton: Mapping[str, str] = dataclasses.field(default_factory=dict)
    endpoint_models: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Deployment:
        """Of the study's entry, or of ``to_json``."""
        lists = {name: tuple(value[name]) for name in ("cells", "concurrency", "rates") if name in value}
        batching = value.get("batching")
        scheme = str(value["server"]).partition("://")[0]
        value = {**({"transport": scheme} if scheme in ("http", "grpc") else {}), **value}
        return cls(**{**value, **lists, "batching": batching if isinstance(batching, Mapping) else None})

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return dataclasses.asdict(self)

    @property
    def kind(self) -> str:
        """``embedded``, ``triton`` or ``endpoint``."""
        return self.server if self.server in SERVERS else "endpoint"

    @property
    def backend(self) -> str:
        """Triton's backend."""
        return self.triton.get("backend", "python")

    @property
    def at_home(self) -> bool:
        """Whether the server is on the machine of the client."""
        address = self.server.partition("://")[2]
        return self.kind != "endpoint" or address.rpartition(":")[0] in HOMES

    def model(self, cell: str) -> str:
        """A cell's name in the server; no name of a study holds an underscore."""
        return self.endpoint_models[cell] if self.kind == "endpoint" else cell.replace("/", "_")

    @property
    def loads(self) -> list[Load]:
        """Every load, in the study's order."""
        closed = [Load(cell, concurrency=users) for cell in self.cells for users in self.concurrency]
        return closed + [Load(cell, asked=str(rate)) for cell in self.cells for rate in self.rates]

    def rounds(self, count: int, seed: str) -> Iterator[list[Load]]:
        """The loads of each round in an order of its own, so that drift falls on all alike.

        In the first round closed loops come first: rates such as ``0.8x`` follow from them.
        """
        order = random.Random(seed)
        for number in range(count):
            loads = self.loads
            order.shuffle(loads)
            yield sorted(loads, key=lambda load: load.kind == "open") if number == 0 else loads
