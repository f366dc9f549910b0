"""The shape tax on sequences whose truth is known."""

import math

import numpy as np
import pytest

from ceilings.statistics.shape_tax import Round, drift, tax, transitions

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
