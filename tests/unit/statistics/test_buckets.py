"""Pad to bucket: the dynamic programme against every choice there is."""

import doctest
import itertools
import random

import pytest

from ceilings.statistics import buckets
from ceilings.statistics.buckets import Size, bucket_of, choose, curve


def brute_force(groups, most, memory):
    """The least time and its least memory, over all choices of buckets."""
    best = None
    options = [
        [
            chosen
            for count in range(1, len(sizes) + 1)
            for chosen in itertools.combinations(sizes, count)
            if chosen[-1] is sizes[-1]
        ]
        for sizes in groups
    ]
    for choice in itertools.product(*options):
        used = sum(bucket.memory for chosen in choice for bucket in chosen)
        if sum(map(len, choice)) > most or (memory is not None and used > memory):
            continue
        time = 0.0
        for sizes, chosen in zip(groups, choice, strict=True):
            at = {bucket.size: bucket.latency for bucket in chosen}
            time += sum(each.count * at[bucket_of(each.size, list(at))] for each in sizes)
        if best is None or (time, used) < best:
            best = time, used
    return best


def random_groups(chance):
    """Groups whose latencies need not grow with the size: an odd size can be slower than a larger even one."""
    groups = []
    for _ in range(chance.randint(1, 3)):
        sizes = sorted(chance.sample(range(1, 100), chance.randint(1, 5)))
        groups.append([Size(size, chance.randint(0, 9), chance.randint(1, 40), chance.randint(0, 8)) for size in sizes])
    return groups


def test_examples_in_docstrings():
    assert doctest.testmod(buckets).failed == 0


@pytest.mark.parametrize("seed", range(150))
def test_the_choice_is_the_optimum_of_every_choice(seed):
    chance = random.Random(seed)
    groups, most = random_groups(chance), chance.randint(1, 9)
    memory = chance.choice([None, chance.randint(0, 40)])
    choice, best = choose(groups, most, memory), brute_force(groups, most, memory)
    if best is None:
        assert choice is None
        return
    assert (choice.time, choice.memory) == best
    assert sum(map(len, choice.buckets)) <= most


def test_one_bucket_is_the_largest_size():
    sizes = [Size(16, 10, 1.0), Size(32, 1, 2.0), Size(64, 1, 4.0)]
    assert choose([sizes], 1).buckets == ((64,),)
    assert choose([sizes], 1).time == 48
    assert choose([sizes], 2).buckets == ((16, 64),)
    assert choose([sizes], 3).time == 16


def test_a_larger_size_that_is_faster_makes_a_smaller_one_useless():
    assert choose([[Size(15, 5, 3.0), Size(16, 5, 1.0)]], 2).buckets == ((16,),)


def test_the_memory_limit_takes_the_bucket_that_saves_most_for_it():
    groups = [[Size(8, 10, 1.0, 4), Size(16, 10, 2.0, 4)], [Size(8, 10, 1.0, 4), Size(16, 10, 9.0, 4)]]
    assert choose(groups, 4, memory=12).buckets == ((16,), (8, 16))
    assert choose(groups, 4, memory=7) is None


def test_fewer_buckets_than_groups_are_no_choice():
    assert choose([[Size(8, 1, 1.0)], [Size(8, 1, 1.0)]], 1) is None


def test_expected_latency_falls_with_the_number_of_buckets():
    groups = random_groups(random.Random(3))
    times = [choice.time for _, choice in curve(groups, 10)]
    assert times == sorted(times, reverse=True)
    assert len(times) == 11 - len(groups)


def test_forty_sizes_in_four_groups_are_chosen_from_within_seconds():
    chance = random.Random(5)
    groups = [[Size(16 * k, chance.randint(0, 99), 1 + k**1.3, 1 + k) for k in range(1, 11)] for _ in range(4)]
    assert choose(groups, 12, memory=90) is not None


@pytest.mark.parametrize("sizes", [[], [Size(8, 1, 1.0), Size(8, 1, 1.0)], [Size(9, 1, 1.0), Size(8, 1, 1.0)]])
def test_sizes_out_of_order_are_refused(sizes):
    with pytest.raises(ValueError, match="ascending"):
        choose([sizes], 3)
