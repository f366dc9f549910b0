"""Budgets of cells whose iterations were made up, in the results tree and the plan of a study."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from unit import planted_records
from unit.report import planted_study
from unit.traces.events import Events

from ceilings import records
from ceilings.report.tables.keys import KEY
from ceilings.traces.budget_record import budget_record

KINDS = ("nvjet_hsh_128x64", "layer_norm_kernel", "vectorized_elementwise_kernel", "flash_fwd_kernel", "gatherKernel")


def eager(events: Events, begin: float, stretch: float = 1.0) -> float:
    """120 launches of 9 us each, of which 3 in the call, against kernels of 1.5 to 4 us."""
    now, device = begin + 40, 0.0
    for number in range(120):
        start = max(now + 4, device + 1)
        device = start + 1.5 + (number % 6) / 2
        events.launch(now, now + 3, (start, device, KINDS[number % 5]))
        now += 9 * stretch
    now += 20
    events.call(now, max(now, device) + 8, "cudaStreamSynchronize_v3020")
    return max(now, device) + 10


def graph(events: Events, begin: float, stretch: float = 1.0) -> float:
    """One graph of 90 kernels of 2 to 4 us with gaps of 1 us."""
    launch = begin + 12
    nodes, now = [], launch + 9
    for number in range(90):
        nodes.append((now, now + (2 + (number % 5) / 2) * stretch, KINDS[number % 5], 7, number + 1))
        now = nodes[-1][1] + 1
    events.launch(launch, launch + 20, *nodes, name="cudaGraphLaunch_v10000")
    events.call(launch + 25, now + 6, "cudaStreamSynchronize_v3020")
    return now + 8


def capture(shape, iterations: int = 30):
    """A capture of iterations whose lengths vary a little, one of them by half."""
    events, now = Events(), 0.0
    for number in range(iterations):
        events.copy(events.call(now, now + 2, "cudaMemcpyAsync_v3020"), now + 3, now + 4, kind=8)
        stretch = 1.5 if number == 17 else 1 + 0.002 * (number % 7)
        begin, now = now + 10, shape(events, now + 10, stretch)
        events.mark(begin, now)
        now += 5
    return events.capture(iterations=iterations)


@functools.cache
def accounted(shape) -> dict[str, Any]:
    """What a budget record has from the capture: replays at 31 speeds take a second."""
    return budget_record(capture(shape))


def study(root: Path, batches: tuple[int, ...] = (1,)) -> planted_study.StudyMaker:
    """Two captured cells a batch on a GPU, with latencies a little below the captures'."""
    p50 = {"torch-cuda-eager": 1.08, "onnxruntime-cuda": 0.35}
    submitting = {"torch-cuda-eager": 0.97, "onnxruntime-cuda": 0.08}
    maker = planted_study.StudyMaker(root, lambda runtime, *_: p50[runtime], enqueue=lambda r, _: submitting[r])
    for runtime, shape in (("torch-cuda-eager", eager), ("onnxruntime-cuda", graph)):
        made = accounted(shape)
        for batch in batches:
            cell = maker.add(planted_study.GPU, runtime, "fp16", batch, 128)
            record = {
                **{"status": "ok", "failure": None, "source": "cupti", "tool": "CUPTI", "warmup_p50_ns": None},
                "cell": {name: cell[name] for name in KEY},
                **made,
                "provenance": planted_records.PROVENANCE,
            }
            cell["budget"] = str(root / f"{runtime}-{batch}.budget.json")
            records.write(cell["budget"], "budget", record)
    return maker
