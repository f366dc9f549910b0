"""Comparison of two sets of results: nothing from nothing, planted changes, and the program's exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unit import planted_records

from ceilings.errors import UserError
from ceilings.report.analysis.comparison import compare, judge
from ceilings.report.analysis.measured import Cell, Measured, latency_ratio
from ceilings.report.render.comparison_page import as_html, as_markdown
from ceilings.report.tables.collect import collect
from ceilings.statistics.estimands import P99
from ceilings.statistics.intervals import noise_floor, ratio
from ceilings.workload.shape import Shape

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

CPU, GPU = planted.CPU, planted.GPU
PROGRAM = Path(__file__).parents[3] / "workflow_scripts" / "compare_results.py"
SHAPE = Shape.parse("b1-s128")
CONFIGURATIONS = [("torch-eager", "fp32"), ("onnxruntime-cpu", "fp32"), ("onnxruntime-cpu", "int8")]


def tree(root, factors=None, *, seed, fail=None, device=CPU, between=0.004, environment=None):
    """Results at batch 1 and 8; ``factors`` by (runtime, precision)."""

    def truth(runtime, precision, batch, sequence):
        return 10.0 * batch * (factors or {}).get((runtime, precision), 1.0)

    maker = planted.StudyMaker(root, truth, seed=seed, runs=4, between=between)
    maker.measure(device, CONFIGURATIONS, [(1, 128), (8, 128)])
    maker.repeat(device, "onnxruntime-cpu", "fp32", 1, 128)
    for cell in maker.cells:
        if (cell["runtime"], cell["precision"], cell["axes"]["batch"]) == fail:
            for run in range(1, 5):
                maker.fail(cell, run)
        for run in range(1, 5) if environment else ():
            maker.change(cell, run, provenance=planted_records.PROVENANCE | {"packages": environment})
    tables = collect(maker.plan())
    tables.write(root / "results" / "tables")
    return Measured(tables)


def verdicts(found):
    return {(c.after.runtime, c.after.precision, c.after.batch): c.verdict for c in found.changes}


@pytest.mark.slow  # a hundred comparisons
def test_the_same_twice_is_same_or_undecided_in_99_of_100_resamplings():
    """Twelve cells with spreads from 0.2% to 10% between processes, three processes a side, as a quick study has."""
    random = np.random.default_rng(7)

    def cell(spread, heavy):
        offsets = random.standard_t(3, 3) / np.sqrt(3) if heavy else random.normal(0, 1, 3)
        groups = tuple(1e6 * np.exp(spread * offset + np.abs(random.normal(0, 0.02, 60))) for offset in offsets)
        return Cell("d", "r", "m", "fp32", SHAPE, "r", frozenset(), "plain", None, {}, groups)

    false = sames = 0
    for resampling in range(100):
        heavy = resampling % 2 == 1
        pairs = [(cell(s, heavy), cell(s, heavy)) for s in np.geomspace(0.002, 0.1, 12)]
        floor = noise_floor(cell(0.002, heavy).groups, cell(0.002, heavy).groups)
        changes = judge(pairs, floor, 0.05)
        false += any(change.verdict in {"faster", "slower"} for change in changes)
        sames += sum(change.verdict == "same" for change in changes)
    assert false <= 1
    assert sames > 300  # and is not silent out of caution


def test_a_level_that_changed_within_the_processes_decides_no_claim():
    """All processes of one cell got slower by half in their last quarter; the other lies 20% above the first level."""
    random = np.random.default_rng(8)

    def cell(runtime, first, last):
        level = np.where(np.arange(400) < 300, first, last)
        groups = tuple((1e6 * level * np.exp(random.normal(0, 0.01, 400))).astype(int) for _ in range(4))
        return Cell("d", runtime, "m", "fp32", SHAPE, "r", frozenset(), "plain", None, {}, groups)

    steady, changed, other = cell("a", 2.0, 2.0), cell("b", 2.0, 3.0), cell("c", 2.4, 2.4)
    faster = ratio(changed.groups, other.groups)
    assert faster.high < 1  # medians alone: faster without doubt
    assert latency_ratio(changed, other).high > 1 and latency_ratio(changed, other).estimate == faster.estimate
    assert latency_ratio(steady, other) == ratio(steady.groups, other.groups)
    assert [change.verdict for change in judge([(other, changed)], 0.01, 0.05)] == ["undecided"]
    assert [change.verdict for change in judge([(other, steady)], 0.01, 0.05)] == ["faster"]
    assert [change.verdict for change in judge([(steady, changed)], 0.01, 0.05)] == ["undecided"]  # nor is it the same
    far = cell("d", 8.0, 8.0)  # what exceeds the change stays decided
    assert [change.verdict for change in judge([(far, changed)], 0.01, 0.05)] == ["faster"]


def test_planted_changes_are_found_and_nothing_else(tmp_path):
    before = tree(tmp_path / "before", seed=1)
    after = tree(tmp_path / "after", {("torch-eager", "fp32"): 1.3, ("onnxruntime-cpu", "int8"): 0.7}, seed=2)
    found = compare(before, after, margin=0.05)
    expected = {("torch-eager", "fp32"): "slower", ("onnxruntime-cpu", "int8"): "faster"}
    assert verdicts(found) == {
        (runtime, precision, batch): expected.get((runtime, precision), "same")
        for runtime, precision in CONFIGURATIONS
        for batch in (1, 8)
    }
    assert found.worse
    for change in found.changes:
        truth = {"slower": 1.3, "faster": 0.7, "same": 1.0}[change.verdict]
        assert change.ratio.low < truth < change.ratio.high or change.ratio.estimate == pytest.approx(truth, rel=0.02)
    again = compare(after, before, margin=0.05)
    assert set(verdicts(again).values()) == {"slower", "faster", "same"}


def test_below_the_noise_floor_nothing_is_told(tmp_path):
    """The A/A twin reads 20% more: then 10% is no difference, and nothing is provably the same within 5%."""
    twin = {("onnxruntime-cpu.aa", "fp32"): 1.2}
    before = tree(tmp_path / "before", twin, seed=1)
    after = tree(tmp_path / "after", twin | {("torch-eager", "fp32"): 1.1}, seed=2)
    found = compare(before, after, margin=0.05)
    assert set(verdicts(found).values()) == {"undecided"}
    assert "wider than the margin" in as_markdown(found)


def test_a_cell_that_stopped_working_is_worse(tmp_path):
    before = tree(tmp_path / "before", seed=1, environment={"onnxruntime": "1.30.0"})
    fail = ("onnxruntime-cpu", "int8", 8)
    after = tree(tmp_path / "after", seed=2, fail=fail, environment={"onnxruntime": "1.31.1"})
    found = compare(before, after, margin=0.05)
    assert found.count("slower") == 0
    assert found.worse
    page = as_markdown(found)
    assert f"{CPU}/onnxruntime-cpu/distilbert/int8/b8-s128" in page.split("## Measured before, failed after")[1]
    assert "packages onnxruntime" in page and "1.30.0" in page
    reverse = compare(after, before, margin=0.05)
    assert not reverse.worse and len(reverse.only_after) == 1


def test_two_devices_of_which_one_is_slower(tmp_path):
    twice = dict.fromkeys([*CONFIGURATIONS, ("onnxruntime-cpu.aa", "fp32")], 2.0)
    both = tree(tmp_path / "cpu", seed=1), tree(tmp_path / "other", twice, seed=2, device=GPU)
    with pytest.raises(UserError, match="--before-device"):
        compare(*both, margin=0.05)
    with pytest.raises(UserError, match="name both"):
        compare(*both, margin=0.05, devices=(CPU, None))
    found = compare(*both, margin=0.05, devices=(CPU, GPU))
    assert set(verdicts(found).values()) == {"slower"}
    assert f"torch-eager/distilbert/fp32/b1-s128: {CPU} to {GPU}" in as_markdown(found)


def test_p99_is_compared_where_the_iterations_carry_it(tmp_path):
    before, after = tree(tmp_path / "before", seed=1), tree(tmp_path / "after", seed=2)
    found = compare(before, after, margin=0.05, estimand=P99)  # 4 x 120 iterations are not 662
    assert not found.changes and len(found.too_few) == 6


@pytest.mark.parametrize(
    ("factors", "options", "status"),
    [({}, (), 0), ({("torch-eager", "fp32"): 1.3}, (), 1), ({("torch-eager", "fp32"): 1.3}, ("--report-only",), 0)],
)
def test_exit_status(tmp_path, factors, options, status):
    tree(tmp_path / "before", seed=1)
    tree(tmp_path / "after", factors, seed=2)
    page, html = tmp_path / "c.md", tmp_path / "c.html"
    given = ["--before", tmp_path / "before/results", "--after", tmp_path / "after/results/tables", *options]
    done = run(*given, "--output", page, "--html", html)
    assert done.returncode == status, done.stderr
    assert "6 cells on both sides" in page.read_text()
    assert html.read_text().startswith("<!doctype html>")


def test_exit_status_of_what_cannot_be_compared(tmp_path):
    tree(tmp_path / "before", seed=1)
    done = run("--before", tmp_path / "before/results", "--after", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/cells.parquet does not exist")
    assert run("--before", tmp_path, "--after", tmp_path, "--margin", "5%").returncode == 2


def test_the_page_shows_names_as_text(tmp_path):
    before = tree(tmp_path / "before", seed=1, environment={"x": "<script>alert(1)</script>"})
    page = as_html(compare(before, tree(tmp_path / "after", seed=2), margin=0.05))
    assert "<script>" not in page and "&lt;script&gt;" in page


def run(*arguments):
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
