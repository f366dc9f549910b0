"""Captures of cells that generate, made by hand: decode steps between prefills, and a server's with several threads."""

from __future__ import annotations

import pytest
from unit.traces.events import Events

from ceilings.traces.budget import Account
from ceilings.traces.budget_record import budget_record

US = 1000
GEMV, ATTENTION = "void gemv2T_kernel_val<int, __half>(int)", "kernel_unified_attention_2d"
ARGMAX = "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<c10::Half, at::native::ArgMaxOps<float>>>(T3)"
STEPS, REQUESTS = 5, 4


def prefill(events: Events, begin: float) -> float:
    """Of a request, before its first decode step and outside of every mark: one long product and a wait."""
    events.launch(begin, begin + 4, (begin + 6, begin + 506, "prefill_gemm"))
    events.call(begin + 5, begin + 510, "cudaStreamSynchronize_v3020")
    return begin + 520


def decode(events: Events, begin: float) -> float:
    """A step of 100 us: products, attention, argmax by one graph, the token to the host, and a wait for it."""
    events.mark(begin, begin + 100)
    launch = events.call(begin + 5, begin + 15, "cudaGraphLaunch_v10000")
    for number, (start, end, name) in enumerate([(20, 60, GEMV), (60, 75, ATTENTION), (75, 80, ARGMAX)]):
        events.kernel(launch, begin + start, begin + end, name, node=number + 1)
    copy = events.call(begin + 16, begin + 20, "cudaMemcpyAsync_v3020")
    events.copy(copy, begin + 82, begin + 84)
    events.call(begin + 21, begin + 90, "cudaStreamSynchronize_v3020")
    return begin + 104


@pytest.fixture(scope="module")
def capture():
    events, now = Events(), 10.0
    for _ in range(REQUESTS):
        now = prefill(events, now)
        for _ in range(STEPS):
            now = decode(events, now)
    return events.capture()


def test_a_prefill_between_marks_is_in_no_step(capture):
    record = budget_record(capture)
    assert record["iterations"] == STEPS * REQUESTS and record["iteration_ns"]["median"] == 100 * US
    assert not any("prefill" in kernel["name"] for kernel in record["kernels"])
    assert [(kernel["class"], kernel["count"], kernel["ns"]) for kernel in record["kernels"]] == [
        ("gemm", 1, 40 * US),
        ("attention", 1, 15 * US),
        ("sampling", 1, 5 * US),
    ]
    assert record["counts"] == {"launches": 1, "graphs": 1, "kernels": 3}
    assert not record["flags"] and record["jitter"]["iteration_ns"] == 0


def test_the_parts_of_a_step_are_those_that_were_planted(capture):
    record = budget_record(capture)
    host, device = record["host_ns"], record["device_ns"]
    # The copy call returns before its copy is done: it waited for nothing. All waiting is in the synchronisation.
    assert {name: part["median"] for name, part in host.items()} == {
        "framework": (5 + 1 + 1 + 10) * US,
        "launch": 10 * US,
        "copy": 4 * US,
        "sync": 69 * US,
    }
    classes = {name: part["median"] for name, part in device["classes"].items() if part["median"]}
    assert classes == {"gemm": 40 * US, "attention": 15 * US, "sampling": 5 * US, "copy": 2 * US}
    # Before the graph 5 of the host and 10 in its launch call, 5 queued; 2 before the token's copy, which its call
    # had requested long before; after it the host notices within the wait and then ends the step.
    assert {name: part["median"] for name, part in device["idle"].items()} == {
        "host": (5 + 10) * US,
        "launching": 10 * US,
        "queued": (5 + 2) * US,
        "sync": 6 * US,
    }
    # From the end: the host after its wait, noticing, the token's way, kernels, their launch, the host before it.
    shares = {name: round(value * 100) for name, value in record["shares"].items()}
    assert shares == {"host": 10 + 5, "sync": 6, "transfer": 4, "kernel": 60, "launch": 10 + 5}
    assert record["verdict"]["name"] == "kernel-bound"


def test_a_step_can_be_replayed_and_its_prefill_takes_no_part(capture):
    replays = budget_record(capture)["replays"]
    recorded = replays["host"].index(1.0)
    assert replays["length_ns"][recorded] == pytest.approx(100 * US)
    # Kernels and the token's way stay, and so does the launch's latency: the host's own time is what scales.
    assert replays["length_ns"][0] == pytest.approx(100 * US - (5 + 10 + 10) * US, abs=6 * US)
    # Without the device's work a step is its calls and its notice.
    assert replays["no_work_ns"][recorded] < 50 * US


def served(events: Events, begin: float, first: bool) -> float:
    """A server's step of 200 us: scheduling, inputs to the device and a wait within, the model by a second thread,
    and the token's copy on a second stream."""
    worker = 2
    events.mark(begin, begin + 200)
    copy = events.call(begin + 40, begin + 44, "cudaMemcpyAsync_v3020")
    events.copy(copy, begin + 46, begin + 48, kind=1)
    events.call(begin + 45, begin + 52, "cudaStreamSynchronize_v3020")  # waits for its inputs, in the middle
    launch = events.call(begin + 60, begin + 70, "cudaGraphLaunch_v10000", thread=worker)
    for number, (start, end, name) in enumerate([(75, 140, GEMV), (140, 150, ARGMAX)]):
        events.kernel(launch, begin + start, begin + end, name, node=number + 1)
    token = events.call(begin + 71, begin + 74, "cudaMemcpyAsync_v3020", thread=worker)
    events.copy(token, begin + 152, begin + 154)
    events.call(begin + 55, begin + 160, "cudaEventSynchronize_v3020")
    if first:  # of another thread, beside it all
        events.call(begin + 76, begin + 190, "cudaStreamSynchronize_v3020", thread=3)
    return begin + 230


def test_a_server_s_step_closes_whoever_launches_and_waits():
    events, now = Events(), 10.0
    for number in range(24):
        if number % 6 == 0:
            now = prefill(events, now)
        now = served(events, now, first=number % 2 == 0)
    capture = events.capture()
    for one in Account(capture).iterations():
        assert one.host.sum() == pytest.approx(one.length)
        assert one.classes.sum() + one.idle.sum() + one.unexplained == pytest.approx(one.length)
        assert one.shares.sum() == pytest.approx(one.length)
    record = budget_record(capture)
    assert record["device_ns"]["idle_unexplained"]["median"] == 0
    assert record["device_ns"]["classes"]["sampling"]["median"] == 10 * US
    # The main thread waits 7 for its inputs and 105 for the token; it launches nothing itself.
    assert record["host_ns"]["sync"]["median"] == (7 + 105) * US and record["host_ns"]["launch"]["median"] == 0
    assert record["counts"]["launches"] == 0 and record["counts"]["kernels"] == 2
    # The graph is another thread's: what would become of the step with another host is not known.
    assert record["replays"] is None
    shares = {name: round(value * 200) for name, value in record["shares"].items()}
    assert shares["kernel"] == 75 and shares["sync"] >= 6 + 4
    assert sum(record["shares"].values()) == pytest.approx(1)
