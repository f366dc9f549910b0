"""The process that is the client: prepares requests, sends them as it is asked to, and says what became of them.

    python -m ceilings.serving.load_worker TASK.json

Commands come as lines of JSON by its standard input, and each is answered by one line
(:mod:`ceilings.serving.load_client`). It imports what its transport needs and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from ceilings.errors import CellFailure, UserError
from ceilings.files import read_json
from ceilings.models import pool
from ceilings.serving import arrivals, namespaces, own_answers, shared_memory, transports
from ceilings.serving.kserve import TransportError
from ceilings.serving.windows import closed_window, open_window


class _Cell:
    """What is sent to one model of the server."""

    def __init__(self, asked: Mapping[str, Any], transport: transports.Transport) -> None:
        self._transport = transport
        self.regions: dict[str, shared_memory.Region] = {}
        self.prepared: list[bytes] = []
        self.alone: dict[int, own_answers.Arrays] = {}
        self._outputs: list[Mapping[str, shared_memory.Place] | None] = []
        try:
            for element in pool.elements(pool.load_pool(asked["inputs"])):
                self.prepared.append(self._prepare(asked, element))
        except BaseException:
            self.close()
            raise

    def _prepare(self, asked: Mapping[str, Any], element: Mapping[str, np.ndarray]) -> bytes:
        inputs = {name: np.ascontiguousarray(array) for name, array in element.items()}
        sizes: Mapping[str, int] | None = asked["outputs"]
        if asked["shared_memory"] == "none":
            self._outputs.append(None)
            return self._transport.prepare(
                asked["model"], inputs, None, None if sizes is None else dict.fromkeys(sizes)
            )
        region, places = shared_memory.placed(asked["shared_memory"], inputs, sizes or {})
        self.regions[region.name] = region
        self._transport.register(region)
        outputs = None if sizes is None else {name: places[name] for name in sizes}
        self._outputs.append(outputs)
        return self._transport.prepare(asked["model"], inputs, places, outputs)

    def decode(self, index: int, answer: bytes | bytearray) -> dict[str, np.ndarray]:
        """The outputs in an answer to an element.

        Raises:
            TransportError: It holds none.
        """
        return self._transport.decode(answer, self.regions, self._outputs[index])

    def close(self) -> None:
        """Have the server forget its memory, and give it back."""
        for region in self.regions.values():
            with contextlib.suppress(TransportError):  # the server may have ended
                self._transport.unregister(region)
            region.close()


class _Farthest:
    """Of a window, the answer to each element that is farthest from the one that it got alone."""

    def __init__(self, cell: _Cell) -> None:
        self._cell = cell
        self._distances: dict[int, float] = {}
        self._answers: dict[int, own_answers.Arrays] = {}

    def look(self, element: int, answer: bytes | bytearray) -> str | None:
        """Why an answer is none."""
        try:
            outputs = self._cell.decode(element, answer)
        except TransportError as error:
            return str(error)
        alone = self._cell.alone.get(element, outputs)
        distance = own_answers.distance(own_answers.vector(outputs), own_answers.vector(alone))
        if distance >= self._distances.get(element, 0.0):
            self._distances[element], self._answers[element] = distance, outputs
        return None

    def saved(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Saved where a command asks for them; the elements that have one."""
        if not asked.get("answers"):
            return {}
        _save(asked["answers"], self._answers)
        return {"answers": sorted(self._answers)}


def _save(path: str, answers: Mapping[int, own_answers.Arrays]) -> None:
    """Outputs of answers, each as ``INDEX/NAME``."""
    arrays = {f"{index}/{name}": array for index, answer in answers.items() for name, array in answer.items()}
    pool.save(path, **{name: array.astype("S") if array.dtype == object else array for name, array in arrays.items()})


class Client:
    """Does what commands say."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self._timeout = float(task["timeout"])
        largest = int(task.get("largest", transports.LARGEST_ANSWER))
        self._transport = transports.transport(task["kind"], task["address"], self._timeout, largest)
        self._driver = self._transport.driver()
        self._cells: dict[str, _Cell] = {}

    def do(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a command gives."""
        if asked["do"] == "round_trip":
            return {"round_trip_ns": round_trips(asked["address"], asked["times"])}
        does = {"prepare": self.prepare, "ask": self.ask, "closed": self.closed, "open": self.open}
        return does[asked["do"]](asked)

    def prepare(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Prepare the requests of a cell, in place of those that it had."""
        if before := self._cells.pop(asked["cell"], None):
            before.close()
        cell = self._cells[asked["cell"]] = _Cell(asked, self._transport)
        return {"elements": len(cell.prepared), "request_bytes": [len(request) for request in cell.prepared]}

    def ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Send each element once, one after the other, and save the outputs."""
        cell = self._cells[asked["cell"]]
        latency: list[int] = []
        for index, request in enumerate(cell.prepared):
            began = transports.clock()
            answer = self._transport.send(request)
            latency.append(transports.clock() - began)
            cell.alone[index] = cell.decode(index, answer)  # before the next one writes to the same memory
        _save(asked["answers"], cell.alone)
        return {"latency_ns": latency}

    def closed(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A window of closed loops."""
        cell = self._cells[asked["cell"]]
        farthest = _Farthest(cell)
        window = closed_window(self._driver, cell.prepared, asked["concurrency"], asked["seconds"], farthest.look)
        return window | farthest.saved(asked)

    def open(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A window of arrivals at a rate."""
        cell = self._cells[asked["cell"]]
        farthest = _Farthest(cell)
        due = arrivals.poisson(asked["rate"], asked["seconds"], asked["seed"]).tolist()
        window = open_window(
            self._driver,
            cell.prepared,
            due,
            asked["seconds"],
            connections=asked["connections"],
            timeout=self._timeout,
            check=farthest.look,
        )
        return window | farthest.saved(asked)

    def close(self) -> None:
        """Give connections and memory back."""
        for cell in self._cells.values():
            cell.close()
        self._driver.close()
        self._transport.close()


def round_trips(address: str, times: int) -> list[int]:
    """Times in ns from sending a byte to its echo, on one connection."""
    host, _, port = address.rpartition(":")
    taken = []
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(times):
            began = transports.clock()
            connection.sendall(b"x")
            if not connection.recv(1):
                raise TransportError(f"nobody echoes at {address}")
            taken.append(transports.clock() - began)
    return taken


def main() -> None:
    """Read the task, then obey commands until there are no more."""
    task = read_json(sys.argv[1])
    if task.get("cores"):
        os.sched_setaffinity(0, task["cores"])
    if task.get("namespace"):
        namespaces.enter(task["namespace"])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    client: Client | None = None
    reply: dict[str, Any]
    for line in iter(sys.stdin.readline, ""):
        try:
            if client is None:
                client = Client(task)
            reply = {"ok": client.do(json.loads(line))}
        except (TransportError, UserError, CellFailure, OSError) as error:
            reply = {"error": str(error), "kind": type(error).__name__}
        answers.write(json.dumps(reply) + "\n")
    if client:
        client.close()


if __name__ == "__main__":
    main()
