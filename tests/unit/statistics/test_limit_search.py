"""The search for the best batch, held against full sweeps of planted latencies."""

import doctest
import math

import numpy as np
import pytest

from ceilings.statistics import limit_search
from ceilings.statistics.limit_search import Measured, answer, most_measurements, next_batch, timed, verdict
from ceilings.statistics.quantiles import Interval

WIDTH = 0.01
"""Half-width of planted intervals, as a share."""


def affine(batch):
    return 1 + 0.5 * batch


def staircase(batch):
    """Waves of 8 inputs, and a start: multiples of 8 have the highest throughput, the largest of them most."""
    return 1 + 2.0 * math.ceil(batch / 8)


def plateau(batch):
    return max(4.0, 0.25 * batch)


def noisy(seed):
    """Affine, and each batch off by 3% at most: a larger batch may take less time."""
    chance = np.random.default_rng(seed).uniform(-0.03, 0.03, 2000)
    return lambda batch: affine(batch) * (1 + chance[batch])


def spiked(at, curve=affine):
    return lambda batch: curve(batch) * (3 if batch == at else 1)


def measured(curve, batch, limit, fails_from=None):
    if fails_from and batch >= fails_from:
        return Measured(batch, "fails")
    value = curve(batch)
    latency = Interval(value * (1 - WIDTH), value, value * (1 + WIDTH))
    return Measured(batch, verdict(latency, limit), latency)


def search(curve, limit, most, multiple=1, fails_from=None):
    """Everything that a search measures, in its order."""
    found = {}
    while (batch := next_batch({one.batch: one.verdict for one in found.values()}, most, multiple)) is not None:
        assert batch not in found and 1 <= batch <= most and batch % multiple == 0
        found[batch] = measured(curve, batch, limit, fails_from)
    assert len(found) < most_measurements(most, multiple)  # one is left for the second measurement of the answer
    return list(found.values())


def sweep(curve, limit, most, multiple=1, fails_from=None):
    return [measured(curve, batch, limit, fails_from) for batch in range(multiple, most + 1, multiple)]


def span(one):
    """The batches that an answer calls undecided."""
    first, last = one.undecided or (1, 0)
    return range(first, last + 1)


def both(*planted, **options):
    most, multiple = planted[2], options.get("multiple", 1)
    return (answer(way(*planted, **options), most, multiple) for way in (search, sweep))


def test_examples():
    assert doctest.testmod(limit_search).failed == 0


@pytest.mark.parametrize("most", [1, 2, 3, 7, 64, 100, 256])
@pytest.mark.parametrize("curve", [affine, staircase, plateau])
def test_a_search_gives_what_a_sweep_gives(curve, most):
    """Of any limit, also of those that no batch and that all batches keep."""
    for limit in np.geomspace(curve(1) / 2, curve(most) * 2, 60):
        searched, swept = both(curve, limit, most)
        assert searched.largest == swept.largest
        assert set(span(swept)) <= set(span(searched))  # its upper end may cost more than a search has
        assert searched.exceeds is None or swept.exceeds is None or searched.exceeds >= swept.exceeds
        assert searched.best == swept.best
        if swept.best:
            gained = swept.best / curve(swept.best) / (searched.best / curve(searched.best))
            assert gained <= searched.unseen + 1e-9


@pytest.mark.parametrize("period", [3, 5, 12, 20])
def test_throughput_that_was_not_measured_keeps_its_bound(period):
    """Waves of another size than kernels like: the best may be missed, and by how much at most is said."""

    def curve(batch):
        return 2.0 * math.ceil(batch / period)

    for limit in np.geomspace(1, 60, 60):
        searched, swept = both(curve, limit, 128)
        if swept.best:
            gained = swept.best / curve(swept.best) / (searched.best / curve(searched.best))
            assert gained <= searched.unseen + 1e-9


@pytest.mark.parametrize("seed", range(200))
def test_of_any_latency_that_never_falls_the_answer_is_the_sweep_s(seed):
    """Random stairs, some of them steep: the largest batch is the sweep's, and the best one within its bound."""
    chance = np.random.default_rng(seed)
    most = int(chance.integers(2, 300))
    steps = chance.exponential(1.0, most) * (chance.random(most) < chance.uniform(0.05, 1))
    latencies = 1 + np.cumsum(steps)

    def curve(batch):
        return float(latencies[batch - 1])

    limit = float(chance.uniform(0.5, latencies[-1] * 1.1))
    searched, swept = both(curve, limit, most)
    assert searched.largest == swept.largest
    assert set(span(swept)) <= set(span(searched)) and searched.outliers == ()
    if swept.best:
        gained = swept.best / curve(swept.best) / (searched.best / curve(searched.best))
        assert gained <= searched.unseen + 1e-9


