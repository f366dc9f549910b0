"""The timing loops of a GPU. Three numbers an iteration, all on the host's or the device's one clock:

``latency_ns``  host, from before the first call that submits until the wait for the stream returns;
``enqueue_ns``  host, the calls that submit;
``gpu_ns``      device, between an event before the work and one after it.

The event before is recorded before the host's clock starts, on an idle stream; the one after is recorded while the GPU
works. So a latency holds one event's recording, and only where the GPU is done before the host is. ``call_costs`` says
how long that takes.

Of a runtime that hides its stream there is the host's clock alone: its launch waits itself, and the other two are None.

Nothing is allocated, printed or decided between two iterations of a block; decisions fall between blocks.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from cuda.bindings import runtime as cudart

from ceilings.cuda import device as cuda
from ceilings.cuda import monitor as gpu_monitor
from ceilings.measure import loop
from ceilings.measure.host_speed import HostSpeed
from ceilings.measure.loop import block_size, undisturbed, up_to
from ceilings.measure.stopping import NS, Protocol

IN_FLIGHT = 8
"""Launches queued at most in the saturated regime: enough to hide any host, few enough to bound the queue."""


@dataclasses.dataclass(frozen=True)
class Regime:
    """How one iteration goes.

    Attributes:
        prepare: Enqueued and waited for before each iteration, untimed.
        submit: Timed; enqueues one inference.
        items: What both are called with, in turn.
        whole: So many items belong together: measuring begins with the first of them and ends after the last.
    """

    prepare: Callable[[Any], None]
    submit: Callable[[Any], Any]
    items: Sequence[Any]
    whole: int = 1


class Samples:
    """The three numbers of every iteration so far."""

    def __init__(self) -> None:
        self.latency_ns: list[int] = []
        self.enqueue_ns: list[int] = []
        self.gpu_ns: list[int] = []


def closed_loop(
    regime: Regime, stream: cuda.Stream | None, protocol: Protocol, monitor: gpu_monitor.Monitor | None = None
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Warm up until stable, then measure until the stop rule.

    Args:
        regime: What one iteration does.
        stream: Where it does it; None where the runtime hides that, and ``submit`` waits itself.
        protocol: When a warm-up is over and when to stop.
        monitor: If given, warm-up also waits for the SM clock's plateau.

    Returns:
        A series as in :func:`ceilings.measure.loop.closed_loop`, and its span of ``perf_counter_ns``.
    """
    warmup, measured, host = Samples(), Samples(), HostSpeed()
    events = None if stream is None else (cuda.Event(), cuda.Event())
    with undisturbed():
        start = time.perf_counter_ns()
        stable = False
        while not stable and time.perf_counter_ns() - start < protocol.warmup_max_seconds * NS:
            block(regime, stream, events, block_size(warmup.latency_ns), warmup)
            stable = protocol.warm(warmup.latency_ns)
            if monitor is not None:
                monitor.poll()
                stable = stable and gpu_monitor.plateau(gpu_monitor.between(monitor.samples, start, 1 << 63))

        start = time.perf_counter_ns()
        reason = None
        while reason is None:
            host.take(len(measured.latency_ns))
            count = up_to(regime.whole, block_size(measured.latency_ns or warmup.latency_ns))
            block(regime, stream, events, count, measured)
            if monitor is not None:
                monitor.poll()
            end = time.perf_counter_ns()
            reason = protocol.stop_reason(measured.latency_ns, end - start)
    series = {
        "latency_ns": measured.latency_ns,
        "gpu_ns": None if stream is None else measured.gpu_ns,
        "enqueue_ns": None if stream is None else measured.enqueue_ns,
        "warmup_ns": warmup.latency_ns,
        "warmup_stable": stable,
        "stop_reason": reason,
        "elapsed_ns": end - start,
        **host.to_json(),
    }
    return series, (start, end)


def block(
    regime: Regime,
    stream: cuda.Stream | None,
    events: tuple[cuda.Event, cuda.Event] | None,
    count: int,
    samples: Samples,
) -> None:
    """Time ``count`` inferences, one at a time, going on in the pool where ``samples`` end."""
    if stream is None or events is None:
        loop.block(regime.submit, regime.items, count, samples.latency_ns, regime.prepare)
        return
    clock = time.perf_counter_ns
    record, synchronize, elapsed = cudart.cudaEventRecord, cudart.cudaStreamSynchronize, cudart.cudaEventElapsedTime
    prepare, submit, items = regime.prepare, regime.submit, regime.items
    handle, begin, end = stream.native, events[0].native, events[1].native
    keep_latency, keep_enqueue = samples.latency_ns.append, samples.enqueue_ns.append
    keep_gpu, pool = samples.gpu_ns.append, len(items)
    position = len(samples.latency_ns)
    for i in range(position, position + count):
        item = items[i % pool]
        prepare(item)
        synchronize(handle)
        record(begin, handle)
        start = clock()
        # Kept until after the clock has stopped: freeing a framework's result is not part of an inference.
        launched = submit(item)
        submitted = clock()
        record(end, handle)
        waited = synchronize(handle)
        stop = clock()
        if waited[0]:
            cuda.check(waited, "waiting for an inference")
        del launched
        keep_latency(stop - start)
        keep_enqueue(submitted - start)
        keep_gpu(round(cuda.check(elapsed(begin, end), "reading the events") * 1e6))


def saturated(
    regime: Regime, stream: cuda.Stream, protocol: Protocol, *, batch: int, depth: int
) -> tuple[dict[str, Any], tuple[int, int], int]:
    """Throughput with up to ``depth`` launches queued.

    The clock starts when the first launch is done, with the others queued behind it, and stops when all are done.
    Nothing is prepared between launches, so the inputs stay as they are: what a model costs does not depend on them,
    and a copy would compete with the work.

    Returns:
        The ``throughput`` series, its span of ``perf_counter_ns``, and the inferences in that span.
    """
    events = [cuda.Event(timing=False) for _ in range(depth)]
    natives = [event.native for event in events]
    record, wait, clock = cudart.cudaEventRecord, cudart.cudaEventSynchronize, time.perf_counter_ns
    submit, items, handle = regime.submit, regime.items, stream.native
    pool = len(items)
    with undisturbed():
        stream.synchronize()
        for i in range(depth):
            submit(items[i % pool])
            record(natives[i], handle)
        cuda.check(wait(natives[0]), "waiting for an inference")
        start = clock()
        deadline = start + int(protocol.saturated_seconds * NS)
        launched = depth
        while clock() < deadline:
            slot = launched % depth
            wait(natives[slot])
            submit(items[launched % pool])
            record(natives[slot], handle)
            launched += 1
        stream.synchronize()
        end = clock()
    completions, seconds = launched - 1, (end - start) / NS
    series = {
        "concurrency": depth,
        "completions": completions,
        "seconds": seconds,
        "inferences_per_s": completions * batch / seconds,
    }
    return series, (start, end), completions * batch
