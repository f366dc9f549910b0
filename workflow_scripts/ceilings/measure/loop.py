"""The timing loops for work that is done when its call returns: a CPU's.

Nothing is allocated, printed or decided between two iterations of a block; decisions fall between blocks.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ceilings.measure.stopping import NS, Protocol

BLOCK_NS = 50_000_000
"""The stop rule is asked about this often."""

Launch = Callable[[Any], Any]


def closed_loop(
    launch: Launch, slots: Sequence[Any], protocol: Protocol, warmed_ns: Sequence[int] = ()
) -> dict[str, Any]:
    """Latency when each inference waits for the one before: warm up until stable, then measure until the stop rule.

    Args:
        launch: Runs one inference on a slot, to its end.
        slots: The input pool; iterations go through it in order.
        warmed_ns: Inferences that ran just before: they belong to the warm-up.

    Returns:
        The ``latency`` series of a run record: every iteration's time in ns, warm-up apart, why it stopped, and
        how long it took in all.
    """
    warmup_ns = list(warmed_ns)
    latency_ns: list[int] = []
    with undisturbed():
        start = time.perf_counter_ns() - sum(warmup_ns)
        stable = protocol.warm(warmup_ns)
        while not stable and time.perf_counter_ns() - start < protocol.warmup_max_seconds * NS:
            block(launch, slots, block_size(warmup_ns), warmup_ns)
            stable = protocol.warm(warmup_ns)

        start = time.perf_counter_ns()
        reason = None
        while reason is None:
            block(launch, slots, block_size(latency_ns or warmup_ns), latency_ns)
            elapsed = time.perf_counter_ns() - start
            reason = protocol.stop_reason(latency_ns, elapsed)
    return {
        "latency_ns": latency_ns,
        "gpu_ns": None,
        "enqueue_ns": None,
        "warmup_ns": warmup_ns,
        "warmup_stable": stable,
        "stop_reason": reason,
        "elapsed_ns": elapsed,
    }


def block(launch: Launch, slots: Sequence[Any], count: int, latency_ns: list[int]) -> None:
    """Time ``count`` inferences, one at a time, going on in the pool where ``latency_ns`` ends."""
    clock, record, pool = time.perf_counter_ns, latency_ns.append, len(slots)
    position = len(latency_ns)
    for i in range(position, position + count):
        slot = slots[i % pool]
        start = clock()
        launch(slot)
        record(clock() - start)


def block_size(latency_ns: Sequence[int]) -> int:
    """How many more iterations take about ``BLOCK_NS``, by the last one; 1 while nothing is known."""
    return max(1, min(BLOCK_NS // max(latency_ns[-1], 1), 10_000)) if latency_ns else 1


def saturated(launch: Launch, slots: Sequence[Any], protocol: Protocol, batch: int) -> dict[str, Any]:
    """Throughput while ``protocol.concurrency`` callers keep the device busy, each with its next request at once.

    The window opens when all callers have begun and closes when the first one stops, so that all of them are at work
    in it. A request counts by the share of its time that lies in the window: slow ones give a rate without a long wait.

    Returns:
        The ``throughput`` series of a run record.
    """
    spans: list[list[tuple[int, int]]] = [[] for _ in range(protocol.concurrency)]
    together = threading.Barrier(protocol.concurrency)

    def caller(requests: list[tuple[int, int]], position: int) -> None:
        together.wait()
        begin = time.perf_counter_ns()
        deadline = begin + int(protocol.saturated_seconds * NS)
        while begin < deadline:
            launch(slots[position % len(slots)])
            end = time.perf_counter_ns()
            requests.append((begin, end))
            begin, position = end, position + 1

    threads = [threading.Thread(target=caller, args=(requests, k)) for k, requests in enumerate(spans)]
    with undisturbed():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    opened = max(requests[0][0] for requests in spans)
    closed = min(requests[-1][1] for requests in spans)
    completions = sum(
        max(0, min(end, closed) - max(begin, opened)) / (end - begin) for requests in spans for begin, end in requests
    )
    seconds = (closed - opened) / NS
    return {
        "concurrency": protocol.concurrency,
        "completions": completions,
        "seconds": seconds,
        "inferences_per_s": completions * batch / seconds,
    }


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python's garbage collector from running inside."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
