"""What some iterations of a capture do and others do not."""

from __future__ import annotations

import random

from unit.traces.events import Events

from ceilings.traces.budget_record import budget_record
from ceilings.traces.steady import flags, irregular

ITERATIONS = 30


def loop(extra=None) -> Events:
    """Iterations of two kernels and a wait; ``extra(events, number, begin)`` adds to one of them."""
    events, now = Events(), 10.0
    for number in range(ITERATIONS):
        events.mark(now, now + 100)
        events.launch(now + 2, now + 6, (now + 8, now + 20, "gemm"))
        events.launch(now + 7, now + 11, (now + 22, now + 40, "softmax"))
        if extra:
            extra(events, number, now)
        events.call(now + 60, now + 90, "cudaStreamSynchronize_v3020")
        now += 110
    return events


def test_a_steady_loop_has_nothing_to_say():
    record = budget_record(loop().capture())
    assert record["irregular"] == [] and record["flags"] == []


def test_a_search_in_two_iterations_is_named():
    def search(events, number, begin):
        if number in (3, 17):
            events.launch(begin + 12, begin + 15, (begin + 42, begin + 52, "search_kernel"))
            events.call(begin + 16, begin + 46, "cudaMalloc_v3020")

    record = budget_record(loop(search).capture())
    by_name = {one["name"]: one for one in record["irregular"]}
    assert by_name["search_kernel"] == {
        **{"what": "kernel", "name": "search_kernel", "iterations": 2, "of": ITERATIONS},
        **{"least": 0, "most": 1, "ns": 10_000.0},
    }
    assert by_name["cudaMalloc"]["ns"] == 30_000.0 and by_name["cudaMalloc"]["iterations"] == 2
    assert len(by_name) == 2
    assert record["flags"][-2:] == [
        "not the same in every iteration: kernel `search_kernel` in 2 of 30 (10 µs)",
        "not the same in every iteration: call `cudaMalloc` in 2 of 30 (30 µs)",
    ]


def test_an_allocation_in_every_iteration_is_no_steady_state():
    def allocate(events, number, begin):
        events.call(begin + 12, begin + 22, "cudaMallocAsync_v11020")
        events.call(begin + 23, begin + 25, "cudaFreeAsync_v11020")

    found = irregular(loop(allocate).capture())
    assert [one["name"] for one in found] == ["cudaMallocAsync", "cudaFreeAsync"]
    assert flags(found) == [
        "prepared in every iteration: call `cudaMallocAsync` 1 an iteration (10 µs), call `cudaFreeAsync` 1 an "
        "iteration (2 µs)"
    ]


def test_a_kernel_that_comes_once_or_twice_is_named_with_both():
    def twice(events, number, begin):
        for k in range(1 + number % 2):
            events.launch(begin + 12 + 5 * k, begin + 15 + 5 * k, (begin + 42 + 5 * k, begin + 45 + 5 * k, "split"))

    (line,) = flags(irregular(loop(twice).capture()))
    assert line == "not the same in every iteration: kernel `split` 1 to 2 times an iteration (4.5 µs)"


def test_polling_and_what_lies_between_iterations_are_left_out():
    dice = random.Random(0)

    def poll(events, number, begin):
        for k in range(dice.randrange(5)):
            events.call(begin + 12 + k, begin + 12.5 + k, "cudaEventQuery_v3020")
        if number == 4:
            events.launch(begin + 101, begin + 103, (begin + 104, begin + 108, "between"))

    assert irregular(loop(poll).capture()) == []


def test_only_the_longest_are_named():
    def many(events, number, begin):
        if number == 5:
            for k in range(6):
                events.launch(begin + 12 + k, begin + 12.5 + k, (begin + 42 + 2 * k, begin + 43 + 2 * k, f"other_{k}"))

    line = flags(irregular(loop(many).capture()))[0]
    assert line.count("other_") == 3 and line.endswith("and 3 more")
