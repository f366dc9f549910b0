"""What some iterations of a capture do and others do not."""

from __future__ import annotations

import random

import pytest
from unit.traces import planted
from unit.traces.events import Events

from ceilings import records
from ceilings.report.render.time_account import where_time_goes
from ceilings.report.tables.budget_rows import UNSTEADY_COLUMNS
from ceilings.report.tables.collect import collect
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
        **{"what": "kernel", "name": "search_kernel", "iterations": 2, "of": ITERATIONS, "first": 3, "last": 17},
        **{"least": 0, "most": 1, "period": None, "ns": 10_000.0},
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
    assert line == (
        "not in every iteration, but in a fixed turn: kernel `split` 1 to 2 times an iteration, the same every 2 "
        "iterations (4.5 µs)"
    )


def test_buffers_in_turn_are_periodic_and_one_that_misses_its_turn_is_not():
    def in_turn(events, number, begin):
        if number % 3 == 1 or number == 20:
            events.launch(begin + 12, begin + 15, (begin + 42, begin + 45, "late"))
        if number % 3 == 1:
            events.launch(begin + 16, begin + 18, (begin + 46, begin + 49, "turn"))

    assert {one["name"]: one["period"] for one in irregular(loop(in_turn).capture())} == {"late": None, "turn": 3}


def test_what_only_the_first_iterations_do_is_said_to_be_theirs():
    def settle(events, number, begin):
        if number < 4:
            events.call(begin + 12, begin + 22, "cuModuleLoadData")

    (line,) = flags(irregular(loop(settle).capture()))
    assert line == "not the same in every iteration: call `cuModuleLoadData` in the first 4 of 30 (10 µs)"


def test_copies_and_fills_are_named_by_their_direction():
    def copies(events, number, begin):
        if number in (3, 4):
            events.copy(events.call(begin + 12, begin + 14, "cudaMemcpyAsync_v3020"), begin + 42, begin + 46, kind=1)
        if number == 9:
            events.fill(events.call(begin + 15, begin + 17, "cudaMemsetAsync_v3020"), begin + 50, begin + 51)

    found = [one for one in irregular(loop(copies).capture()) if one["what"] == "copy"]
    assert [(one["name"], one["iterations"], one["ns"]) for one in found] == [
        ("host to device", 2, 4_000.0),
        ("fill", 1, 1_000.0),
    ]
    assert "copy `host to device` in 2 of 30" in flags(found)[0]


def test_the_table_and_the_report_say_which_cell_is_not_steady(tmp_path):
    def unsteady(events, begin, stretch):
        if stretch > 1.4:  # one of 30
            events.call(begin + 1, begin + 31, "cudaMalloc_v3020")
            events.launch(begin + 31, begin + 33, (begin + 34, begin + 37, "search"))
        return planted.graph(events, begin + 40, stretch)

    maker = planted.study(tmp_path)
    for cell in maker.cells:
        if cell["runtime"] == "onnxruntime-cuda":
            record = records.read(cell["budget"], "budget") | budget_record(planted.capture(unsteady))
            records.write(cell["budget"], "budget", record)
    tables = collect(maker.plan())
    row = tables.budgets.set_index("runtime").loc["onnxruntime-cuda"]
    assert row[list(UNSTEADY_COLUMNS)].tolist() == pytest.approx([2, 0.030 / 30, 0.003 / 30])
    page = where_time_goes(maker.plan(), tables)
    assert "Steady state: in 1 of 2 checked captures" in page
    assert "2 names, a mean of 1.00 µs in calls and 0.100 µs on the device, of " in page
    assert "cudaMalloc" in page and "in 1 of 30 (30 µs)" in page


def test_the_profiler_s_own_calls_are_not_the_workload_s():
    def flush(events, number, begin):
        if number == 7:
            events.call(begin + 12, begin + 22, "cuptiActivityFlushAll")
            events.call(begin + 23, begin + 24, "cudaProfilerStop_v4000")

    assert irregular(loop(flush).capture()) == []


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