@pytest.mark.parametrize("multiple", [3, 8])
def test_batches_are_multiples(multiple):
    for limit in np.geomspace(1, 70, 40):
        searched, swept = both(affine, limit, 128, multiple=multiple)
        assert searched.largest == swept.largest
        assert set(span(swept)) <= set(span(searched))


@pytest.mark.parametrize("at", range(1, 65))
def test_one_slow_batch_hides_no_larger_one(at):
    limit = affine(40) * 1.02
    searched = answer(search(spiked(at), limit, 64), 64)
    true = 39 if at == 40 else 40
    assert searched.largest == true or true in span(searched)
    assert searched.largest >= 39
    assert set(searched.outliers) <= {at}


@pytest.mark.parametrize("seed", range(20))
def test_noise_misleads_by_no_more_than_it_reaches(seed):
    curve = noisy(seed)
    limit = affine(50)
    searched, swept = both(curve, limit, 128)
    keeping = {one.batch for one in sweep(curve, limit, 128) if one.verdict == "keeps"}
    assert searched.largest in keeping
    assert 0 <= swept.largest - searched.largest <= 5  # as far as noise of 3% reaches


def test_what_does_not_run_ends_the_search():
    searched = answer(search(affine, 1000.0, 256, fails_from=21), 256)
    assert (searched.best, searched.exceeds, searched.undecided, searched.bounded_by) == (20, 21, None, "failure")
    none = answer(search(affine, 1000.0, 256, fails_from=1), 256)
    assert (none.best, none.bounded_by) == (None, "failure")


def test_few_batches_are_measured_and_in_which_order():
    batches = [one.batch for one in search(affine, affine(24) * 1.02, 256)]
    assert batches == [1, 2, 4, 8, 16, 32, 24, 28, 26, 25]


def test_what_bounds_the_throughput():
    for curve, limit, most, bound in (
        (affine, 10.0, 256, "limit"),
        (affine, 1e6, 256, "most"),
        (lambda batch: 0.5 * batch, 10.0, 256, "throughput"),
        (affine, 1.0, 256, "limit"),
    ):
        assert answer(search(curve, limit, most), most).bounded_by == bound


def test_throughput_is_level_from_the_smallest_batch_whose_interval_reaches_the_best():
    searched = answer(search(plateau, 30.0, 256), 256)
    assert searched.largest == 118 and searched.level_from == 16


def test_a_throughput_whose_interval_overlaps_the_best_is_level_with_it():
    """Batch 16 has 1.5% less than the largest, with intervals of 1% to either side; batch 8 has 5% less."""
    share = {8: 0.95, 16: 0.985}
    searched = answer(search(lambda batch: 0.1 * batch / share.get(batch, 1.0 if batch > 16 else 0.5), 10.0, 64), 64)
    assert searched.best > 16 and searched.level_from == 16


def test_undecided_batches_are_closed_in_from_both_sides():
    """At 20 ms batches whose latency lies within 1% of it are undecided."""
    searched = answer(search(lambda batch: 0.1 * batch, 20.0, 1000), 1000)
    assert searched.largest == 198 and searched.undecided == (199, 202) and searched.exceeds == 203


def processes(*medians):
    chance = np.random.default_rng(0)
    return [median * np.exp(chance.normal(0, 0.01, 300)) for median in medians]


def test_a_batch_is_judged_over_its_processes():
    assert timed(8, processes(9.9, 10.0, 10.1), 11.0).verdict == "keeps"
    assert timed(8, processes(9.9, 10.0, 10.1), 10.0).verdict == "undecided"
    assert timed(8, processes(9.9, 10.0, 10.1), 9.0).verdict == "exceeds"
    assert timed(8, processes(10.0), 20.0).verdict == "undecided", "one process bounds nothing"


def test_a_tail_is_judged_where_a_tail_is_asked_for():
    groups = processes(10.0, 10.0, 10.0)
    median, tail = timed(8, groups, 10.1), timed(8, groups, 10.1, 0.99)
    assert tail.latency == median.latency == median.judged and tail.judged.estimate > median.judged.estimate
    assert (median.verdict, tail.verdict) == ("keeps", "exceeds")
    few = [group[:50] for group in groups]
    assert timed(8, few, 1.0, 0.99) == Measured(8, "undecided", timed(8, few, 1.0).latency)


def test_a_tail_that_iterations_do_not_carry_is_undecided():
    assert verdict(None, 20) == "undecided"
    assert verdict(Interval(19, 20, 20.5), 20) == "undecided"
    assert verdict(Interval(0, 20, math.inf), 20) == "undecided"
