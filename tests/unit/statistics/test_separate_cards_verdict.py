"""Whether cells of separate cards may be timed side by side, from records whose truth is planted."""

import argparse
import json
from pathlib import Path

import pytest
from unit import planted_colocation
from unit.planted_colocation import FAST

import judge_side_by_side
from ceilings import records
from ceilings.errors import UserError
from ceilings.measure.colocation import Sharing
from ceilings.statistics.quantiles import Interval
from ceilings.statistics.separate_cards import verdict

UNBOUNDED = Interval(0.0, 1.0, float("inf"))


@pytest.mark.parametrize(
    ("ends", "noise", "expected"),
    [
        ([(0.99, 1.0, 1.01), (0.98, 1.01, 1.04)], 0.01, "allowed"),
        ([(1.01, 1.02, 1.03)], 0.001, "allowed"),  # certain, and too small to matter
        ([(0.99, 1.0, 1.01), (1.1, 1.2, 1.3)], 0.01, "forbidden"),
        ([(1.1, 1.2, 1.3)], 0.25, "undecided"),  # references differ by more
        ([(1.1, 1.2, 1.3)], None, "undecided"),
        ([(0.9, 1.0, 1.2)], 0.01, "undecided"),
    ],
)
def test_a_verdict_needs_whole_intervals(ends, noise, expected):
    assert verdict([Interval(*one) for one in ends], noise) == expected
    assert verdict([Interval(*one) for one in ends] + [UNBOUNDED], noise) == "undecided"


def judged(tmp_path, **groups):
    """The record on groups with planted slowdowns."""
    runs = []
    for name, factor in groups.items():
        planned = planted_colocation.write(
            tmp_path / name, cells=(FAST, FAST), sharing=Sharing("cards"), slowed={(FAST, FAST): factor}
        )
        for path in planned["runs"]:
            records.write(path, "colocation", json.loads(Path(path).read_text()) | {"group": name})
        runs += map(Path, planned["runs"])
    output = tmp_path / "side_by_side.json"
    judge_side_by_side.work(argparse.Namespace(device="cpu-planted", runs=runs, output=output))
    return records.read(output, "side-by-side")


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"small": 1.0, "large": 1.01}, ("allowed", ["allowed", "allowed"])),
        ({"small": 1.4, "large": 1.0}, ("forbidden", ["forbidden", "allowed"])),
    ],
)
def test_one_group_that_is_disturbed_forbids_it_for_all(tmp_path, groups, expected):
    record = judged(tmp_path, **groups)
    assert (record["verdict"], [one["verdict"] for one in record["groups"]]) == expected
    assert record["groups"][0]["slowdowns"][0]["estimate"] == pytest.approx(groups["small"], rel=0.01)


def test_instances_that_share_a_card_are_refused(tmp_path):
    planned = planted_colocation.write(tmp_path, cells=(FAST, FAST))
    with pytest.raises(UserError, match="by threads, not of cpu-planted by cards"):
        judge_side_by_side.work(
            argparse.Namespace(device="cpu-planted", runs=[*map(Path, planned["runs"])], output=tmp_path / "x.json")
        )


def test_a_run_that_failed_leaves_it_undecided(tmp_path):
    record = judged(tmp_path, small=1.0)
    failed = {"status": "failed", "failure": {"kind": "unsupported", "message": "one card"}, "cells": [FAST, FAST]}
    assert judge_side_by_side.judge("small", [failed])["verdict"] == "undecided"
    assert record["verdict"] == "allowed"
