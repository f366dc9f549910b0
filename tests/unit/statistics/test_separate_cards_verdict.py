"""Whether cells of separate cards may be timed side by side, from records whose truth is planted."""

import argparse
import json
from pathlib import Path

import pytest
from unit import planted_colocation
from unit.planted_colocation import FAST, SLOW

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


def judged(tmp_path, had=lambda name, number: ["GPU-a", "GPU-b"], **groups):
    """The record on groups with planted slowdowns; ``had``: the cards of a run of a group."""
    runs = []
    for name, factor in groups.items():
        planned = planted_colocation.write(
            tmp_path / name, cells=(FAST, FAST), sharing=Sharing("cards"), slowed={(FAST, FAST): factor}
        )
        for path in planned["runs"]:
            content = json.loads(Path(path).read_text())
            cards = [{"uuid": uuid} for uuid in had(name, content["run"])]
            records.write(path, "colocation", content | {"group": name, "gpu": {"cards": cards}})
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


def test_a_verdict_is_of_the_cards_that_every_run_had(tmp_path):
    def elsewhere(name, number):
        return ["GPU-b", "GPU-c"] if (name, number) == ("large", 3) else ["GPU-a", "GPU-b"]

    assert judged(tmp_path, small=1.0, large=1.01)["cards"] == ["GPU-a", "GPU-b"]
    assert judged(tmp_path / "moved", elsewhere, small=1.0, large=1.01)["cards"] == ["GPU-b"]
    assert judged(tmp_path / "unnamed", lambda *_: [None, None], small=1.0)["cards"] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda first, run: first | {"run": run["run"]}, "are one measurement twice"),
        (lambda first, run: run | {"cells": [SLOW, SLOW]}, "has other cells than run 1 of planted"),
        (lambda first, run: run | {"protocol": {"min_seconds": 9}}, "has other protocol than run 1 of planted"),
    ],
)
def test_runs_that_are_no_repeats_of_each_other_are_refused(tmp_path, change, problem):
    planned = planted_colocation.write(tmp_path, cells=(FAST, FAST), sharing=Sharing("cards"))
    first, last = (json.loads(Path(planned["runs"][at]).read_text()) for at in (0, 2))
    records.write(planned["runs"][2], "colocation", change(first, last))
    with pytest.raises(UserError, match=problem):
        judge_side_by_side.work(
            argparse.Namespace(device="cpu-planted", runs=[*map(Path, planned["runs"])], output=tmp_path / "x.json")
        )


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
