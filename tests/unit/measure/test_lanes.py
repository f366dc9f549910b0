"""Schedules on a simulated device: every answer is right in any legal order, and a buffer used too early is seen."""

import dataclasses
import itertools

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

from unit.measure.simulated_cuda import SimulatedCuda, SimulatedRunner, runner

from ceilings.errors import CellFailure
from ceilings.measure import lanes
from ceilings.measure.schedules import (
    AFTER,
    COMPUTE,
    COPY_IN,
    COPY_OUT,
    MARK,
    ONE,
    Schedule,
    order,
    schedules,
)

EVERY = schedules([2, 8])
ELEMENTS = [
    {
        name: np.arange(8, dtype=np.float32).reshape(2, 4) + number + scale
        for name, scale in (("left", 1), ("right", 50))
    }
    for number in range(7)
]


def loaded(monkeypatch, every=EVERY, *, seed=0, fresh=False, elements=ELEMENTS):
    device = SimulatedCuda(seed).install(monkeypatch)
    monkeypatch.setattr(lanes, "make_runner", lambda task: runner(device, fresh=fresh))
    made = lanes.Lanes({}, every, elements)
    made.load(runner(device, fresh=fresh))
    return made


@pytest.mark.parametrize("fresh", [False, True], ids=["one buffer", "fresh outputs"])
@pytest.mark.parametrize("schedule", EVERY, ids=lambda one: one.name)
def test_answers_are_right_whatever_the_order(monkeypatch, schedule, fresh):
    for seed in range(5):
        pipeline = lanes.Pipeline(schedule, loaded(monkeypatch, seed=seed, fresh=fresh))
        window = pipeline.window(0, 60)
        assert len(window["latency_ns"]) == pipeline.checked == 60
        assert 0 < window["completions"] < 60 and window["elapsed_ns"] > 0
        pipeline.requests(30, lambda: None, lambda: None)
        assert pipeline.checked == 90


def test_what_a_request_answers_is_what_the_model_computes(monkeypatch):
    made = loaded(monkeypatch)
    for answers in made.answers.values():
        for element, (total, product) in zip(ELEMENTS, answers, strict=True):
            assert (total.view(np.float32) == (element["left"] + element["right"]).ravel()).all()
            assert (product.view(np.float32) == (element["left"] * element["right"]).ravel()).all()


class Without(Schedule):
    """A schedule that leaves one wait out: the fault of a buffer that is used too early."""

    left_out = 0

    def steps(self, number):
        steps = super().steps(number)
        waits = [at for at, step in enumerate(steps) if step.do == AFTER]
        return [step for at, step in enumerate(steps) if at != waits[self.left_out]]


@pytest.mark.parametrize(
    "left_out", range(4), ids=["inputs overwritten", "inputs late", "outputs overwritten", "outputs early"]
)
def test_a_wait_that_is_missing_is_seen(monkeypatch, left_out):
    three = next(one for one in EVERY if one.name == "three-streams")
    faulty = type("Faulty", (Without,), {"left_out": left_out})(
        **{f.name: getattr(three, f.name) for f in dataclasses.fields(three)}
    )

    def seen(seed):
        pipeline = lanes.Pipeline(faulty, loaded(monkeypatch, seed=seed))
        with pytest.raises(CellFailure, match=r"three-streams: the answer of request \d+ differs") as caught:
            pipeline.window(0, 400)
        return caught.value.kind

    assert {seen(seed) for seed in range(3)} == {"parity"}


def test_an_output_that_nobody_holds_is_given_away(monkeypatch):
    """The planted fault: a launch whose result is let go before its copy is done."""
    made = loaded(monkeypatch, fresh=True)
    three = next(one for one in EVERY if one.name == "three-streams")
    pointers = SimulatedRunner.output_pointers

    def let_go(self, launched):
        found = pointers(self, launched)
        pipeline._held[:] = [None] * len(pipeline._held)
        return found

    monkeypatch.setattr(SimulatedRunner, "output_pointers", let_go)
    pipeline = lanes.Pipeline(three, made)
    with pytest.raises(CellFailure, match="differs"):
        pipeline.window(0, 400)


