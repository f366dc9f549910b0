"""How long transfers between host and device take, from a few bytes to hundreds of MiB, by each way there is.

Host time is that of a transfer and the wait for it, by ``perf_counter_ns``, called from Python. Device time is taken by
events: over a CUDA graph of many transfers in a row where one can be captured, else around a single transfer.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda
from ceilings.cuda.cuda_graph import Graph, captured
from ceilings.limits import transfer_ways
from ceilings.limits.transfer_ways import EVENTS, GRAPH, Enqueue, Way

MIB = 1 << 20
SIZES = tuple(4**power for power in range(1, 15))
"""Bytes of a transfer: 4 B to 256 MiB."""

LEFT_FREE = 8
"""What is free must be so many times the largest transfer: a group has up to four blocks of that size a side."""

FEWEST_ROUNDS = 3
SAMPLE_S = 0.002
"""Seconds of transfers of one size in one round, about."""

MOST_TRANSFERS, MOST_ANEW = 100, 5
"""Transfers of one size in one round: at most, and at most where each has to be prepared."""

GRAPH_BYTES, MOST_CAPTURED, REPLAYS = 8 * MIB, 50, 3
"""Bytes and transfers in a CUDA graph, at most (one transfer at least), and its replays in one round."""

GROUPS = {
    "copies": transfer_ways.copies,
    "mapped": transfer_ways.mapped,
    "staged": transfer_ways.staged,
    "managed": transfer_ways.managed,
    "direct": transfer_ways.direct,
}
"""Ways that are measured in the same rounds. Each group has its memory to itself, freed before the next one.

