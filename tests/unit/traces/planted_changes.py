"""Captures of changing shapes whose costs are planted: what a change adds is known to the microsecond."""

from __future__ import annotations

import itertools

from unit.planted_records import PROVENANCE
from unit.traces.events import Events

from ceilings.traces.shape_change import change_record

SHAPES = ("b1", "b2")
ORDER = (0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0)


def facts(order=ORDER, before: int = 1, **others):
    """What the capturing process says of requests in this order, after one of the shape ``before``."""
    previous = [before, *order[:-1]]
    return {"shapes": list(SHAPES), "order": list(order), "previous": previous, "first": 0, "settling": 2} | others


WORK_US = {0: 30, 1: 50}
SEARCH_US, LOAD_US, ALLOCATE_US, FREE_US, CODE_US = 100, 40, 20, 5, 7
INTO_B1, INTO_B2 = 4, 3
CHANGES = INTO_B1 + INTO_B2
"""The first request follows another shape too."""

COST_US = LOAD_US + ALLOCATE_US + FREE_US + CODE_US + 3 + SEARCH_US
"""Of a change into any shape: the launch of the search takes 3."""


def request(events: Events, now: float, shape: int, *, change: bool, begin: float | None = None) -> float:
    """One request from ``now`` on; returns its end. A search tries the kernel of the other shape too.

    Args:
        begin: Of its mark, if that is earlier.
    """
    begin = now if begin is None else begin
    now += 2
    if change:
        events.call(now, now + LOAD_US, "cuModuleLoadData")
        now += LOAD_US
        events.call(now, now + ALLOCATE_US, "cudaMalloc_v3020")
        now += ALLOCATE_US + CODE_US
        launched = now
        events.launch(
            *(now, now + 3),
            *((now + 3, now + 63, "search_a"), (now + 63, now + 103, f"conv_b{2 - shape}")),
        )
        now = launched + 3
    start = now + (SEARCH_US if change else 0) + 4
    events.launch(now, now + 4, (start, start + WORK_US[shape], f"conv_b{shape + 1}"))
    events.call(now + 4, start + WORK_US[shape] + 1, "cudaStreamSynchronize_v3020")
    now = start + WORK_US[shape] + 1
    if change:
        events.call(now, now + FREE_US, "cudaFree_v3020")
        now += FREE_US
    events.mark(begin, now + 3)
    return now + 3


def events_of(order=ORDER, before: int = 1) -> Events:
    events, now = Events(), 10.0
    for previous, shape in itertools.pairwise([before, *order]):
        now = request(events, now, shape, change=previous != shape) + 10
    return events


def capture():
    """The planted capture."""
    return events_of().capture(requests=facts())


CELL = {"device": "gpu-planted", "runtime": "onnxruntime-cuda", "model": "vit", "precision": "fp16", "sequence": "two"}


def content(**others):
    """The content of the planted capture's record."""
    facts_of = {"status": "ok", "failure": None, "source": "cupti", "tool": "CUPTI", "cell": CELL}
    return {**facts_of, **change_record(capture()), "provenance": PROVENANCE, **others}