def test_requests_that_answer_differently_alone_cannot_be_checked(monkeypatch):
    count = itertools.count()
    launch = SimulatedRunner.launch

    def unequal(self, slot):
        self.device_of_all.enqueue(self.stream.native, lambda: self._inputs["left"].__iadd__(next(count)))
        return launch(self, slot)

    monkeypatch.setattr(SimulatedRunner, "launch", unequal)
    with pytest.raises(CellFailure, match="not equal bit for bit") as caught:
        loaded(monkeypatch)
    assert caught.value.kind == "unsupported"


def test_one_thread_enters_the_stream_of_each_launch_where_several_compute(monkeypatch):
    made = loaded(monkeypatch)
    eight = next(one for one in EVERY if one.name == "streams-8")
    before = [made.runners[one].entered for one in eight.buffers]
    lanes.Pipeline(eight, made).window(0, 16)
    assert [made.runners[one].entered - old for one, old in zip(eight.buffers, before, strict=True)] == [3, *[2] * 7]


def test_parts_follow_each_other_on_one_stream(monkeypatch):
    spans = lanes.Pipeline(EVERY[0], loaded(monkeypatch)).timed(20)
    assert {part: set(values) for part, values in spans.items()} == {
        COPY_IN: {3000},  # two copies and an event, of 1,000 ns each
        COMPUTE: {3000},
        COPY_OUT: {3000},
    }
    assert all(len(values) == 20 for values in spans.values())


def test_marks_lie_round_each_request_and_round_the_last_wait(monkeypatch):
    said = []
    pipeline = lanes.Pipeline(EVERY[0], loaded(monkeypatch))
    submit = pipeline.submit
    pipeline.submit = lambda number, element: (said.append(number), submit(number, element))
    pipeline.requests(10, lambda: said.append("("), lambda: said.append(")"))
    assert said == [*itertools.chain.from_iterable(("(", number, ")") for number in range(10)), "(", ")"]


def test_elements_in_turn_differ_wherever_something_is_used_again():
    for schedule in schedules([2, 3, 4, 6, 8]):
        for distance in {len(schedule.buffers), schedule.in_flight}:
            assert distance % len(ELEMENTS), schedule.name


def test_each_buffer_is_written_once_it_was_read():
    """By what each step waits for: of every two uses of a buffer, one of them a write, the first comes before."""
    for schedule in schedules([2, 3, 4, 6, 8]):
        before = happens_before(schedule, 3 * schedule.cycle)
        for number, later in itertools.combinations(range(3 * schedule.cycle), 2):
            if (later - number) % len(schedule.buffers) == 0:
                assert (number, COMPUTE) in before[later, COPY_IN], schedule.name
                assert (number, COPY_OUT) in before[later, COMPUTE], schedule.name
        for number in range(3 * schedule.cycle):
            assert (number, COPY_IN) in before[number, COMPUTE]
            assert (number, COMPUTE) in before[number, COPY_OUT]


def happens_before(schedule, count):
    """By part of a request the parts that are done when it begins; the host waits for its room before it submits."""
    stream, event, home, found = {}, {}, {}, {}
    for number in range(count):
        known = set().union(*(home[one] for one in range(number - schedule.in_flight + 1) if one in home))
        for step in schedule.steps(number):
            done = stream.setdefault(step.stream, set())
            if step.do == AFTER:
                done |= event.get(step.event, set())
            elif step.do == MARK:
                event[step.event] = set(done)
            else:
                found[number, step.do] = done | known
                done.add((number, step.do))
        home[number] = set(event[schedule.steps(number)[-1].event])
    return found


def test_a_round_begins_and_ends_with_the_reference():
    first, second = ([one.name for one in order(EVERY, number)] for number in (1, 2))
    assert first[0] == first[-1] == second[0] == second[-1] == ONE
    assert first[1:-1] == second[1:-1][::-1] and len(first) == len(EVERY) + 1
