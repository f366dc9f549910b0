"""Trends over trees: a planted change is found and named, nothing where nothing is, unequal is not compared."""

import itertools
import json
import math
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ceilings.errors import UserError
from ceilings.report.analysis import trends as analysis
from ceilings.report.analysis.measured import Cell, Measured
from ceilings.report.analysis.trends import trends
from ceilings.report.render.trends_page import as_html, as_markdown
from ceilings.report.tables.collect import collect
from ceilings.report.tables.keys import KEY
from ceilings.workload.shape import Shape

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted
from unit import planted_records

sys.path.insert(0, str(Path(__file__).parents[3] / "workflow_scripts"))
from trend_results import expanded

PROGRAM = Path(__file__).parents[3] / "workflow_scripts" / "trend_results.py"
GPU = planted.GPU
ENVIRONMENT = {
    "packages": {"torch": "2.11", "numpy": "2.4"},
    "project_revision": "aaaa",
    "gpu": {"name": "NVIDIA H200", "driver": "580.1"},
    "threads": {"intra_op": 1},
}
WATCHED = {"power_limit_w": 700.0, "max_sm_mhz": 1980, "latency": {"sm_mhz": {"median": 1980.0}}}


class Planted(Measured):
    """Measured cells of known medians, without tables; the first one is measured twice."""

    def __init__(self, medians, random, *, between=0.004, environment=None, watched=None, processes=4):
        names = [*medians, f"{next(iter(medians))}.aa"]
        cells = []
        for name in names:
            median = medians[name.removesuffix(".aa")]
            groups = tuple(
                1e6 * median * np.exp(between * random.normal() + np.abs(random.normal(0, 0.02, 60)))
                for _ in range(processes)
            )
            each = [float(np.median(group)) / 1e6 for group in groups]
            row = {"p50_ms": math.exp(np.median(np.log(each))), "p50_low_ms": min(each), "p50_high_ms": max(each)}
            of = name.removesuffix(".aa") if name.endswith(".aa") else None
            cells.append(Cell(GPU, name, "m", "fp16", Shape.parse("b1-s8"), "s", frozenset(), "plain", of, row, groups))
        self.cells = [cell for cell in cells if cell.aa_of is None]
        self._seconds = [cell for cell in cells if cell.aa_of]
        self._by_key = {cell.key: cell for cell in self.cells}
        run = {
            "environment": json.dumps(ENVIRONMENT | (environment or {})),
            "gpu": json.dumps(WATCHED | (watched or {})),
        }
        rows = [run | dict(zip(KEY, cell.key, strict=True)) for cell in self.cells]
        self.tables = SimpleNamespace(runs=pd.DataFrame(rows), cells=pd.DataFrame(columns=[*KEY, "status", "reason"]))


CELLS = [f"r{i}" for i in range(6)]


def history(random, trees=8, scatter=0.0, together=False, factors=None, **facts):
    """Trees of six cells; ``factors`` by (tree, cell), ``facts`` by name to those of each tree.

    ``scatter``: how much trees differ without cause, each cell by itself or all ``together``.
    """
    found = []
    for tree in range(trees):
        state = random.normal()
        here = {
            cell: 2.0
            * np.exp(scatter * (state if together else random.normal()))
            * (factors or (lambda tree, cell: 1.0))(tree, cell)
            for cell in CELLS
        }
        found.append((f"t{tree}", Planted(here, random, **{name: each(tree) for name, each in facts.items()})))
    return found


def test_a_change_is_found_where_it_was_planted_and_named():
    def factors(tree, cell):
        return 1.12 if tree >= 5 and cell == "r3" else 1.0

    def environment(tree):
        after = tree >= 5
        return {
            "packages": {"torch": "2.12" if after else "2.11", "numpy": "2.4"},
            "project_revision": "bbbb" if after else "aaaa",
            "gpu": {"name": "NVIDIA H200", "driver": "590.1" if after else "580.1"},
        }

    def watched(tree):
        return {"latency": {"sm_mhz": {"median": 1700.0 if tree >= 5 else 1980.0}}}

    found = trends(history(np.random.default_rng(1), factors=factors, environment=environment, watched=watched))
    (one,) = found.changes
    assert (one.kind, one.before.tree, one.after.tree, one.change.verdict) == ("step", "t4", "t5", "slower")
    assert one.after.cell.runtime == "r3" and one.change.ratio.low < 1.12 < one.change.ratio.high
    assert set(one.because) == {
        ("packages torch", "2.11", "2.12"),
        ("project_revision", "aaaa", "bbbb"),
        ("gpu driver", "580.1", "590.1"),
        ("SM clock while timed, MHz", "1980", "1700"),
    }
    assert not found.newest_is_worse
    page, markdown = as_html(found), as_markdown(found)
    for text in ("t4 to t5", "packages torch: 2.11 to 2.12", "slower"):
        assert text in page and text.split(":")[0] in markdown
    assert page.count("<svg") == len(CELLS) and "<script" not in page


