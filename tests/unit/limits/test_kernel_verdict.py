"""Each verdict on both sides of its threshold."""

from __future__ import annotations

import dataclasses

import pytest

from ceilings.limits.kernel_verdict import ARITHMETIC, BUSY, CLOSE, ELIGIBLE, FILLED, MEMORY, OCCUPIED, Use, verdict
from ceilings.taxonomy import KERNEL_VERDICTS

IDLE = Use(
    shares=dict.fromkeys((*MEMORY, *ARITHMETIC), 0.2),
    waves=2.0,
    theoretical=1.0,
    limiters=("registers",),
    eligible=0.4,
    stall=("long_scoreboard", 0.62),
)
STEP = 0.001


def use(shares=None, **changed):
    return dataclasses.replace(IDLE, shares={**IDLE.shares, **(shares or {})}, **changed)


def name(*arguments, **changed):
    found, why = verdict(use(*arguments, **changed))
    assert found in KERNEL_VERDICTS and why
    return found


@pytest.mark.parametrize("unit", [*MEMORY, *ARITHMETIC])
def test_a_busy_unit_limits_from_its_threshold_on(unit):
    limited = "memory-limited" if unit in MEMORY else "compute-limited"
    assert name({unit: BUSY}) == limited and name({unit: BUSY - STEP}) == "latency-limited"


def test_the_busiest_unit_decides_and_is_named():
    assert verdict(use({"l2": 0.7, "dram": 0.65, "issue": 0.3})) == ("memory-limited", "the L2 cache at 70%")
    assert verdict(use({"tensor": 0.9, "l1": 0.75})) == ("compute-limited", "the tensor cores at 90%")


def test_memory_and_arithmetic_that_are_busy_alike_decide_nothing():
    assert name({"dram": 0.8, "tensor": 0.8 + CLOSE - STEP}) == "undecided"
    assert name({"dram": 0.8, "tensor": 0.8 + CLOSE + STEP}) == "compute-limited"
    assert name({"dram": 0.8 + CLOSE + STEP, "tensor": 0.8}) == "memory-limited"
    assert name({"dram": BUSY + STEP, "tensor": BUSY - STEP}) == "memory-limited"


def test_blocks_that_leave_places_empty():
    assert verdict(use(waves=0.18)) == ("wave-limited", "its blocks fill 18% of one wave")
    assert verdict(use(waves=1.2)) == ("wave-limited", "its blocks fill 60% of 2 waves")
    assert name(waves=FILLED - STEP) == "wave-limited" and name(waves=FILLED) == "latency-limited"
    assert name(waves=5.05) == "latency-limited"
    assert name({"dram": 0.7}, waves=0.5) == "memory-limited"


def test_resources_that_leave_room_for_few_warps():
    assert verdict(use(theoretical=0.25, limiters=("registers", "shared_mem"))) == (
        "occupancy-limited",
        "room for 25% of the warps (registers, shared_mem)",
    )
    assert name(theoretical=OCCUPIED) == "occupancy-limited" and name(theoretical=OCCUPIED + STEP) == "latency-limited"
    assert name(theoretical=0.25, waves=0.5) == "wave-limited"


def test_warps_that_wait_and_warps_that_do_not():
    assert verdict(IDLE) == ("latency-limited", "62% of the warps' time waits for long_scoreboard")
    assert name(eligible=ELIGIBLE - STEP) == "latency-limited" and name(eligible=ELIGIBLE) == "undecided"
    assert name(eligible=ELIGIBLE, theoretical=0.25) == "undecided"
    assert verdict(use(stall=None))[0] == "latency-limited"


def test_without_a_counter_nothing_is_said_of_what_it_would_show():
    assert verdict(use({"issue": None})) == ("undecided", "no counter of issue")
    assert name({"issue": None, "tensor": 0.9}) == "compute-limited"  # busy, whatever the other one is
    assert name({"dram": None, "l2": 0.9}) == "memory-limited"
    for lacking in ("waves", "theoretical", "eligible"):
        assert name(**{lacking: None}) == "undecided"
