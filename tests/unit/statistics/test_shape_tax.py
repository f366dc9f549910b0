"""The shape tax on sequences whose truth is known."""

import itertools
import math

import numpy as np
import pytest

from ceilings.statistics.shape_tax import Round, change_cost, drift, excess, tax, transitions

ORDER = [0, 1, 0, 1, 1]


def rounds(chance, change=1.0, *, slower=1.0, noise=0.02, count=3, speed=1.0):
    """Rounds of a process: shape 0 takes 1, shape 1 takes 3; a change costs a factor, and a round may slow down."""

    def sampled(mean, size):
        return mean * speed * np.exp(chance.normal(0, noise, size))

    made = []
    for _ in range(count):
        order = ORDER * 20
        costs = [(1.0, 3.0)[shape] for shape in order]
        costs = [cost * (change if a != b else 1) for cost, a, b in zip(costs, [order[0], *order], order, strict=False)]
        middle = math.sqrt(slower)
        made.append(
            Round(
                order,
                sampled(np.array(costs) * middle, len(costs)),
                {0: sampled(1.0, 40), 1: sampled(3.0, 10)},
                {0: sampled(slower, 10), 1: sampled(3.0 * slower, 40)},
            )
        )
    return made


def expected(change):
    order = ORDER * 20
    steady = [(1.0, 3.0)[shape] for shape in order[1:]]
    paid = [cost * (change if a != b else 1) for cost, a, b in zip(steady, order, order[1:], strict=False)]
    return sum(paid) / sum(steady)


@pytest.mark.parametrize("change", [1.0, 1.5, 8.0])
def test_a_planted_cost_of_changes_is_measured(change):
    chance = np.random.default_rng(1)
    interval = tax([rounds(chance, change, speed=speed) for speed in (0.8, 1.0, 1.3)])
    assert interval.estimate == pytest.approx(expected(change), rel=0.01)
    assert interval.low <= expected(change) <= interval.high
    assert interval.high / interval.low < 1.05


def test_processes_of_different_speeds_are_paired_with_themselves():
    chance = np.random.default_rng(2)
    interval = tax([rounds(chance, 2.0, speed=speed) for speed in (1.0, 10.0, 100.0)])
    assert interval.high / interval.low < 1.05


def test_a_machine_that_slows_down_within_a_round_pays_no_tax():
    chance = np.random.default_rng(3)
    slowing = [rounds(chance, slower=1.2) for _ in range(3)]
    assert tax(slowing).estimate == pytest.approx(1, abs=0.02)
    assert drift(slowing).estimate == pytest.approx(1.2, abs=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say():
    chance = np.random.default_rng(4)
    covered = 0
    for trial in range(200):
        groups = [rounds(chance, 1.5 * math.exp(chance.normal(0, 0.05)), count=2) for _ in range(3)]
        interval = tax(groups, seed=trial)
        covered += interval.low <= expected(1.5) <= interval.high
    assert covered >= 180


def test_one_process_bounds_nothing():
    interval = tax([rounds(np.random.default_rng(5))])
    assert not interval.bounded


def test_no_process_has_no_tax():
    with pytest.raises(ValueError, match="at least one process"):
        tax([])


def test_transitions_are_grouped_by_the_shape_before_and_the_first_request_has_none():
    one = Round([0, 1, 1, 0], [9.0, 2.0, 3.0, 4.0], {}, {})
    assert transitions([one, one]) == {(0, 1): [2.0, 2.0], (1, 1): [3.0, 3.0], (1, 0): [4.0, 4.0]}


def test_the_first_request_does_not_count():
    one = Round([0, 0], [1000.0, 2.0], {0: [1.0]}, {0: [1.0]})
    assert one.ratio() == 2


SHAPES = {0: 1.0, 1: 4.0}


def planted(order, cost, count=3):
    """Passes without noise; ``cost`` says of (i, changed, steady latency) how long request i takes."""
    changed = [False, *(a != b for a, b in itertools.pairwise(order))]
    latency = [cost(i, new, SHAPES[shape]) for i, (shape, new) in enumerate(zip(order, changed, strict=True))]
    steady = {shape: [value] for shape, value in SHAPES.items()}
    return [[Round(order, latency, steady, steady)] * 2 for _ in range(count)]


REPEATS = [0, 1, 1, 1, 0, 0, 1, 0, 0] * 20
ONE_REPEATS = [0, 1, 0, 0, 0] * 20
"""Shape 1 is never repeated."""


@pytest.mark.parametrize("order", [REPEATS, ONE_REPEATS])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_cost_of_changes_is_held_against_repeats(order, factor):
    interval = change_cost(planted(order, lambda i, new, steady: steady * (factor if new else 1)))
    assert interval.estimate == pytest.approx(factor)


@pytest.mark.parametrize("order", [REPEATS, ONE_REPEATS, [1 - shape for shape in ONE_REPEATS]])
@pytest.mark.parametrize("cost", [lambda i, new, steady: steady + 10, lambda i, new, steady: steady * 1.4])
def test_what_every_request_of_the_sequence_pays_is_no_cost_of_its_changes(order, cost):
    processes = planted(order, cost)
    assert tax(processes).low > 1.3
    assert change_cost(processes).high <= 1 + 1e-9


def test_a_shape_that_some_of_its_changes_cost_is_seen():
    """Each third change to shape 1, which is never repeated, takes 50 more."""
    interval = change_cost(planted(ONE_REPEATS, lambda i, new, steady: steady + 50 * (steady > 1 and i % 3 == 0)))
    assert interval.low > 2


@pytest.mark.parametrize("order", [[0, 1] * 10, [0] * 10])
def test_a_sequence_without_repeats_or_without_changes_does_not_say_what_costs(order):
    assert change_cost(planted(order, lambda i, new, steady: 2 * steady)) is None


def test_what_pairs_add_sums_up_to_the_excess_of_the_sequence():
    chance = np.random.default_rng(6)
    some = rounds(chance, 3.0)
    more = [np.mean(one.latency[1:]) - np.mean([one.steady()[shape] for shape in one.order[1:]]) for one in some]
    added = excess(some)
    assert sum(added.values()) == pytest.approx(np.mean(more))
    assert max(added, key=added.get) == (0, 1) and added[1, 1] == pytest.approx(0, abs=0.02)