def test_a_change_back_is_two_and_the_newest_counts():
    found = trends(history(np.random.default_rng(2), factors=lambda tree, _: {4: 1.2, 7: 1.2}.get(tree, 1.0)))
    kinds = {(one.after.tree, one.change.verdict) for one in found.changes}
    assert kinds == {("t4", "slower"), ("t5", "faster"), ("t7", "slower")}
    assert len(found.changes) == 3 * len(CELLS) and found.newest_is_worse


def test_a_drift_of_small_steps_is_found_between_the_ends():
    def factors(tree, cell):
        return 1.012**tree if cell == "r2" else 1.0

    (one,) = trends(history(np.random.default_rng(3), trees=12, factors=factors), margin=0.02).changes
    assert (one.kind, one.before.tree, one.after.tree) == ("drift", "t0", "t11")
    assert one.change.verdict == "slower" and one.after.cell.runtime == "r2"


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"watched": lambda tree: {"power_limit_w": 700.0 if tree % 2 else 500.0}}, "power limit, W: 500, 700"),
        (
            {"environment": lambda tree: {"gpu": {"name": "NVIDIA H200" if tree % 2 else "NVIDIA H200 NVL"}}},
            "gpu name: NVIDIA H200 NVL, NVIDIA H200",
        ),
        ({"environment": lambda tree: {"threads": {"intra_op": 1 + tree % 2}}}, "threads intra_op: 1, 2"),
    ],
)
def test_unequal_conditions_are_not_compared(facts, what):
    """Every second tree ran under other conditions, twice as slow: nothing changed among equals."""
    found = trends(history(np.random.default_rng(4), factors=lambda tree, _: 1 + tree % 2, **facts))
    assert not found.changes and len(found.series) == 2 * len(CELLS)
    assert [len(one.points) for one in found.series] == [4] * 2 * len(CELLS)
    assert all(what in why for _, why in found.apart) and len(found.apart) == len(CELLS)


@pytest.mark.parametrize("scatter", [0.0, 0.02])
def test_nothing_is_found_where_nothing_changed(scatter):
    assert false_alarms(range(3), scatter) == 0


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("scatter", [0.0, 0.005, 0.02, 0.05])
def test_at_most_one_history_in_fifty_has_a_false_alarm(scatter, together):
    assert false_alarms(range(100, 150), scatter, together=together) <= 1


def test_without_the_limit_trees_that_scatter_give_false_alarms(monkeypatch):
    monkeypatch.setattr(analysis, "OUTSTANDING", 0.0)
    assert false_alarms(range(3), 0.02) == 3


def false_alarms(seeds, scatter, **how):
    """Histories of eight trees in which anything is called a change; trees differ by ``scatter`` without cause."""
    histories = (history(np.random.default_rng(seed), scatter=scatter, **how) for seed in seeds)
    return sum(bool(trends(one).changes) for one in histories)


@pytest.mark.parametrize("seed", range(3))
def test_a_change_is_found_although_trees_scatter(seed):
    found = trends(
        history(np.random.default_rng(seed), scatter=0.01, factors=lambda tree, c: 1.3 if (tree, c) >= (4, "") else 1.0)
    )
    assert {one.after.tree for one in found.changes if one.kind == "step"} == {"t4"}


def planted_tree(folder, factor, seed, torch, only=None):
    maker = planted.StudyMaker(folder, lambda *_: 10.0 * factor, seed=seed, runs=4, between=0.004)
    maker.measure(planted.CPU, planted.CPU_CONFIGURATIONS[:2], [(1, 128)])
    maker.repeat(planted.CPU, "torch-eager", "fp32", 1, 128)
    for cell in maker.cells:
        for run in range(1, 5):
            maker.change(cell, run, provenance=planted_records.PROVENANCE | {"packages": {"torch": torch}})
    collect(maker.plan()).write(folder / "results" / "tables")


