"""What health says of recordings whose records contradict each other: planted one by one, beside one where all fits."""

import dataclasses
import random

import numpy as np
import pytest
from unit.traces.readers.kineto_events import BASE_US, Trace, us

from ceilings.traces.explained.account import Accounts
from ceilings.traces.explained.soundness import health
from ceilings.traces.readers import kineto

STEPS = 100


def program(keeps_call=lambda step: True, keeps_work=lambda step: True, correlation=lambda number: number, pid=None):
    """So many times a kernel, a copy and a wait for them: 100 us each time."""
    trace = Trace() if pid is None else Trace(pid=pid)
    for step in range(STEPS):
        at, one, other = 100_000 * step, 2 * step + 1, 2 * step + 2
        if keeps_call(step):
            trace.call(at, at + 4_000, "cudaLaunchKernel", one)
            trace.call(at + 5_000, at + 9_000, "cudaMemcpyAsync", other)
            trace.call(at + 10_000, at + 90_000, "cudaStreamSynchronize", 0)
        if keeps_work(step):
            trace.kernel(at + 10_000, at + 60_000, "gemm", correlation(one))
            trace.copy(at + 61_000, at + 80_000, "Memcpy DtoH (Device -> Pinned)", correlation(other))
    return trace


@pytest.fixture
def said(tmp_path):
    def texts(trace, level=None):
        recording = kineto.read(trace.write(tmp_path / "trace.json"))
        return [one["text"] for one in health(Accounts(recording)) if level in (None, one["level"])]

    return texts


def test_nothing_is_said_where_all_fits(said):
    assert said(program(), "error") == said(program(), "warning") == []


def test_device_records_that_end_early(said):
    (text,) = said(program(keeps_work=lambda step: step < 50), "error")
    assert text.startswith("Device records end at 4.96 ms, calls at 9.99 ms (50 launches in a row have nothing")


def test_device_records_that_begin_late(said):
    (text,) = said(program(keeps_work=lambda step: step >= 40), "error")
    assert text.startswith("Device records begin at 4.01 ms, calls at 0 ms (40 launches in a row have nothing")


def test_device_records_that_are_missing_between(said):
    (text,) = said(program(keeps_work=lambda step: not 30 <= step < 60), "error")
    assert text.startswith("Device records are missing from 2.96 ms to 6.01 ms (30 launches in a row")


def test_calls_that_end_early(said):
    (text,) = said(program(keeps_call=lambda step: step < 50), "error")
    assert text.startswith("Calls end at 4.99 ms, device records at 9.98 ms (100 operations without a launch)")


def test_the_last_launches_of_a_recording_that_was_stopped_are_no_error(said):
    assert said(program(keeps_work=lambda step: step < 95), "error") == []


def test_a_cut_file_says_until_when_it_is_known(tmp_path):
    trace = program()
    spans = Trace()
    for step in range(STEPS):
        spans.span("cpu_op", 100_000 * step, 100_000 * step + 95_000, "aten::mm")
    trace.events = spans.events + trace.events
    text = trace.text()
    path = tmp_path / "cut.json"
    path.write_text(text[: len(text) * 3 // 4])
    errors = [one["text"] for one in health(Accounts(kineto.read(path))) if one["level"] == "error"]
    assert len(errors) == 1
    assert errors[0].startswith("Calls and device records end at ")
    assert "operators at 9.9 ms" in errors[0]


@pytest.mark.parametrize("seed", [1, 2])
def test_shuffled_links_are_not_taken_for_clocks(said, seed):
    numbers = list(range(1, 2 * STEPS + 1))
    random.Random(seed).shuffle(numbers)
    trace = program(correlation=lambda number: numbers[number - 1])
    (text,) = said(trace, "error")
    assert "the links are wrong, not the clocks" in text
    assert not any("are not aligned" in one for one in said(trace))


def test_links_moved_on_by_one(said):
    trace = program(correlation=lambda number: number % (2 * STEPS) + 1)
    assert any("the links are wrong" in text for text in said(trace, "error"))


def test_clocks_that_differ_are_no_wrong_links(tmp_path):
    recording = kineto.read(program().write(tmp_path / "trace.json"))
    work = recording.work
    moved = dataclasses.replace(work, start=work.start - 30_000, end=work.end - 30_000)
    texts = [one["text"] for one in health(Accounts(dataclasses.replace(recording, work=moved)))]
    assert any("clocks of host and device are not aligned" in text for text in texts)
    assert not any("links" in text for text in texts)


def test_work_within_other_work_of_its_stream(said):
    trace = program()
    for step in range(STEPS):
        trace.launch(100_000 * step + 9_500, 100_000 * step + 9_900, 1000 + step)
        trace.kernel(100_000 * step + 20_000, 100_000 * step + 30_000, "inside", 1000 + step)
    (text,) = said(trace, "warning")
    assert text.startswith("100 of 300 operations (1 ms) lie within another one of their stream")


def test_programmatic_dependent_launch_is_a_note(said):
    trace = Trace()
    for number in range(100):
        at = 10_000 * number
        trace.launch(at, at + 2_000, number + 1, (at + 3_000, at + 15_000, "gemm"))
    assert said(trace, "warning") == []
    assert any("programmatic dependent launch" in text for text in said(trace, "note"))


def test_two_processes_with_the_same_correlations(tmp_path):
    """A kernel is of the only process whose call comes before it; where that does not tell, it is said."""
    apart, beside = (program(), program(pid=5000)), (program(), program(pid=5000))
    for trace, late in ((apart[1], 20_000_000), (beside[1], 1_500)):
        for event in trace.events:
            event["ts"] = us(nanoseconds(event["ts"]) + late)
    merged = []
    for pair in (apart, beside):
        whole = Trace()
        whole.events = pair[0].events + pair[1].events
        merged.append(kineto.read(whole.write(tmp_path / "merged.json")))
    for recording in merged:
        process = np.array([thread.process for thread in recording.threads])[
            recording.calls.thread[recording.work.call]
        ]
        assert np.bincount(process).tolist() == [2 * STEPS, 2 * STEPS]
    texts = [[one["text"] for one in health(Accounts(one)) if one["level"] == "error"] for one in merged]
    assert texts[1][0].startswith("Operations that could be of several processes")
    assert "400 of 400" in texts[1][0]


def nanoseconds(text):
    """What ``us`` made a time of."""
    whole, _, part = text.strip("@").partition(".")
    return (int(whole) - BASE_US) * 1000 + int(part)