What may break a process comes late, and what changes the devices for good last.
"""

DEVICE_METHODS = {
    GRAPH: "events around a CUDA graph of transfers in a row, over their number",
    EVENTS: "events around one transfer, which holds what the host does for it",
}


def fitting(sizes: Sequence[int], free_bytes: int) -> list[int]:
    """The sizes that leave most of the memory free: of managed memory, for one, there is never more than fits.

    Args:
        sizes: To choose from.
        free_bytes: What is free, of the device's memory or of the host's, whichever is less.
    """
    return [size for size in sizes if LEFT_FREE * size <= free_bytes]


class TransferBench:
    """Measures each way on device 0.

    Args:
        rounds: Repetitions, each over all sizes and ways of a group.
        seconds: For one group: it ends after three rounds once they are used up.
        sizes: Of transfers, rising.
    """

    def __init__(self, rounds: int, seconds: float, sizes: Sequence[int]) -> None:
        self.rounds, self.seconds, self.sizes = rounds, seconds, tuple(sizes)
        self.stream = cuda.Stream()
        self._events = cuda.Event(), cuda.Event()
        self._pattern = np.random.default_rng(0).integers(0, 256, self.sizes[-1], dtype=np.uint8)

    def group(self, name: str) -> dict[str, dict[str, Any]]:
        """The curves of one of ``GROUPS`` by the names of its ways; what cannot be had is ``{"unavailable": why}``."""
        print(name, file=sys.stderr, flush=True)
        try:
            return self._group(GROUPS[name])
        except Exception as error:  # memory that this machine does not have takes no other group with it
            return {name: {"unavailable": reason(error)}}

    def _group(self, make: Callable[[int, cuda.Stream], list[Way]]) -> dict[str, dict[str, Any]]:
        curves: dict[str, dict[str, Any]] = {}
        timed = []
        for way in make(self.sizes[-1], self.stream):
            try:
                timed.append(Timed(way, self))
            except Exception as error:  # as above
                curves[way.name] = {"unavailable": reason(error)}
        start = time.monotonic()
        for done in range(self.rounds):
            if done >= FEWEST_ROUNDS and time.monotonic() - start > self.seconds:
                break
            for nbytes in self.sizes:
                for one in timed:
                    one.sample(nbytes)
        return curves | {one.way.name: one.curve() for one in timed}

    # --- taking numbers ---------------------------------------------------------------------------------------------

    def host_ns(self, enqueue: Enqueue) -> int:
        """Host time of one transfer and the wait for it."""
        clock, wait, handle = time.perf_counter_ns, cudart.cudaStreamSynchronize, self.stream.native
        start = clock()
        enqueue()
        result = wait(handle)
        end = clock()
        cuda.check(result, "waiting for a transfer")
        return end - start

    def device_ns(self, enqueue: Enqueue) -> int:
        """Device time of what a call enqueues."""
        begin, end = self._events
        begin.record(self.stream)
        enqueue()
        end.record(self.stream)
        self.stream.synchronize()
        return cuda.elapsed_ns(begin, end)

    def refuse_wrong(self, way: Way, nbytes: int, enqueue: Enqueue) -> None:
        """Hold what arrives against what was sent.

        Raises:
            RuntimeError: They differ.
        """
        sent = self._pattern[:nbytes]
        way.target.fill(np.zeros(nbytes, np.uint8))
        way.source.fill(sent)
        way.ready(nbytes)
        enqueue()
        self.stream.synchronize()
        arrived = way.target.read(nbytes)
        if not np.array_equal(arrived, sent):
            wrong = int(np.count_nonzero(arrived != sent))
            raise RuntimeError(f"{wrong:,} of {nbytes:,} bytes arrived wrong by {way.name}")


class Timed:
    """One way with its times so far.

    Args:
        way: What is timed; each size is transferred once, and held against what was sent.
        bench: What times.

    Raises:
        RuntimeError: Something arrived wrong.
    """

    def __init__(self, way: Way, bench: TransferBench) -> None:
        self.way, self._bench = way, bench
        self._calls = {nbytes: way.enqueue(nbytes) for nbytes in bench.sizes}
        self._counts = {nbytes: self._first(nbytes) for nbytes in bench.sizes}
        self._graphs: dict[int, tuple[Graph, Enqueue]] = {}
        if way.clock == GRAPH:
            self._graphs = {nbytes: self._captured(nbytes) for nbytes in bench.sizes}
        self._host: dict[int, list[float]] = {nbytes: [] for nbytes in bench.sizes}
        self._device: dict[int, list[float]] = {nbytes: [] for nbytes in bench.sizes}

    def sample(self, nbytes: int) -> None:
        """One round at one size."""
        call, count, way, bench = self._calls[nbytes], self._counts[nbytes], self.way, self._bench
        host, device = [], []
        for _ in range(count):
            if way.anew:
                way.ready(nbytes)
            host.append(bench.host_ns(call))
        if way.clock == GRAPH:
            graph, replay = self._graphs[nbytes]
            if way.anew:
                way.ready(nbytes)
            device = [bench.device_ns(replay) / graph.nodes for _ in range(REPLAYS)]
        elif way.clock == EVENTS:
            for _ in range(count):
                if way.anew:
                    way.ready(nbytes)
                device.append(bench.device_ns(call))
        self._host[nbytes].append(statistics.median(host) / 1e3)
        if device:
            self._device[nbytes].append(statistics.median(device) / 1e3)

    def curve(self) -> dict[str, Any]:
        """The curve of the way, as its record holds it."""
        return {
            "method": self.way.method,
            "device_method": DEVICE_METHODS.get(self.way.clock),
            "rounds": len(self._host[self._bench.sizes[0]]),
            "points": [
                {
                    "bytes": nbytes,
                    "transfers": self._counts[nbytes],
                    "host_us": ranged(self._host[nbytes]),
                    "device_us": ranged(self._device[nbytes]) if self._device[nbytes] else None,
                }
                for nbytes in self._bench.sizes
            ],
        }

    def _first(self, nbytes: int) -> int:
        """How many transfers of this size a round has; what arrives is compared once."""
        call, bench = self._calls[nbytes], self._bench
        bench.refuse_wrong(self.way, nbytes, call)
        start = time.perf_counter_ns()
        self.way.ready(nbytes)
        bench.host_ns(call)
        taken_s = (time.perf_counter_ns() - start) / 1e9
        return max(1, min(MOST_ANEW if self.way.anew else MOST_TRANSFERS, int(SAMPLE_S / taken_s)))

    def _captured(self, nbytes: int) -> tuple[Graph, Enqueue]:
        """A CUDA graph of transfers in a row, and what replays it."""
        with captured(self._bench.stream) as graph:
            for _ in range(max(1, min(MOST_CAPTURED, GRAPH_BYTES // nbytes))):
                self._calls[nbytes]()
        replay = graph.launcher(self._bench.stream)
        self._bench.device_ns(replay)  # the first replay also uploads the graph
        return graph, replay


def ranged(values: Sequence[float]) -> dict[str, float]:
    """Median and range over rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def reason(error: Exception) -> str:
    """Why something cannot be had, in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