def test_the_program_follows_a_folder_of_trees(tmp_path):
    trees = tmp_path / "trees"
    for number in range(9, 12):  # t9 comes before t10
        planted_tree(trees / f"t{number}", 1.2 if number == 11 else 1.0, number, "2.13" if number == 11 else "2.12")
    with tarfile.open(trees / "t11.tar.gz", "w:gz") as archive:
        archive.add(trees / "t11" / "results", "results")
    shutil.rmtree(trees / "t11")
    page = tmp_path / "trends.html"
    done = subprocess.run([sys.executable, PROGRAM, trees, "--html", page], check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "3 trees in this order: t9, t10, t11" in done.stdout and done.stdout.count("t10 to t11") == 2
    assert "packages torch: 2.12 to 2.13" in done.stdout and page.read_text().count("<svg") == 2
    (trees / "t10" / "results" / "tables" / "runs.parquet").unlink()
    lost = subprocess.run([sys.executable, PROGRAM, trees], check=False, capture_output=True, text=True)
    assert lost.returncode == 2 and "runs.parquet does not exist; bring the tree again" in lost.stderr
    one = subprocess.run([sys.executable, PROGRAM, trees / "t9"], check=False, capture_output=True, text=True)
    assert one.returncode == 2 and "1 results trees; name two or more" in one.stderr and "Traceback" not in one.stderr


@pytest.mark.parametrize("margin", ["0", "-1", "nan", "2"])
def test_a_margin_that_is_no_fraction_is_refused(tmp_path, margin):
    command = [sys.executable, PROGRAM, tmp_path, "--margin", margin]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2 and f"{margin} is not a fraction between 0 and 1" in done.stderr


def failed(measured, runtime):
    """The same tree, in which the cells of a runtime failed."""
    gone = [cell for cell in measured.cells if cell.runtime == runtime]
    measured.cells = [cell for cell in measured.cells if cell.runtime != runtime]
    rows = [dict(zip(KEY, cell.key, strict=True)) | {"status": "failed", "reason": "a|b"} for cell in gone]
    measured.tables.cells = pd.DataFrame(rows)
    return measured


@pytest.mark.parametrize(("at", "worse"), [((7,), True), ((6, 7), False), ((3,), False)])
def test_a_cell_that_stops_working_is_named_and_counts_with_the_last_tree(at, worse):
    given = history(np.random.default_rng(5))
    found = trends([(name, failed(one, "r2") if number in at else one) for number, (name, one) in enumerate(given)])
    (one,) = found.broken
    assert (one.before, one.after, one.why) == (f"t{at[0] - 1}", f"t{at[0]}", "a|b")
    assert found.newest_is_worse is worse
    page = as_markdown(found)
    assert "## Measured before, failed after" in page and r"a\|b" in page and "1 stopped working" in page
    assert "Measured before, failed after" in as_html(found)


def test_cells_that_were_carried_on_are_no_steps_and_hide_no_scatter():
    """Of six cells one is measured again in each tree; if the others' steps of nothing counted, the limit were 0."""
    given = history(np.random.default_rng(11), scatter=0.03)
    for (_, before), (_, after) in itertools.pairwise(given):
        after.cells = [before.cells[0], after.cells[1], *before.cells[2:]]
    found = trends(given)
    assert found.carried == 7 * 5 and found.steps == 7 + 1  # one series of eight trees: its steps and its drift
    assert not found.changes and found.scatter[GPU] > 0.05
    assert "35 cells of later trees were not measured again" in as_markdown(found)
    alone = trends([(name, one) for name, one in given if not setattr(one, "cells", one.cells[1:2])])
    assert alone.carried == 0 and alone.scatter == found.scatter


def test_a_device_that_is_missing_in_the_middle_goes_on_behind_it():
    given = history(np.random.default_rng(12), factors=lambda tree, cell: 1.3 if tree > 4 and cell == "r1" else 1.0)
    for number in (3, 4):
        given[number][1].cells = [cell for cell in given[number][1].cells if cell.runtime != "r1"]
    (one,) = trends(given).changes
    assert (one.kind, one.before.tree, one.after.tree, one.after.cell.runtime) == ("step", "t2", "t5", "r1")


def test_a_copy_of_a_tree_is_no_second_measurement(tmp_path):
    planted_tree(tmp_path / "t 1", 1.0, 1, "2.12")
    shutil.copytree(tmp_path / "t 1", tmp_path / "t 2")
    done = subprocess.run([sys.executable, PROGRAM, tmp_path], check=False, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines() == [
        "error: t 1, t 2: no cell was measured twice, since later trees hold the samples of earlier ones; "
        "leave copies out, and name trees that were measured anew"
    ]


def test_undecided_steps_are_counted():
    steady = trends(history(np.random.default_rng(6)), margin=0.5)
    assert steady.undecided == 0 and "0 steps undecided" in as_markdown(steady)
    narrow = trends(history(np.random.default_rng(6)), margin=0.0001)
    assert narrow.undecided == narrow.steps - len(CELLS) == 7 * len(CELLS)
    assert f"{narrow.undecided} steps undecided" in as_html(narrow)


def test_names_of_trees_are_text_in_markdown():
    given = history(np.random.default_rng(7), trees=2)
    page = as_markdown(trends([(name, one) for name, (_, one) in zip(("<b>*a*", "[x](y)"), given, strict=True)]))
    assert r"\<b\>\*a\*" in page and r"\[x\](y)" in page


ORDERS = {
    "hashes of a day": (["2026-11-27-0123abc", "2026-11-27-f00dbad"], None),
    "hashes": (["abcdef0", "1234567"], None),
    "numbers": (["t10", "t9"], ["t9", "t10"]),
    "days": (["2026-11-28-0123abc", "2026-11-27-f00dbad"], ["2026-11-27-f00dbad", "2026-11-28-0123abc"]),
    "times": (["27T1530-0123abc", "27T0910-f00dbad"], ["27T0910-f00dbad", "27T1530-0123abc"]),
    "other digits": (["\u00b2", "t1"], ["t1", "\u00b2"]),
}


@pytest.mark.parametrize(("given", "order"), ORDERS.values(), ids=ORDERS)
def test_a_folder_of_trees_is_ordered_by_name_or_refused(tmp_path, given, order):
    for name in given:
        (tmp_path / name / "tables").mkdir(parents=True)
    if order is None:
        with pytest.raises(UserError, match="says nothing of their order"):
            expanded(tmp_path)
    else:
        assert [path.name for path in expanded(tmp_path)] == order
