"""The summary's first screen: its length, its order, and numbers that are those of the tables."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from ceilings.report.analysis.baselines import baselines
from ceilings.report.analysis.decision import decided
from ceilings.report.analysis.findings import findings
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.ranking import consequence, most_consequential
from ceilings.report.catalogue import SHOWS
from ceilings.report.render import prediction_section
from ceilings.report.render.pictures import NOTHING_TO_SHOW
from ceilings.report.render.summary import MOST_FINDINGS, summary
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import BUDGET_COLUMNS
from ceilings.report.tables.keys import KEY
from ceilings.report.text import noise

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

CPU, GPU = planted.CPU, planted.GPU
ORT = "onnxruntime-cuda"
LINES = 150
PREDICTIONS = prediction_section.MOST_ROWS + 8
"""Room for the section on what came of predictions, which these studies do not have."""
SECTIONS = ["Decision", "Results", "Findings", "Not run", "Read with care"]


def page(maker, tables=None, **plan):
    return summary(maker.plan() | plan, collect(maker.plan()) if tables is None else tables, Evidence(), "plots")


def titles(text):
    return [line[3:] for line in text.splitlines() if line.startswith("## ")]


def table(text, title):
    """Rows of the first table below a heading, by the headings of its columns."""
    lines = [line for line in text.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines() if line[:1] == "|"]
    headings, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(headings, row, strict=True)) for row in rows if len(row) == len(headings)]


def three(root):
    maker = planted.StudyMaker(root, lambda r, p, b, s: 2.0 if "graph" not in r else 1.0)
    return maker.measure(GPU, [(ORT, "fp32"), (ORT, "fp16"), (f"{ORT}-graph", "fp16")], [(1, 128)])


def three_hundred(root):
    """Ten models with ten configurations at three shapes each; and cells that cannot run, for thirty reasons."""
    maker = planted.StudyMaker(root, lambda r, p, b, s: b * (1.0 + 0.1 * len(r)) * (0.5 if p == "fp16" else 1.0))
    planted.AXES.update({f"model{i}": ("batch", "sequence") for i in range(10)})
    for i in range(10):
        names = [(f"{ORT}-{letter}", p) for letter in "abcde" for p in ("fp32", "fp16")]
        maker.measure(GPU, names, [(1, 128), (8, 128), (64, 128)], n=30, model=f"model{i}")
    for i in range(30):
        maker.unavailable("tensorrt", "fp16", 1, 128, f"reason {i}", "remedy")
    return maker


@pytest.mark.parametrize("study", [three, three_hundred])
def test_length_and_order(tmp_path, study):
    maker = study(tmp_path)
    plan = maker.plan()
    plan["models"] |= {cell["model"]: {"weights": "random"} for cell in maker.cells}
    text = summary(plan, collect(plan), Evidence(), "plots")
    lines = text.splitlines()
    assert len(lines) <= LINES - PREDICTIONS
    assert titles(text) == [title for title in SECTIONS if title in titles(text)] and titles(text)[:2] == SECTIONS[:2]
    assert next(i for i, line in enumerate(lines) if line.startswith("|")) < 25
    assert text.index("## Decision") < text.index("](plots/") < text.index("## Results")
    assert text.count("](plots/") == 2  # one picture: what is shown, and what it links to
    assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) <= MOST_FINDINGS
    if study is three_hundred:
        assert "of 300 measured cells" in text and "20 more reasons" in text


def test_the_decision_has_the_numbers_of_the_tables(tmp_path):
    """The graph has the lowest latency at batch 1; eager the highest throughput at batch 64; both have a price."""

    def truth(runtime, precision, batch, sequence):
        return (1.0 + 0.1 * batch) * (0.5 if "graph" in runtime and batch < 64 else 1.0)

    maker = planted.StudyMaker(tmp_path, truth, runs=4, between=0.002)
    maker.price_per_hour = {GPU: 3.6}
    maker.measure(GPU, [(ORT, "fp16"), (f"{ORT}-graph", "fp16")], [(1, 128), (8, 128), (64, 128)], n=400)
    maker.repeat(GPU, ORT, "fp16", 1, 128, n=400)
    tables = collect(maker.plan())
    text = page(maker, tables, targets={"latency_ms": 1.2})
    (row,) = table(text, "Decision")
    cells = tables.cells[tables.cells["aa_of"].isna()].set_index(["runtime", "batch"])
    best = cells.loc[(f"{ORT}-graph", 1)]
    assert row["lowest latency"].startswith(f"**{best['p50_ms']:.3g}")
    assert (
        f"p99 {best['p99_ms']:.3f} ms" in row["lowest latency"] and f"{ORT}-graph fp16 b1-s128" in row["lowest latency"]
    )
    most = cells["saturated_per_s"].idxmax()
    assert (
        row["highest throughput"] == f"**{cells.loc[most, 'saturated_per_s']:,.0f}/s** `{most[0]} fp16 b{most[1]}-s128`"
    )
    within = cells[cells["p99_ms"] <= 1.2]["saturated_per_s"].idxmax()
    assert within == (f"{ORT}-graph", 8) and f"`{within[0]} fp16 b8-s128`" in row["best within 1.20 ms"]
    cost = 3.6 / 3600 * 1e6 / cells.loc[most, "saturated_per_s"]
    assert row["lowest cost per million"].startswith(f"**{cost:.3f}"[:6])
    assert row["confidence"].startswith("high (the next takes 2.")
    assert "no cell" in table(page(maker, tables, targets={"latency_ms": 0.01}), "Decision")[0]["best within 0.0100 ms"]
    assert "best within" not in page(maker, tables)


@pytest.mark.parametrize(("count", "percentile"), [(40, "p50"), (30, "p90"), (60, "p95"), (250, "p99")])
def test_a_limit_is_held_against_the_highest_percentile_that_the_iterations_carry(tmp_path, count, percentile):
    maker = planted.StudyMaker(tmp_path, lambda *_: 1.0, runs=1 if percentile == "p50" else 3)
    maker.add(GPU, ORT, "fp16", 1, 128, n=count)
    text = page(maker, targets={"latency_ms": 1e3})
    cell = table(text, "Decision")[0]["best within 1,000 ms"]
    assert f"({percentile} " in cell
    assert (f"The limit is held against the {percentile}: there are too few" in text) == (percentile != "p99")


@pytest.mark.parametrize(("between", "said"), [(1e-4, False), (0.3, True)])
def test_a_throughput_that_may_be_as_high_is_named(tmp_path, between, said):
    maker = planted.StudyMaker(tmp_path, lambda r, *_: 1.0 if "graph" in r else 1.1, between=between)
    maker.measure(GPU, [(f"{ORT}-graph", "fp16"), (ORT, "fp16")], [(1, 128)])
    text = page(maker).partition("## Results")[0]
    assert ("The throughput of " in text and "may be as high." in text) == said


def test_a_model_whose_cells_all_failed_is_named_beside_the_decision(tmp_path):
    maker = planted.StudyMaker(tmp_path)
    maker.add(CPU, "torch-eager", "fp32", 1, 128)
    cells = [maker.add(CPU, "torch-eager", "fp32", batch, 224, model=planted.IMAGE) for batch in (1, 4)]
    for run in (1, 2, 3):
        maker.fail(cells[0], run)
    assert "Every cell failed" not in page(maker)
    for run in (1, 2, 3):
        maker.fail(cells[1], run)
    text = page(maker).partition("## Results")[0]
    assert f"**Every cell failed** of {planted.IMAGE} on `{CPU}`: see Not run." in text


@pytest.mark.parametrize("study", [three, planted.default_study])
def test_a_decision_cell_is_short_and_its_reasons_stand_below(tmp_path, study):
    text = page(study(tmp_path))
    for row in table(text, "Decision"):
        assert max(map(len, row.values())) <= 75, row
        model, device = re.findall(r"\*\*(.+)\*\*, `(.+)`", row["model, device"])[0]
        (why,) = [line for line in text.splitlines() if line.startswith(f"- **{model}** on `{device}`:")]
        assert f"Confidence {row['confidence'].split()[0]}: " in why
    assert "none" not in [row["next lever"] for row in table(text, "Decision")]


@pytest.mark.parametrize(
    ("truth", "between", "word"),
    [
        (lambda *_: 1.0, 1e-4, "same"),
        (lambda *_: 1.0, 0.3, "undecided"),
        (lambda r, *_: 1 + (r == ORT), 1e-4, "0.500×"),
    ],
)
def test_a_speed_up_that_is_not_shown_is_a_word(tmp_path, truth, between, word):
    maker = planted.StudyMaker(tmp_path, truth, between=between)
    maker.measure(GPU, [(f"{ORT}-graph", "fp32"), (ORT, "fp32")], [(1, 128)])
    maker.repeat(GPU, f"{ORT}-graph", "fp32", 1, 128)
    rows = table(page(maker, baseline=[f"{ORT}-graph/fp32"]), "Results")
    assert word in {row["speed-up"] for row in rows}


@pytest.mark.parametrize(
    ("truth", "options", "level", "why"),
    [
        (lambda r, *_: 0.5 if "graph" in r else 1.0, {}, "high", "more than the noise (3 processes a cell)"),
        (lambda *_: 1.0, {"between": 0.05}, "low", "may be as fast"),
        (lambda r, *_: 0.5 if "graph" in r else 1.0, {"runs": 1}, "none", "one process a cell"),
        (lambda r, *_: 0.5 if "graph" in r else 1.0, {"runs": 2, "between": 1e-4}, "medium", "only 2 processes"),
    ],
)
def test_confidence_in_words(tmp_path, truth, options, level, why):
    maker = planted.StudyMaker(tmp_path, truth, **({"between": 0.001} | options))
    maker.measure(GPU, [(ORT, "fp16"), (f"{ORT}-graph", "fp16")], [(1, 128)])
    maker.repeat(GPU, ORT, "fp16", 1, 128)
    (one,) = decided(Measured(collect(maker.plan())), {})
    assert (one.confidence.level, why in one.confidence.why) == (level, True), one.confidence


def test_what_bounds_a_cell_is_a_capture_s_verdict_or_the_host_s_share_or_not_measured(tmp_path):
    maker = planted.StudyMaker(tmp_path, lambda *_: 1.0, between=1e-3, enqueue=lambda r, b: 0.95)
    maker.add(GPU, ORT, "fp16", 1, 128)
    tables = collect(maker.plan())
    assert table(page(maker, tables), "Decision")[0]["bound by"] == "host-bound (the host submits for 95% of it)"
    row = dict.fromkeys(BUDGET_COLUMNS) | tables.cells.iloc[0][KEY].to_dict() | {"verdict": "launch-bound"}
    captured = dataclasses.replace(tables, budgets=pd.DataFrame([row], columns=BUDGET_COLUMNS))
    (one,) = decided(Measured(captured), {})
    assert (one.bound.name, one.bound.proof, one.bound.would_decide) == ("launch-bound", "capture", "")
    noisy = planted.StudyMaker(tmp_path / "x", lambda *_: 1.0, runs=1)
    noisy.add(GPU, ORT, "fp16", 1, 128)
    text = page(noisy)
    assert table(text, "Decision")[0]["bound by"].startswith("not measured")
    assert f"add `traces: {{cells: [{ORT}/distilbert/fp16/b1-s128]}}`" in text


def test_results_are_sorted_best_first_with_their_speed_up_over_the_baseline(tmp_path):
    maker = planted.default_study(tmp_path)
    tables = collect(maker.plan())
    text = page(maker, tables)
    rows = table(text, "Results")
    rows = rows[next(i for i, row in enumerate(rows) if row["shape"] == "b1-s128") :]
    first = rows[: next(i for i, row in enumerate(rows) if i and row["shape"])]
    medians = [float(row["p50, ms [95%]"].split()[0]) for row in first]
    assert len(first) == 4 and medians == sorted(medians)
    assert next(row["speed-up"] for row in first if row["configuration"] == "torch-eager fp32") == "baseline"
    base = next(m for m, row in zip(medians, first, strict=True) if row["speed-up"] == "baseline")
    shown = [(m, row["speed-up"]) for m, row in zip(medians, first, strict=True) if row["speed-up"].endswith("×")]
    assert len(shown) >= 2
    for median, factor in shown:
        assert float(factor.strip("×")) == pytest.approx(base / median, rel=0.02)
    other = page(maker, tables, baseline=["onnxruntime-cpu/int8"])
    assert "speed-up over onnxruntime-cpu int8" in other and "speed-up over torch-eager fp32" in text
    assert baselines(Measured(tables), ["no/such"])[CPU, "distilbert"] == ("torch-eager", "fp32")


def test_findings_are_ranked_by_what_is_certain_of_them(tmp_path):
    tables = collect(planted.default_study(tmp_path).plan())
    found = findings(tables)
    chosen = most_consequential(found, 8)
    weights = [consequence(finding) for finding in chosen]
    assert weights == sorted(weights, reverse=True) and min(weights) > 0
    assert len({finding.topic for finding in chosen[:4]}) > 2
    assert all(finding.brief and re.search(r"\d", finding.brief) and finding.cells for finding in chosen)
    wide = dataclasses.replace(chosen[0], effect=dataclasses.replace(chosen[0].effect, low=0.1, high=10.0))
    assert consequence(wide) == 0


def test_noise_is_one_line_and_no_interval_of_ten_times_is_shown(tmp_path):
    """Nothing makes a difference, and processes differ by half: the summary counts what is not decided."""
    maker = planted.default_study(tmp_path, truth=planted.flat, between=0.5)
    for run in (1, 2, 3):
        flags = ["other processes used 85% of a core", f"the CPU quota ran out in {run} periods, for 0.2 s"]
        maker.change(maker.cells[0], run, flags=flags)
    text = page(maker)
    assert len(re.findall(r"decide nothing at this noise: the A/A pair may differ by", text)) == 1
    (alarm,) = [line for line in text.splitlines() if line.startswith("> ")]
    assert (
        text.index(alarm) < text.index("## Decision") and "is noisy**: one cell measured twice may differ by" in alarm
    )
    assert "other processes used up to 85% of a core in 4 of" in alarm
    assert "and the CPU quota ran out in 3 of" in alarm
    assert "End other work and measure again: `snakemake" in alarm and "machine was busy" not in text
    quiet = planted.default_study(tmp_path / "quiet", between=0.002)
    text = page(quiet)
    assert "\n> " not in text and "**The machine was busy**: other processes used up to 35% of a core in 1 of" in text
    for low, high in re.findall(r"\[([\d.,]+), ([\d.,]+)\]", text):
        assert float(high.replace(",", "")) <= 10 * float(low.replace(",", ""))


@pytest.mark.parametrize(
    ("floor", "said"), [(0.031, "3.1%"), (0.87, "87%"), (9.0, "900%"), (2.3e11, "more than a factor of 10")]
)
def test_a_noise_floor_beyond_a_factor_of_ten_is_no_number(floor, said):
    """Over the medians of two processes an interval can reach over ten decades."""
    assert noise(floor) == said


def test_what_was_not_run_is_grouped_by_reason(tmp_path):
    text = page(planted.default_study(tmp_path))
    rows = table(text, "Not run")
    assert [row["cells"] for row in rows] == ["48", "12", "1"]
    assert rows[0]["remedy"] == "run on a machine with an NVIDIA GPU"
    assert "std::bad_alloc" in rows[2]["reason"] and "run1.log" in rows[2]["remedy"]


def test_a_plot_of_a_part_is_left_out_where_a_study_does_not_have_the_part():
    """Else every other study's pages would want a picture that nobody draws."""
    assert set(SHOWS) <= set(NOTHING_TO_SHOW)
