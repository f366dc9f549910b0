"""The timing loops for work that is done when its call returns: a CPU's.

Nothing is allocated, printed or decided between two iterations of a block; decisions fall between blocks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ceilings.measure.host_speed import HostSpeed
from ceilings.measure.stopping import FEWEST_REQUESTS, NS, Protocol

BLOCK_NS = 50_000_000
"""The stop rule is asked about this often."""

Launch = Callable[[Any], Any]


def nothing(_: Any) -> None:
    """What is made ready for items that need nothing."""


def closed_loop(
    launch: Launch,
    slots: Sequence[Any],
    protocol: Protocol,
    warmed_ns: Sequence[int] = (),
    *,
    prepare: Launch = nothing,
    whole: int = 1,
) -> dict[str, Any]:
    """Latency when each inference waits for the one before: warm up until stable, then measure until the stop rule.

    Args:
        launch: Runs one inference on a slot, to its end.
        slots: The input pool; iterations go through it in order.
        warmed_ns: Inferences that ran just before: they belong to the warm-up.
        prepare: Makes ready for a slot, before each iteration and untimed.
        whole: So many iterations belong together: measuring begins with the first of them and ends after the last.

    Returns:
        The ``latency`` series of a run record: every iteration's time in ns, warm-up apart, why it stopped,
        how long it took in all, and the speed of the host along it.
    """
    warmup_ns = list(warmed_ns)
    latency_ns: list[int] = []
    host = HostSpeed()
    with undisturbed():
        start = time.perf_counter_ns() - sum(warmup_ns)
        stable = protocol.warm(warmup_ns)
        while not stable and time.perf_counter_ns() - start < protocol.warmup_max_seconds * NS:
            block(launch, slots, block_size(warmup_ns), warmup_ns, prepare)
            stable = protocol.warm(warmup_ns)

        start = time.perf_counter_ns()
        reason = None
        while reason is None:
            host.take(len(latency_ns))
            block(launch, slots, up_to(whole, block_size(latency_ns or warmup_ns)), latency_ns, prepare)
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
        **host.to_json(),
    }


def block(launch: Launch, slots: Sequence[Any], count: int, latency_ns: list[int], prepare: Launch = nothing) -> None:
    """Time ``count`` inferences, one at a time, going on in the pool where ``latency_ns`` ends."""
    clock, record, pool = time.perf_counter_ns, latency_ns.append, len(slots)
    position = len(latency_ns)
    for i in range(position, position + count):
        slot = slots[i % pool]
        prepare(slot)
        start = clock()
        launch(slot)
        record(clock() - start)


def block_size(latency_ns: Sequence[int]) -> int:
    """How many more iterations take about ``BLOCK_NS``, by the last one; 1 while nothing is known."""
    return max(1, min(BLOCK_NS // max(latency_ns[-1], 1), 10_000)) if latency_ns else 1


def up_to(whole: int, count: int) -> int:
    """The next multiple of ``whole``.

    >>> up_to(1, 7), up_to(31, 7), up_to(31, 62)
    (7, 31, 62)
    """
    return -(-count // whole) * whole


def requests(
    request: Callable[[Any], list[int]],
    slots: Sequence[Any],
    protocol: Protocol,
    between: Callable[[], None] = lambda: None,
) -> tuple[list[list[int]], dict[str, Any], tuple[int, int]]:
    """Whole requests, each begun when the one before is over, until the stop rule; everything is warm already.

    Args:
        request: Runs one request on a slot; returns ``perf_counter_ns`` at its begin and at each token's arrival.
        slots: The pool of prompts; requests go through it in order.
        protocol: Its stop rule is asked about the requests' times, from ``FEWEST_REQUESTS`` of them on.
        between: Called after each request, untimed.

    Returns:
        The times of each request, ``stop_reason`` and ``elapsed_ns``, and the span of ``perf_counter_ns``.
    """
    protocol = dataclasses.replace(protocol, min_iterations=FEWEST_REQUESTS)
    times: list[list[int]] = []
    whole_ns: list[int] = []
    with undisturbed():
        start = time.perf_counter_ns()
        reason = None
        while reason is None:
            times.append(request(slots[len(times) % len(slots)]))
            whole_ns.append(times[-1][-1] - times[-1][0])
            between()
            end = time.perf_counter_ns()
            reason = protocol.stop_reason(whole_ns, end - start)
    return times, {"stop_reason": reason, "elapsed_ns": end - start}, (start, end)


def saturated(launch: Launch, slots: Sequence[Any], protocol: Protocol, batch: int) -> dict[str, Any]:
    """Throughput while ``protocol.concurrency`` callers keep the device busy, each with its next request at once.

    The window opens when all callers have begun and closes when the first one stops, so that all of them are at work
    in it; none stops before ``saturated_seconds`` of it, however late another one begins. A request counts by the share
    of its time that lies in the window: slow ones give a rate without a long wait.

    Returns:
        The ``throughput`` series of a run record.
    """
    spans: list[list[tuple[int, int]]] = [[] for _ in range(protocol.concurrency)]
    begun: list[int] = []
    together = threading.Barrier(protocol.concurrency)

    def caller(requests: list[tuple[int, int]], position: int) -> None:
        together.wait()
        begin = time.perf_counter_ns()
        begun.append(begin)
        while len(begun) < protocol.concurrency or begin < max(begun) + protocol.saturated_seconds * NS:
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
