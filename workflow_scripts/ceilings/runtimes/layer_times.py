"""What each layer of an engine takes, from TensorRT's own profiler.

Never a latency: the profiler puts an event round every layer, so none overlaps another and gaps between them are not
seen. The inference is therefore timed as a whole too, with the profiler and without.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from ceilings.engines.inspect import Layer
from ceilings.runtimes.tensorrt_native import TensorRt

WARM_RUNS = 20


def layer_times(runner: TensorRt, slots: Sequence[Any], iterations: int) -> dict[str, Any]:
    """Times of ``iterations`` inferences over the input pool, one at a time.

    Args:
        runner: Loaded, without a CUDA graph: a replay has no layers to report.
        slots: The pool, placed.
        iterations: With the profiler, and as many without.

    Returns:
        ``layers``: in the order in which they ran, name and times in ns of an inference (a layer that runs more than
        once in one is summed); ``layers_sum_ns`` and ``inference_ns`` (``plain`` and ``profiled``), all medians.
    """
    context = runner.context
    for slot in islice(cycle(slots), WARM_RUNS):
        runner.run(slot)
    plain = list(_spans(runner, slots, iterations))
    profiler = make_profiler(runner.trt)
    context.profiler = profiler
    profiled, inferences = [], []
    for span in _spans(runner, slots, iterations):
        profiled.append(span)
        inferences.append(profiler.take())
    names = list(dict.fromkeys(name for inference in inferences for name in inference))
    columns = {name: [inference.get(name, 0) for inference in inferences] for name in names}
    total = np.median([sum(inference.values()) for inference in inferences])
    layers = [
        {
            "name": name,
            "median_ns": float(np.median(times)),
            "p10_ns": float(np.quantile(times, 0.1)),
            "p90_ns": float(np.quantile(times, 0.9)),
        }
        for name, times in columns.items()
    ]
    return {
        "iterations": iterations,
        "layers": layers,
        "layers_sum_ns": float(total),
        "inference_ns": {"plain": float(np.median(plain)), "profiled": float(np.median(profiled))},
    }


def described(layers: Sequence[Mapping[str, Any]], known: Sequence[Layer]) -> list[dict[str, Any]]:
    """``layers`` with what the engine's inspector says of each: kind, precision and ONNX nodes; None where nothing."""
    by_name = {layer.name: layer for layer in known}
    rows = []
    for layer in layers:
        about = by_name.get(layer["name"])
        rows.append(
            {
                **layer,
                "kind": about.kind if about else None,
                "precision": about.precision if about else None,
                "nodes": list(about.nodes) if about else None,
            }
        )
    return rows


def make_profiler(trt: Any) -> Any:
    """A profiler that adds up each layer's time until ``take`` hands it out, in ns by name."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, int] = collections.defaultdict(int)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Called by TensorRT for each layer of an inference, in order."""
            self.times[layer_name] += round(ms * 1e6)

        def take(self) -> dict[str, int]:
            """What was reported since the last call."""
            taken, self.times = dict(self.times), collections.defaultdict(int)
            return taken

    return Profiler()


def _spans(runner: TensorRt, slots: Sequence[Any], iterations: int) -> Iterator[int]:
    """Device time of one inference after the other, in ns, between two events of PyCUDA."""
    watch = runner.memory.Stopwatch(runner.stream)
    for slot in islice(cycle(slots), iterations):
        runner.activate(slot)
        runner.stream.synchronize()
        watch.start()
        runner.launch(slot)
        yield watch.stop_ns()
