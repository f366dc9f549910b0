"""How requests reach a server: what an HTTP and a gRPC transport have in common."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from ceilings.serving.kserve import TransportError
from ceilings.serving.shared_memory import Place, Region

clock: Callable[[], int] = time.perf_counter_ns
"""All times of a client; in Linux the monotonic clock, as timers have it."""

TIMEOUT_SECONDS = 10.0
"""A request that has no answer by then has failed."""

LARGEST_ANSWER = 1 << 30
"""Bytes; a longer answer is an error."""

KINDS = ("http", "grpc")


class Done(NamedTuple):
    """A request that is over."""

    tag: int
    ended_ns: int
    error: str | None
    """Why it failed, in the server's words where it spoke; None for an answer."""
    answer: bytes | bytearray
    """What ``decode`` takes."""


class Driver(Protocol):
    """Sends requests without waiting for answers. One thread uses it."""

    def submit(self, prepared: bytes, tag: int) -> None:
        """Send one now; ``poll`` returns its tag when it is over, whatever becomes of it."""

    def poll(self, until_ns: int) -> list[Done]:
        """Requests that are over: as soon as there is one, and none when the clock has reached ``until_ns``."""

    def close(self) -> None:
        """Close its connections; requests that are not over are dropped."""


class Transport:
    """Requests to one server, prepared once and sent as bytes.

    Args:
        address: ``HOST:PORT``.
        timeout: Seconds until a request without an answer has failed.
        largest: Bytes of the longest answer.
    """

    kind: str

    def __init__(self, address: str, timeout: float = TIMEOUT_SECONDS, largest: int = LARGEST_ANSWER) -> None:
        self.address = address
        self.timeout = timeout
        self.largest = largest
        self._mine = threading.local()
        self._drivers: list[Driver] = []

    def prepare(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        placed: Mapping[str, Place] | None = None,
        outputs: Mapping[str, Place | None] | None = None,
    ) -> bytes:
        """The bytes of one request.

        Args:
            model: ``NAME`` or ``NAME/VERSION``.
            inputs: By name. Of those that lie in shared memory only type and shape are sent.
            placed: Where inputs lie in shared memory.
            outputs: Those that are asked for, None is all; and where the server puts each, None is into the answer.
        """
        raise NotImplementedError

    def decode(
        self,
        answer: bytes | bytearray,
        regions: Mapping[str, Region] | None = None,
        outputs: Mapping[str, Place | None] | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs in an answer, by name.

        Args:
            answer: Of ``send``, or of a driver.
            regions: Shared memory by name.
            outputs: Where the server was asked to put outputs, as ``prepare`` took it: an answer need not repeat it.

        Raises:
            TransportError: The answer is not one of the protocol.
        """
        raise NotImplementedError

    def driver(self) -> Driver:
        """A new one, with connections of its own."""
        raise NotImplementedError

    def register(self, region: Region) -> None:
        """Let the server use shared memory; TransportError where it cannot."""
        raise NotImplementedError

    def unregister(self, region: Region) -> None:
        """Have the server forget shared memory."""
        raise NotImplementedError

    def send(self, prepared: bytes) -> bytes | bytearray:
        """The answer to a request, waited for; each thread has a connection of its own.

        Raises:
            TransportError: There is none, or it is an error.
        """
        driver: Driver | None = getattr(self._mine, "driver", None)
        if driver is None:
            driver = self._mine.driver = self.driver()
            self._drivers.append(driver)
        driver.submit(prepared, 0)
        while not (done := driver.poll(clock() + 10**9)):
            pass
        if done[0].error is not None:
            raise TransportError(done[0].error)
        return done[0].answer

    def close(self) -> None:
        """Close every connection of ``send``."""
        while self._drivers:
            with contextlib.suppress(OSError):
                self._drivers.pop().close()
        self._mine = threading.local()


def transport(kind: str, address: str, timeout: float = TIMEOUT_SECONDS, largest: int = LARGEST_ANSWER) -> Transport:
    """A transport by its name in the study."""
    if kind == "http":
        from ceilings.serving.http_transport import HttpTransport

        return HttpTransport(address, timeout, largest)
    if kind == "grpc":
        from ceilings.serving.grpc_transport import GrpcTransport

        return GrpcTransport(address, timeout, largest)
    raise ValueError(f"unknown transport {kind!r}; known: {', '.join(KINDS)}")
