"""What is made out as the iterations of a recording, from where to where they last, and which are alike."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from unit.traces import programs
from unit.traces.recordings import Maker, of_capture, spans

from ceilings.errors import UserError
from ceilings.traces import store
from ceilings.traces.capture import HOST_TO_DEVICE, KERNEL, MEMCPY
from ceilings.traces.explained.choice import Choice
from ceilings.traces.explained.groups import MOST
from ceilings.traces.explained.iterations import choose
from ceilings.traces.recording import FUNCTION, OPERATOR, RANGE, Stream

CAPTURES = sorted(Path(__file__).with_name("data").glob("*.sqlite"))
SHARED = [parent / "shared" / "traces" for parent in Path(__file__).parents if (parent / "shared" / "traces").is_dir()]
"""Traces that others made, where a folder above the project has them."""


class Loop:
    """A program whose iterations launch kernels of 10 us every 12 us and wait; ``at`` holds begin and end of each."""

    def __init__(self) -> None:
        self.maker, self.now, self.done = Maker(), 100.0, 0.0
        self.at: list[tuple[float, float]] = []

    def kernels(self, names: str, length: float = 10, thread: int = 0, stream: int = 0) -> Loop:
        """A kernel a letter."""
        for name in names:
            call = self.maker.call(self.now, self.now + 3, "cudaLaunchKernel", thread)
            begin = max(self.now + 4, self.done)
            self.done = begin + length
            self.maker.operation(begin, self.done, call, name=name, stream=stream)
            self.now += 12
        return self

    def upload(self) -> Loop:
        """A copy from the host."""
        call = self.maker.call(self.now, self.now + 3, "cudaMemcpyAsync")
        begin = max(self.now + 4, self.done)
        self.done = begin + 2
        self.maker.operation(begin, self.done, call, MEMCPY, copy=HOST_TO_DEVICE)
        self.now += 12
        return self

    def wait(self, thread: int = 0) -> Loop:
        """Until the device is done."""
        end = max(self.now + 1, self.done + 2)
        self.maker.call(self.now, end, "cudaStreamSynchronize", thread)
        self.now = end
        return self

    def iteration(self, names: str, text: str | None = None, length: float = 10, wait: bool = True) -> Loop:
        """One, in a range if that has a text; 20 us go by before it."""
        self.now += 20
        begin = self.now
        self.kernels(names, length)
        if wait:
            self.wait()
        self.at.append((begin, self.now))
        if text:
            self.maker.range(begin, self.now, text)
        return self

    def chosen(self, choice=None, **recording):
        """What is made out."""
        return choose(self.maker.recording(**recording), choice)


def kernels_of(recording, iterations) -> list[collections.Counter]:
    """How often each kernel occurs in each iteration."""
    kernel = recording.work.kind == KERNEL
    return [
        collections.Counter(recording.work.name[kernel & (iterations.of_work == number)].tolist())
        for number in range(len(iterations))
    ]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_iterations_of_real_captures_are_those_that_were_marked(path):
    capture = store.read(path)
    marked, unmarked = of_capture(capture, True), of_capture(capture, False)
    true, seen = choose(marked), choose(unmarked)
    assert (true.by, true.name, true.certainty) == ("range", "iteration", 1)
    assert true.begin.tolist() == capture.marks.start.tolist()
    assert true.end.tolist() == capture.marks.end.tolist()
    assert seen.by == ("graph" if "graph" in path.stem else "period")
    assert len(seen) == len(true) and seen.certainty > 0.9
    assert kernels_of(unmarked, seen) == kernels_of(marked, true)
    assert not seen.left_out


@pytest.mark.parametrize("kind", programs.USUAL + programs.ADVERSARIAL + programs.SERVERS)
def test_iterations_of_made_up_programs_are_the_true_ones(kind):
    made = [programs.program(kind, seed) for seed in range(1000, 1006)]
    verdicts = [programs.verdict(*one, choose(one[0])) for one in made]
    assert sum(verdict in {"right", "nearly"} for verdict in verdicts) >= 4, verdicts


@pytest.mark.parametrize(("kind", "seed"), [("routed", 3032), ("unmarked", 3010)])
def test_what_differs_at_every_so_many_layers_is_seen_among_hundreds(kind, seed):
    recording, whole = programs.program(kind, seed)
    assert len(choose(recording)) == whole[1] - whole[0] == 30


@pytest.mark.slow
def test_wrong_iterations_are_rare_and_unsure():
    usual, sure, wrong_but_sure = collections.Counter(), 0, 0
    for kind in programs.USUAL + programs.ADVERSARIAL:
        for seed in range(2000, 2050):
            recording, whole = programs.program(kind, seed)
            iterations = choose(recording)
            verdict = programs.verdict(recording, whole, iterations)
            usual[verdict] += kind in programs.USUAL
            if iterations.certainty >= 0.9:
                sure += 1
                wrong_but_sure += verdict == "wrong"
    assert usual["wrong"] <= 0.03 * sum(usual.values())
    assert wrong_but_sure <= 0.02 * sure


def test_the_ranges_of_this_project_go_before_all_others():
    loop = Loop()
    for number in range(4):
        loop.iteration("abc", "iteration")
        begin, end = loop.at[-1]
        loop.maker.range(begin - 5, end + 5, f"ProfilerStep#{number}")
    iterations = loop.chosen()
    assert (iterations.by, iterations.name, len(iterations)) == ("range", "iteration", 4)
    assert iterations.others[0].by == "step" and iterations.others[0].count == 4
    assert loop.chosen({"step": True}).name == "ProfilerStep#N"


def test_numbers_in_names_make_no_other_range():
    loop = Loop()
    for number in range(5):
        loop.iteration("abc", f"execute_{number}_context_0(sq{number})")
    iterations = loop.chosen()
    assert (iterations.by, iterations.name, len(iterations)) == ("range", "execute_N_context_N(sqN)", 5)
    assert [(round(b * 1000), round(e * 1000)) for b, e in loop.at] == list(
        zip(iterations.begin.tolist(), iterations.end.tolist(), strict=True)
    )
    assert iterations.inside_ns + iterations.between_ns == iterations.end[-1] - iterations.begin[0]


@pytest.mark.parametrize("text", ["layer {}", "Layer"])
@pytest.mark.parametrize("outer", [True, False])
def test_ranges_of_layers_are_no_iterations(text, outer):
    loop = Loop()
    for number in range(4):
        loop.now += 30
        begin = loop.now
        loop.upload().kernels("e")
        for layer in range(6):
            at = loop.now
            loop.kernels("abcdfg")
            loop.maker.range(at, loop.now, text.format(layer))
        loop.kernels("hi").wait()
        if outer:
            loop.maker.range(begin, loop.now, f"step {number}")
    iterations = loop.chosen()
    assert len(iterations) == 4
    assert iterations.by == ("range" if outer else "period")


def test_unnumbered_ranges_without_waits_are_iterations_with_a_doubt():
    loop = Loop()
    for _ in range(5):
        loop.iteration("abcdefgh", "forward", wait=False)
    iterations = loop.wait().chosen()
    assert (iterations.name, len(iterations)) == ("forward", 5)
    assert iterations.certainty == pytest.approx(0.7) and "may be parts" in iterations.why


def test_a_range_may_be_chosen_by_name_and_by_glob_and_nested_ones_are_one():
    loop = Loop()
    for number in range(3):
        loop.iteration("ab", f"work {number}")
        begin, end = loop.at[-1]
        loop.maker.range(begin + 1, end - 1, f"work {number}")
        loop.maker.range(begin + 2, end - 2, "forward", kind=FUNCTION)
    for wanted in ("work N", "work *", "w?rk [0-2]"):
        assert len(loop.chosen({"range": wanted})) == 3
    assert len(loop.chosen({"range": "work 1"})) == 1
    assert len(loop.chosen({"range": "forward"})) == 3
    with pytest.raises(UserError, match=r"range is 'wirk', .* it has work N"):
        loop.chosen({"range": "wirk"})


def test_a_small_range_is_no_iteration_though_it_repeats():
    loop = Loop()
    for _ in range(5):
        loop.iteration("abcdefghij")
        begin, _ = loop.at[-1]
        loop.maker.range(begin, begin + 13, "embedding")
    iterations = loop.chosen()
    assert (iterations.by, len(iterations)) == ("period", 5)


def generation(steps: int) -> Maker:
    """Two requests on a CPU: a prefill of 300 us and decode steps of 50 us, each nearly all one operator."""
    maker, now = Maker(), 100.0
    for _ in range(2):
        for text, length in [("prefill", 300), *[("decode", 50)] * steps]:
            maker.range(now, now + length, text)
            maker.range(now + 1, now + length - 1, "aten::mm", kind=OPERATOR)
            maker.range(now + 2, now + length - 2, "aten::resize_", kind=OPERATOR)  # within it: its time counts once
            now += length + 5
    return maker


def test_where_nothing_runs_on_a_device_ranges_hold_the_hosts_operators():
    found = choose(generation(40).recording())
    assert (found.by, found.name, len(found)) == ("range", "decode", 80)
    assert "87% of the time in the host's operators lies in it" in found.why  # 80 x 48 of 80 x 48 + 2 x 298 us


def test_a_range_that_holds_half_of_it_could_have_been_chosen():
    found = choose(generation(10).recording())
    assert (found.by, len(found)) == ("whole", 1)
    assert found.why.startswith("No mark holds most of the work")
    assert [(one.name, one.count) for one in found.others] == [("decode", 20)]


def started(kernels: int, requests: int) -> Loop:
    """Start-up without a range, and then ranges of three layers that each wait."""
    loop = Loop().kernels("abc" * kernels).wait()
    for number in range(requests):
        begin = loop.now
        for _ in range(3):
            loop.kernels("abc").wait()
        loop.maker.range(begin, loop.now, f"request {number}")
    return loop


def test_ranges_that_hold_the_work_but_for_start_up_are_the_iterations():
    iterations = started(12, 8).chosen()
    assert (iterations.by, iterations.name, len(iterations)) == ("range", "request N", 8)
    assert iterations.certainty == pytest.approx(1) and "67% of the device's work" in iterations.why
    assert "100% from the first to the last of them" in iterations.why


@pytest.mark.parametrize(("kernels", "requests"), [(40, 3), (12, 2)])
def test_few_ranges_or_little_work_in_them_are_not(kernels, requests):
    assert started(kernels, requests).chosen().by != "range"


@pytest.mark.parametrize("text", [None, "request"])
def test_time_between_iterations_makes_a_period_less_sure(text):
    close, apart = Loop(), Loop()
    for _ in range(12):
        close.iteration("abcdefghijklmnopqrstuvwxyz" * 2, text)
        apart.iteration("abcd", text)
        apart.now += 60
    sure, doubted = close.chosen(), apart.chosen()
    share = doubted.between_ns / (doubted.between_ns + doubted.inside_ns)
    assert share > 0.5
    falls = 1 if text else (1 - share) / 0.9
    assert doubted.certainty == pytest.approx(sure.certainty * falls)


def test_iterations_reach_from_the_first_call_to_the_end_of_the_wait():
    loop = Loop()
    for _ in range(6):
        loop.iteration("abc")
    iterations = loop.chosen()
    assert iterations.begin.tolist() == [round(begin * 1000) for begin, _ in loop.at]
    assert iterations.end.tolist() == [round(end * 1000) for _, end in loop.at]
    assert set(iterations.thread.tolist()) == {0}
    assert iterations.between_ns == 5 * 20_000
    assert "end of its last wait" in iterations.why


def test_a_range_whose_work_outlives_it_lasts_to_the_wait():
    loop = Loop()
    for number in range(4):
        loop.now += 20
        begin = loop.now
        loop.kernels("abc", length=50)
        loop.maker.range(begin, loop.now, f"request {number}")
        loop.wait()
        loop.at.append((begin, loop.now))
    iterations = loop.chosen()
    assert iterations.end.tolist() == [round(end * 1000) for _, end in loop.at]
    assert (iterations.of_work >= 0).all()
    assert "outlives" in iterations.why


def test_where_the_host_runs_ahead_iterations_are_the_devices():
    loop = Loop()
    for number in range(6):
        loop.iteration("abcd", f"step {number}", length=40, wait=False)
    work = loop.maker.recording().work
    iterations = loop.chosen()
    assert "ahead" in iterations.why and set(iterations.thread.tolist()) == {-1}
    assert iterations.end.tolist() == work.end[3::4].tolist()
    assert iterations.begin[1:].tolist() == work.end[3:-1:4].tolist()
    assert iterations.of_work.tolist() == np.repeat(np.arange(6), 4).tolist()


def test_overlapping_ranges_of_several_threads_are_requests():
    maker = Maker()
    for number in range(8):
        thread, begin = number % 2, 100 + 60.0 * number
        call = maker.call(begin + 10, begin + 13, "cudaLaunchKernel", thread)
        maker.operation(begin + 20, begin + 40, call, name="a", stream=thread)
        maker.call(begin + 50, begin + 90, "cudaStreamSynchronize", thread)
        maker.range(begin, begin + 100, f"Request {number}", thread)
    streams = (Stream(0, 0, 1, 7), Stream(0, 0, 1, 8))
    iterations = choose(maker.recording(processes=(0, 0), streams=streams))
    assert iterations.overlapping and "requests" in iterations.why
    assert iterations.of_work.tolist() == list(range(8))
    assert iterations.thread.tolist() == [0, 1] * 4
    assert iterations.inside_ns == (60 * 7 + 100) * 1000 and iterations.between_ns == 0


def test_the_process_with_most_work_is_chosen_and_the_others_are_named():
    loop = Loop()
    for _ in range(4):
        loop.iteration("abc", length=5)
        loop.now += 20
        loop.kernels("abcd", thread=1, stream=1).wait(thread=1)
    several = {"processes": (0, 1), "streams": (Stream(0, 0, 1, 7), Stream(1, 1, 1, 7))}
    iterations = loop.chosen(**several)
    assert iterations.process == 1 and set(iterations.thread.tolist()) == {1}
    assert len(iterations) == 4 and "process 0 (27%)" in iterations.notes[0]
    other = loop.chosen({"process": 0}, **several)
    assert other.process == 0 and set(other.thread.tolist()) == {0} and not other.notes
    with pytest.raises(UserError, match=r"process is 7; the recording has 0, 1"):
        loop.chosen({"process": 7}, **several)


def test_warm_up_is_left_out_and_named():
    loop = Loop()
    for pause in (4000, 3000, 0, 0, 0, 0):
        loop.now += 20
        begin = loop.now
        loop.kernels("ab")
        loop.now += pause
        loop.kernels("cd").wait()
        loop.maker.range(begin, loop.now, "step 1")
    iterations = loop.chosen()
    assert len(iterations) == 4
    assert [one.count for one in iterations.left_out] == [2]
    assert iterations.left_out[0].in_words == "left out: 2 warm-up iterations, 7.1 ms" in iterations.notes
    assert iterations.of_work.tolist() == [-1] * 8 + np.repeat(np.arange(4), 4).tolist()


@pytest.mark.parametrize(("many", "few"), [(11, 19), (8, 12)])
def test_many_iterations_with_more_work_are_a_group_and_no_warm_up(many, few):
    loop = Loop()
    for number in range(many + few):
        loop.iteration("abcdefgh" if number < many else "ab", f"step {number}")
    iterations = loop.chosen()
    assert len(iterations) == many + few and not iterations.left_out
    assert sorted(group.count for group in iterations.groups) == sorted((many, few))


@pytest.mark.parametrize("text", ["iteration", "step {}"])
@pytest.mark.parametrize("recorded", [slice(0, 45), slice(0, 47), slice(83, 120)])
def test_iterations_are_those_whose_device_half_was_recorded(recorded, text):
    loop = Loop()
    for number in range(30):
        loop.iteration("abcd", text.format(number))
    loop.maker.work = loop.maker.work[recorded]
    iterations = loop.chosen()
    whole = recorded.stop // 4 - -(-recorded.start // 4)
    assert len(iterations) == whole
    assert [one.count for one in iterations.left_out] == [30 - whole]
    assert f"left out: {30 - whole} iterations without device records, " in iterations.notes[0]
    assert [group.label for group in iterations.groups] == ["4 kernels"]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_device_records_lost_everywhere_leave_no_iteration_out(share):
    loop = Loop()
    for number in range(20):
        loop.iteration("abcd", f"step {number}")
    loop.maker.work = [row for k, row in enumerate(loop.maker.work) if k % 4 < 4 * share] or loop.maker.work[:0]
    assert len(loop.chosen({"range": "step*"})) == 20


def test_an_iteration_that_launches_nothing_amid_others_is_one():
    loop = Loop()
    for number in range(9):
        loop.iteration("abcd" if number != 4 else "", f"step {number}")
    assert len(loop.chosen()) == 9


def requests(kinds: str) -> Loop:
    """A server: inputs, one of two models or a deeper one, a wait."""
    loop = Loop()
    for kind in kinds:
        loop.now += 200
        loop.upload().kernels(
            {"A": "abcdefgh" * 4, "B": "ijk" * 9, "D": "abcdefgh" * 6, "E": "abcdefgh" * 8}[kind]
        ).wait()
    return loop


@pytest.mark.parametrize("count", [30, 31])
def test_requests_in_turn_are_iterations_but_could_be_pairs(count):
    iterations = requests(("AB" * 16)[:count]).chosen()
    assert len(iterations) == count and len(iterations.groups) == 2
    assert iterations.certainty < 0.8 and ("period", count // 2) in {(one.by, one.count) for one in iterations.others}


@pytest.mark.parametrize("kinds", ["ABBABAAABBABABBBAABAABABBBABAA", "ADEEADDEAADEDDAEADEEDADAEDDAEA"])
def test_requests_of_several_kinds_in_any_order_are_iterations_in_groups(kinds):
    iterations = requests(kinds).chosen()
    assert len(iterations) == 30 and iterations.certainty > 0.65
    assert sorted(group.count for group in iterations.groups) == sorted(collections.Counter(kinds).values())


def test_batches_whose_loss_is_read_are_parts_of_a_step():
    loop = Loop()
    for _ in range(12):
        for _ in range(4):
            loop.upload().kernels("abcdefgh" * 4).wait()
        loop.kernels("opq" * 3).wait()
    iterations = loop.chosen()
    assert len(iterations) == 12 and 0.3 < iterations.certainty < 0.8
    assert 48 in {one.count for one in iterations.others}


@pytest.mark.parametrize("upload", [True, False])
def test_layers_that_are_read_one_by_one_are_parts(upload):
    loop = Loop()
    for _ in range(20):
        loop.now += 200
        loop = loop.upload() if upload else loop
        for _ in range(6):
            loop.kernels("abcd").wait()
        loop = loop if upload else loop.wait()
    iterations = loop.chosen()
    assert len(iterations) == 20 and iterations.certainty < 0.8
    assert 120 in {one.count for one in iterations.others}


def test_stretches_of_several_threads_are_unsure():
    loop = Loop()
    for number in range(20):
        loop.kernels("abcdefgh" * 3, thread=number % 2).wait(number % 2)
    iterations = loop.chosen(processes=(0, 0))
    assert iterations.certainty < 0.5 and "2 threads submit them" in iterations.why


def test_a_backward_thread_is_no_doubt():
    loop = Loop()
    for _ in range(20):
        loop.kernels("abc" * 4, thread=0).kernels("def" * 6, thread=1).wait(0)
    assert loop.chosen(processes=(0, 0)).certainty > 0.9


def test_the_projects_iterations_are_never_left_out():
    loop = Loop()
    loop.iteration("abc" * 20, "iteration")
    for _ in range(5):
        loop.iteration("abc", "iteration")
    assert len(loop.chosen()) == 6


def test_a_prefill_is_no_warm_up_and_no_decode_step():
    loop = Loop()
    for token in range(30):
        loop.iteration("abcdef", f"step {token}", length=80 if token % 10 == 0 else 10 + token % 10 / 50)
    iterations = loop.chosen()
    assert [group.count for group in iterations.groups] == [27, 3]
    assert "ms of work" in iterations.groups[0].label
    assert iterations.group.tolist() == ([1] + [0] * 9) * 3


def test_a_slow_growth_is_a_trend_and_no_other_group():
    loop = Loop()
    for token in range(200):
        loop.iteration("abcdef", f"step {token}", length=10 + token / 20)
    iterations = loop.chosen()
    assert len(iterations.groups) == 1
    assert "grow from" in iterations.groups[0].trend
    assert any("grow from" in note for note in iterations.notes)


def test_more_kinds_than_there_are_groups_are_others():
    loop = Loop()
    for number in range(40):
        loop.iteration("ab" + chr(ord("c") + number % 13) * 20, f"step {number}")
    iterations = loop.chosen()
    assert len(iterations.groups) == MOST and iterations.groups[-1].others
    assert sum(group.count for group in iterations.groups) == 40
    assert iterations.groups[-1].count == (iterations.group == MOST - 1).sum() == 6 * 3


def test_a_recording_without_calls_has_a_period_on_the_device():
    loop = Loop()
    for _ in range(6):
        loop.iteration("abcd")
        loop.upload()
    recording = loop.maker.recording()
    calls = type(recording.calls)(
        **{f.name: getattr(recording.calls, f.name)[:0] for f in dataclasses.fields(recording.calls)}
    )
    work = dataclasses.replace(recording.work, call=np.full_like(recording.work.call, -1))
    iterations = choose(dataclasses.replace(recording, calls=calls, work=work))
    assert (iterations.by, len(iterations)) == ("period", 6)


def test_an_interval_and_the_whole_are_one_iteration():
    loop = Loop()
    for _ in range(10):
        loop.iteration("abcd")
    inside = loop.chosen({"between": [0.2, 0.6]})
    assert (inside.by, inside.begin.tolist(), inside.end.tolist()) == ("interval", [200_000], [600_000])
    assert 0 < (inside.of_work == 0).sum() < 40
    whole = loop.chosen({"whole": True})
    assert (whole.by, len(whole), whole.between_ns) == ("whole", 1, 0) and (whole.of_work == 0).all()
    beyond = loop.chosen({"between": [0.2, 700]})
    assert beyond.end.tolist() == whole.end.tolist() and beyond.begin.tolist() == [200_000]
    assert f"0.2 to 700 ms; the recording has 0.200 to {whole.end[0] / 1e6:.3f} ms of it" in beyond.why
    with pytest.raises(UserError, match=r"between is \[2000.0, 3000.0\], and the recording lasts from"):
        loop.chosen({"between": [2000, 3000]})


def test_what_is_not_there_cannot_be_chosen():
    loop = Loop().iteration("abcdefg")
    for wanted, said in (("step", "no ProfilerStep"), ("graph", "no launch of a CUDA graph"), ("period", "nothing")):
        with pytest.raises(UserError, match=said):
            loop.chosen({wanted: True})


def test_a_recording_of_nothing_is_one_iteration():
    empty = Maker().recording()
    assert choose(empty).by == "whole" and len(choose(empty)) == 1
    only_host = dataclasses.replace(empty, spans=spans([(0, 50, 0, 0, RANGE)]), names=("ProfilerStep#1",))
    assert choose(only_host).by == "step"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"ranges": "a"}, "ranges is no choice of iterations; choose one of range"),
        ({"range": "a", "graph": True}, "range and graph are chosen at once"),
        ({"range": ""}, "range is ''"),
        ({"range": 3}, "range is 3"),
        ({"graph": "yes"}, "graph is 'yes'; it must be true"),
        ({"between": [3, 2]}, r"between is \[3, 2\]; give two times"),
        ({"between": [1]}, "between is"),
        ({"between": [float("nan"), 2]}, "between is"),
        ({"between": "1-2"}, "between is"),
        ({"process": -1}, "process is -1"),
        ({"process": True}, "process is True"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(wanted, said):
    with pytest.raises(UserError, match=said):
        Choice.of(wanted)


def test_nothing_chosen_and_flags_that_are_off_are_automatic():
    assert Choice.of(None) == Choice.of({}) == Choice.of({"graph": False, "range": None}) == Choice()


@pytest.mark.skipif(not SHARED, reason="shared/traces is not there")
def test_steps_of_a_real_training_are_what_its_kernels_repeat():
    kineto = pytest.importorskip("ceilings.traces.readers.kineto")
    recording = kineto.read(SHARED[0] / "nccl_data.json.gz")
    steps, period = choose(recording), choose(recording, {"period": True})
    assert (steps.by, len(steps), len(period)) == ("step", 3, 3)
    assert kernels_of(recording, steps) == kernels_of(recording, period)
