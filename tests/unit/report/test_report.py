"""From planned truth to tables, findings, pictures and the page."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit import planted_records
from unit.report import test_quality as quality_records

from ceilings.errors import UserError
from ceilings.report import text
from ceilings.report.analysis.findings import findings
from ceilings.report.analysis.findings.bottleneck import bound, bound_by
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.precision_series import precision_series
from ceilings.report.catalogue import PLOTS
from ceilings.report.render.notes import observations, summary_table
from ceilings.report.render.page import page as make_report
from ceilings.report.render.plots import draw, style
from ceilings.report.render.summary import summary
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence, read_evidence
from ceilings.report.tables.frames import read_tables
from ceilings.report.tables.quantities import CELL_COLUMNS
from ceilings.statistics.quantiles import Interval, minimum_samples

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

PROGRAMS = Path(__file__).parents[3] / "workflow_scripts"
CPU, GPU = planted.CPU, planted.GPU


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    return planted.default_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def tables(default):
    return collect(default.plan())


@pytest.fixture(scope="module")
def page(default, tables):
    return summary(default.plan(), tables, read_evidence(planted.evidence(default.root)), "plots")


def made(tmp_path, truth, *, configurations=planted.CPU_CONFIGURATIONS, shapes=planted.SHAPES, **options):
    maker = planted.StudyMaker(tmp_path, truth, **options).measure(CPU, configurations, shapes)
    maker.repeat(CPU, "onnxruntime-cpu", "fp32", 1, 128)
    return collect(maker.plan())


# --- tables ----------------------------------------------------------------------------------------------------------


def test_every_planned_cell_has_its_row(default, tables):
    axes = ["batch", "sequence", "image"]
    assert [name for name in tables.cells.columns if name not in axes] == CELL_COLUMNS
    behind = list(tables.cells.columns).index("shape") + 1
    assert list(tables.cells.columns)[behind : behind + 3] == axes
    assert dict(tables.cells["status"].value_counts()) == {"unavailable": 60, "ok": 36, "failed": 1}
    assert len(tables.cells) == len(default.cells)
    assert len(tables.runs) == 111
    assert set(tables.samples.columns) >= {"run", "series", "i", "latency_ns"}


def test_numbers_are_the_samples_own(tables):
    row = tables.cells[(tables.cells["runtime"] == "onnxruntime-cpu") & (tables.cells["shape"] == "b4-s128")].iloc[0]
    own = tables.samples.query("runtime == 'onnxruntime-cpu' and shape == 'b4-s128' and precision == @row.precision")
    medians = own.groupby("run")["latency_ns"].median() / 1e6
    assert row["p50_ms"] == pytest.approx(medians.median())
    assert row["p90_ms"] == pytest.approx(own["latency_ns"].quantile(0.9) / 1e6)
    assert row["process_spread"] == pytest.approx(medians.max() / medians.min() - 1)
    assert row["inferences_per_s"] == pytest.approx(4000 / row["p50_ms"])
    assert row["p50_low_ms"] < row["p50_ms"] < row["p50_high_ms"]
    assert row["n"] == 360 < minimum_samples(0.99)
    assert pd.isna(row["p99_ms"])


def test_runs_that_disagree_make_a_failed_cell(tmp_path):
    maker = planted.StudyMaker(tmp_path)
    maker.fail(maker.add(CPU, "torch-eager", "fp32", 1, 128), 2)
    row = collect(maker.plan()).cells.iloc[0]
    assert row["status"] == "failed"
    assert "1 of 3 processes failed" in row["reason"]
    assert pd.isna(row["p50_ms"])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_text('{"schema_version": 1, "cel'), "is damaged"),
        (lambda path: path.write_text('{"schema_version": 2}'), "is no run record"),
        (lambda path: path.write_text('{"schema_version": 99}'), "schema version 99"),
        (lambda path: path.write_text(path.read_text().replace("b1-s128", "b2-s128", 1)), "was changed since"),
        (
            lambda path: planted_records.edit(path, cell=json.loads(path.read_text())["cell"] | {"model": "x"}),
            "another cell",
        ),
    ],
)
def test_a_bad_run_file_is_named_with_the_remedy(tmp_path, damage, told):
    maker = planted.StudyMaker(tmp_path)
    path = Path(maker.add(CPU, "torch-eager", "fp32", 1, 128)["runs"][1])
    damage(path)
    with pytest.raises(UserError, match=told) as caught:
        collect(maker.plan())
    assert str(path) in str(caught.value)
    assert "snakemake --cores 1" in str(caught.value)


def test_tables_survive_the_disk(tables, tmp_path):
    tables.write(tmp_path)
    again = read_tables(tmp_path)
    assert again.cells["p50_ms"].equals(tables.cells["p50_ms"])
    assert len(pd.read_csv(tmp_path / "cells.csv")) == len(tables.cells)
    assert [str(f) for f in findings(again)] == [str(f) for f in findings(tables)]
    (tmp_path / "runs.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(UserError, match=r"runs\.parquet is not the table that tables\.json beside it vouches for"):
        read_tables(tmp_path)
    (tmp_path / "tables.json").unlink()  # as tables that were published earlier
    with pytest.raises(UserError, match=r"runs\.parquet is damaged"):
        read_tables(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "flaw"),
    [
        ("cells", lambda frame: frame.drop(columns="status"), "it has no column status"),
        ("cells", lambda frame: frame.assign(status="fine"), "status holds other than ok"),
        ("cells", lambda frame: frame.assign(p50_ms="fast"), "p50_ms holds other than numbers"),
        ("cells", lambda frame: frame.assign(shape="large"), "large"),
        ("samples", lambda frame: frame.assign(latency_ns=-1), "latency_ns holds other than positive whole numbers"),
        ("runs", lambda frame: frame[["run"]], "it has no column device"),
        ("floors", lambda frame: pd.DataFrame({"x": [1]}), "it has no column device"),
    ],
)
def test_tables_of_another_form_are_refused(tables, tmp_path, name, change, flaw):
    tables.write(tmp_path)
    (tmp_path / "tables.json").unlink()
    change(getattr(tables, name)).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match=rf"{name}\.parquet is damaged \(.*{flaw}"):
        read_tables(tmp_path)


MAKE_PAGE = """
import hashlib, pathlib, sys
import planted_study as planted
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.render.summary import summary
maker = planted.StudyMaker(pathlib.Path(sys.argv[1]), lambda *_: 1.0, between=0.05)
runtimes = ("onnxruntime-cuda", "onnxruntime-cuda-graph", "torch-cuda-eager", "torch-compile")
maker.measure(planted.GPU, [(r, p) for r in runtimes for p in ("fp32", "fp16", "bf16")], [(1, 128)])
print(hashlib.sha256(summary(maker.plan(), collect(maker.plan()), Evidence(), "plots").encode()).hexdigest())
"""


def test_the_page_does_not_depend_on_the_order_of_sets(tmp_path):
    pages = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", MAKE_PAGE, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        pages.add(done.stdout)
    assert len(pages) == 1


# --- findings --------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # many studies of nothing
def test_noise_alone_claims_nothing(tmp_path):
    """Sixteen studies in which nothing makes a difference: next to none may be claimed."""
    claims = compared = 0
    shapes = [(1, 32), (1, 64), (1, 128), (1, 256)]
    for seed in range(16):
        found = findings(made(tmp_path / str(seed), planted.flat, shapes=shapes, seed=seed, between=0.03))
        judged = [finding for finding in found if finding.verdict is not None]
        claims += sum(finding.claims_difference for finding in judged)
        compared += len(judged)
        for finding in judged:
            if not finding.claims_difference:
                assert "faster**" not in finding.text
                assert "slower**" not in finding.text
    assert compared > 60
    assert claims / compared <= 0.05


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_planted_runtime_and_precision_effects_in_both_directions(tmp_path, factor):
    def truth(runtime, precision, batch, sequence):
        return 10.0 * batch * (factor if precision == "int8" else 1.0) * (1.5 if "torch" in runtime else 1.0)

    found = findings(made(tmp_path, truth))
    expected = "faster" if factor < 1 else "slower"
    lower = [finding for finding in found if finding.topic == "Lower precision"]
    assert len(lower) == 4  # two families, two axes
    for finding in lower:
        assert finding.verdict == expected
        assert f"INT8 is {expected} throughout" in finding.text
        assert finding.effect.low < factor * 1.05
        assert finding.effect.high > factor * 0.95
    by_runtime = [finding for finding in found if finding.topic == "Runtimes at one precision"]
    assert {finding.verdict for finding in by_runtime} == {"faster"}
    fastest = next(finding for finding in found if finding.topic == "Fastest")
    assert f"**onnxruntime-cpu {'int8' if factor < 1 else 'fp32'}**" in fastest.text


@pytest.mark.parametrize("gains", [True, False])
def test_planted_crossover(tmp_path, gains):
    def truth(runtime, precision, batch, sequence):
        ratio = (128 / sequence) ** 0.5 if gains else (sequence / 128) ** 0.5
        return 10.0 * (ratio if precision == "int8" else 1.0)

    measured = Measured(made(tmp_path, truth, shapes=[(1, s) for s in (32, 64, 256, 512, 128)]))
    for series in precision_series(measured):
        (crossing,) = series.crossovers
        assert crossing.gains is gains
        assert (crossing.below, crossing.above) == (64, 256)
        assert crossing.size == pytest.approx(128, rel=0.1)


def test_a_difference_below_the_noise_floor_is_none(tmp_path):
    """The twin reads 20% more: 10% between runtimes, however precise, is then no difference."""

    def truth(runtime, precision, batch, sequence):
        return 10.0 * (1.2 if runtime.endswith(".aa") else 1.1 if "torch" in runtime else 1.0)

    found = findings(made(tmp_path, truth, between=0.0005))
    per_request = (finding for finding in found if finding.topic != "Batching" and "batch" not in finding.subject)
    assert not any(finding.claims_difference for finding in per_request)
    noise = next(finding for finding in found if finding.topic == "Noise")
    assert "**20%**" in noise.text


def test_a_machine_that_is_too_noisy_refutes_nothing(tmp_path):
    """INT8 is three times faster, and the twin reads ten times as much: neither is claimed nor refuted."""

    def truth(runtime, precision, batch, sequence):
        return 10.0 * (10.0 if runtime.endswith(".aa") else 0.33 if precision == "int8" else 1.0)

    maker = planted.default_study(tmp_path, truth=truth)
    tables = collect(maker.plan())
    lower = [f for f in findings(tables) if f.question == 6 and f.claim]
    assert lower and {f.status for f in lower} == {"not decidable"}
    page = summary(maker.plan(), tables, Evidence(), "plots")
    assert (
        "is noisy**: one cell measured twice may differ by" in page
        and "comparisons decide nothing at this noise" in page
    )


def test_batching_says_where_throughput_flattens(tmp_path):
    def truth(runtime, precision, batch, sequence):
        return 10.0 * max(1.0, batch / 8)

    found = findings(made(tmp_path, truth))
    batching = [finding for finding in found if finding.topic == "Batching"]
    assert batching
    assert all("throughput flattens at batch 8: going from 8 to 16 changes it by" in f.text for f in batching)
    assert not any("SM clock" in finding.text for finding in batching)


@pytest.mark.parametrize(
    ("gain", "options", "text"),
    [
        (1.15, {"between": 0.05}, "whether throughput flattens at batch 8 is not decided"),
        (1.0, {"between": 0.05}, "whether throughput flattens at batch 8 is not decided"),
        (1.0, {"between": 0.001}, "throughput flattens at batch 8: going from 8 to 16"),
        (1.5, {"between": 0.001}, "throughput still rises at batch 16: going from 8 to 16 changes it by +50%"),
        (1.0, {"runs": 1}, "whether throughput flattens at batch 1 is not decided"),
    ],
)
def test_only_an_interval_that_decides_says_that_throughput_flattens(tmp_path, gain, options, text):
    def truth(runtime, precision, batch, sequence):
        return 10.0 if batch <= 8 else 20.0 / gain

    maker = planted.StudyMaker(tmp_path, truth, **options)
    maker.measure(CPU, [("onnxruntime-cpu", "fp32")], [(1, 128), (8, 128), (16, 128)])
    (batching,) = [f.text for f in findings(collect(maker.plan())) if f.topic == "Batching"]
    assert text in batching


def test_batching_names_the_clock_that_fell(tmp_path):
    maker = planted.StudyMaker(tmp_path, lambda r, p, b, s: 1.0 * b)
    maker.measure(GPU, [("onnxruntime-cuda", "fp16")], [(1, 128), (8, 128), (16, 128)])
    (told,) = [finding.text for finding in findings(collect(maker.plan())) if finding.topic == "Batching"]
    assert "At batch 16 the SM clock is 1,700 of 1,980 MHz" in told


def test_sequence_exponent(tmp_path):
    found = findings(made(tmp_path, lambda r, p, b, s: s**1.5 / 100))
    for finding in found:
        if finding.topic == "Sequence length":
            assert finding.effect.low < 1.5 < finding.effect.high
            assert finding.effect.high - finding.effect.low < 0.2


def test_one_process_claims_nothing(tmp_path):
    found = findings(made(tmp_path, planted.realistic, runs=1))
    assert not any(finding.claims_difference for finding in found)
    assert any("rest on one process" in finding.text for finding in found)
    assert not any("below the noise floor" in finding.text for finding in found)
    compared = [finding.text for finding in found if finding.topic == "Runtimes at one precision"]
    assert compared and all("undecided, the noise floor is unknown" in text for text in compared)
    noise = next(finding.text for finding in found if finding.topic == "Noise")
    assert "the noise floor is unknown" in noise and "`protocol: {processes: 3}`" in noise
    asked = {entry for finding in found for entry in finding.missing if "processes" in entry}
    assert asked == {"protocol: {processes: 3}"}  # an interval over two would be 12.7 standard errors to either side


def test_without_an_a_a_pair_the_floor_is_unknown_and_the_entry_that_measures_it_is_named(tmp_path):
    maker = planted.StudyMaker(tmp_path).measure(CPU, [("torch-eager", "fp32")], [(1, 128)])
    noise = next(finding.text for finding in findings(collect(maker.plan())) if finding.topic == "Noise")
    assert "its noise floor is unknown" in noise
    assert "`noise_cells: [torch-eager/distilbert/fp32/b1-s128]`" in noise


def test_every_sentence_about_cells_of_two_models_names_the_model(tmp_path):
    maker = planted.default_study(tmp_path)
    for cell in maker.cells[:3] + maker.cells[-2:]:
        for run in (1, 2, 3):
            maker.change(cell, run, flags=["other processes used 35% of a core"])
    tables = collect(maker.plan())
    for finding in findings(tables):
        about = {name.split("/")[2] for name in finding.cells} - {""}
        general = finding.topic == "Warnings" and "(" not in finding.text
        assert general or all(model in finding.text for model in about), finding.text
    (flagged,) = [f.text for f in findings(tables) if "runs flagged" in f.text]
    assert "distilbert: torch-eager fp32 b1-s128 run 1" in flagged
    page = observations(maker.plan(), tables, Evidence(), "plots")
    (row,) = [line for line in page.splitlines() if line.startswith("|  6 |")]
    lines = [part for part in row.split("; ") if " by batch: " in part or " by sequence: " in part]
    assert len(lines) == 4 and sum("distilbert: " in line for line in lines) == 4
    assert "(8), " in page and " of distilbert |" in page  # not run


@pytest.mark.parametrize(
    ("share", "kind"),
    [
        ((0.93, 0.95, 0.97), "host-bound"),
        ((0.6, 0.7, 0.8), "between"),
        ((0.05, 0.1, 0.15), "device-bound"),
        ((0.85, 0.95, 1.05), "undecided"),
        ((0.4, 0.45, 0.55), "undecided"),
        ((0.0, 0.95, math.inf), "undecided"),
        ((0.0, 0.1, math.inf), "undecided"),
    ],
)
def test_what_decides_a_latency_needs_the_whole_interval_of_the_host_s_share(share, kind):
    assert bound_by(Interval(*share)) == kind


def test_a_call_that_copies_says_nothing_of_the_host(tmp_path):
    """The events are as far apart as the latency is long whatever decides it: waiting counts in their span."""
    maker = planted.StudyMaker(tmp_path, enqueue=lambda runtime, batch: 0.95)
    maker.add(GPU, "onnxruntime-cuda", "fp32", 1, 128)
    measured = Measured(collect(maker.plan()))
    (cell,) = measured.cells
    assert bound(measured, cell) == "host-bound"
    assert bound(measured, dataclasses.replace(cell, row=cell.row | {"e2e_p50_ms": None})) == "waits"


def test_gpu_columns_are_reported(tmp_path):
    maker = planted.StudyMaker(tmp_path).measure(GPU, planted.GPU_CONFIGURATIONS)
    tables = collect(maker.plan())
    found = findings(tables)
    told, *_ = [finding.text for finding in found if finding.topic == "Host or device"]
    assert "neither bounds the latency alone" in told and told.count(" of ") == 3
    assert any("No A/A pair" in finding.text for finding in found)
    page = summary_table(maker.plan(), tables)
    assert "GPU-secret" not in page + observations(maker.plan(), tables, Evidence(), "plots")
    for column in ("GPU p50", "enqueue p50", "end to end p50", "pageable p50"):
        assert column in page


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLOTS)
def test_pictures_are_drawn_the_same_twice(tables, tmp_path, name):
    for copy in ("a", "b"):
        style.save(draw(name, tables), tmp_path / f"{copy}.svg", tmp_path / f"{copy}.png")
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()


@pytest.mark.parametrize("name", ["batch_sweep", "precision_crossover"])
def test_a_legend_is_no_wider_than_its_picture(tmp_path, name):
    """With as many configurations as a study of levers has, and names as long as theirs."""
    maker = planted.StudyMaker(tmp_path, lambda *_: 1.0)
    runtimes = [f"onnxruntime-cuda{end}" for end in ("", "-dynamic", "-graph", "-fused", "-fused-graph", "-noio")]
    configurations = [(runtime, precision) for runtime in runtimes for precision in ("fp32", "fp16")]
    figure = draw(name, collect(maker.measure(GPU, configurations, [(1, 128), (32, 128)]).plan()))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    extent = legend.get_window_extent()
    assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width
    assert not any("not swept" in text.get_text() for axis in figure.axes for text in axis.texts)


@pytest.mark.parametrize("name", ["configurations", "batch_sweep", "sequence_sweep"])
def test_an_interval_of_decades_does_not_stretch_its_picture(tables, name):
    def arrows(figure):
        return [line for axis in figure.axes for line in axis.lines if line.get_label() == "the interval goes on"]

    assert not arrows(draw(name, tables))
    cells = tables.cells.copy()
    at = (cells["device"] == CPU) & (cells["runtime"] == "torch-eager") & (cells["batch"] == 1)
    cells.loc[at, "p50_low_ms"] /= 100
    cells.loc[at, "p50_high_ms"] *= 100
    figure = draw(name, dataclasses.replace(tables, cells=cells))
    axis = arrows(figure)[0].axes
    low, high = axis.get_xlim() if name == "configurations" else axis.get_ylim()
    own = cells[(cells["device"] == CPU) & cells["p50_ms"].notna()]
    assert low >= own["p50_ms"].min() * 0.6 / style.REACH
    assert high <= own["p90_ms"].max() * style.REACH
    carets = [line.get_marker() for line in axis.lines if isinstance(line.get_marker(), int) and len(line.get_xdata())]
    assert {"configurations": {4, 5}, "batch_sweep": {4, 5, 6, 7}, "sequence_sweep": {6, 7}}[name] == set(carets)


def test_nothing_measured_is_said_not_raised(tmp_path):
    maker = planted.StudyMaker(tmp_path)
    maker.unavailable("tensorrt", "fp16", 1, 128, "no CUDA device on this machine", "run on a machine with one")
    collect(maker.plan()).write(tmp_path / "tables")
    tables = read_tables(tmp_path / "tables")
    for name in PLOTS:
        assert any("was measured" in piece.get_text() for piece in draw(name, tables).texts)
    page = summary(maker.plan(), tables, Evidence(), "plots")
    assert "Nothing: no cell was measured." in page
    assert "no CUDA device on this machine" in page and "| tensorrt fp16 (1) |" in page


def test_unknown_plot_lists_the_known(tables):
    with pytest.raises(UserError, match="unknown plot 'pie'; choose one of configurations"):
        draw("pie", tables)


# --- the page --------------------------------------------------------------------------------------------------------


def links(markdown):
    return re.findall(r"\]\(([^)]+)\)", markdown)


NAMES = ("summary", "engineering_observations", "summary_table")


def slug(heading):
    """The anchor that a Markdown viewer gives a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def test_every_link_of_the_pages_leads_somewhere(tmp_path):
    """Files of the results tree from the summary and the lab note, anchors from the report."""
    maker = planted.default_study(tmp_path)
    quality = quality_records.Planted(tmp_path / "results")
    for cell in (maker.cells[0], maker.cells[16], maker.cells[24]):
        row = quality.classified(cell["runtime"], cell["precision"], lost=3)
        path = tmp_path / f"results/quality/{CPU}/{cell['runtime']}/distilbert/{cell['precision']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(row["quality"]).rename(path)
        cell["quality"] = str(path)
    tables, evidence = collect(maker.plan()), read_evidence(planted.evidence(tmp_path))
    results = tmp_path / "results"
    tables.write(results / "tables")
    (results / "plots").mkdir()
    for name in PLOTS:
        for kind in ("svg", "png"):
            (results / f"plots/{name}.{kind}").touch()
    written = (
        summary(maker.plan(), tables, evidence, "plots"),
        observations(maker.plan(), tables, evidence, "plots"),
        summary_table(maker.plan(), tables),
    )
    for name, markdown in zip(NAMES, written, strict=True):
        (results / f"{name}.md").write_text(markdown)
    named = list(zip(NAMES, written, strict=True))
    anchors = {name: set(re.findall(r'<a id="([^"]+)">', text)) for name, text in named}
    for name, markdown in named:
        targets = set(links(markdown))
        assert not [target for target in targets if not (results / target.partition("#")[0]).is_file()]
        for target in targets:
            page_, _, anchor = target.partition("#")
            if anchor:
                headings = (line for line in (results / page_).read_text().splitlines() if line.startswith("#"))
                assert anchor in {*anchors[page_.removesuffix(".md")], *map(slug, headings)}, (name, target)
    assert any(target.startswith("quality/") for target in links(written[1]))
    assert sum("#observation-" in target for target in links(written[0])) > 3
    body = make_report(maker.plan(), tables, evidence).partition('<script type="application/json"')[0]
    anchors = set(re.findall(r'href="#([^"]*)"', body))
    assert len(anchors) > 100 and anchors <= set(re.findall(r' id="([^"]*)"', body))
    assert set(re.findall(r'(?:href|src)="([^"]*)"', body)) == {f"#{anchor}" for anchor in anchors}


def test_the_lab_note_holds_what_the_summary_leaves_out(default, tables):
    note = observations(default.plan(), tables, read_evidence(planted.evidence(default.root)), "plots")
    titles = [line[3:] for line in note.splitlines() if line.startswith("## ") and not line[3].isdigit()]
    assert titles[0] == "Decision"
    assert [title for title in titles if title in SECTIONS] == SECTIONS
    assert "**Weights of distilbert are random**" in note
    (failed,) = [line for line in note.splitlines() if "std::bad_alloc" in line]
    assert "results/logs/torch-int8-dynamic.b1-s512.run1.log" in failed
    assert "`layer.5` 25.0 dB" in note
    assert "other processes used 35% of a core" in note
    assert "p99.9 6,636" in note
    assert "nan" not in note.lower().replace("nanosecond", "")


SECTIONS = ["Claims of earlier studies", "Pictures", "Not run", "Parity with the FP32 reference", "Graphs"]
SECTIONS += ["Read with care", "Environment", "Method in brief"]


def test_one_cell_that_cannot_run_is_named_as_any_other(tmp_path):
    maker = planted.StudyMaker(tmp_path)
    maker.unavailable("torch-eager", "fp32", 1, 128, "no PyTorch", "install it")
    tables = collect(maker.plan())
    page = summary(maker.plan(), tables, Evidence(), "plots")
    assert re.search(r"\| +1 \| no PyTorch +\| torch-eager fp32 \(1\) ", page)


def test_evidence_out_of_place_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match="no evidence that the summary knows"):
        read_evidence([tmp_path / "x.json"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0123456, "0.0123"), (1.005, "1.00"), (12.34, "12.3"), (12345.6, "12,346"), (np.nan, "n/a"), (0, "0")],
)
def test_numbers(value, expected):
    assert text.number(value) == expected


def test_table_cells_cannot_break_the_table():
    assert "a\\|b c" in text.table([["a|b\nc"]], ["x"])


# --- programs --------------------------------------------------------------------------------------------------------


def run(program, *arguments):
    command = [sys.executable, PROGRAMS / f"{program}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_programs_by_hand(default, tmp_path):
    plan, tables, plots = default.write_plan(), tmp_path / "tables", tmp_path / "plots"
    done = run("collect_cells", "--plan", plan, "--output-dir", tables)
    assert done.returncode == 0, done.stderr
    assert "96 cells" in done.stdout and "12960 iterations" in done.stdout
    output = ["--output-svg", plots / "configurations.svg", "--output-png", plots / "configurations.png"]
    assert run("draw_plot", "--plot", "configurations", "--tables", tables, *output).returncode == 0
    for name in PLOTS:
        (plots / f"{name}.png").touch()
    given = ["--plan", plan, "--tables", tables, "--plots", plots, "--evidence", *planted.evidence(default.root)]
    done = run("write_summary", *given, "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    page, note = (tmp_path / f"{name}.md" for name in ("summary", "engineering_observations"))
    assert "](plots/batch_sweep.png)](plots/batch_sweep.svg)" in page.read_text()
    assert (tmp_path / "summary_table.md").is_file()
    # On a CPU nothing submits, and nothing bounds: two pictures would be empty.
    assert "plots/configurations.png" in note.read_text()
    assert "roofline" not in note.read_text() and "launch_to_kernel_map" not in note.read_text()
    assert not list(tmp_path.rglob(".*"))  # no temporary file left


def test_a_program_ends_with_one_message(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"cells": []})[:-1])
    done = run("collect_cells", "--plan", plan, "--output-dir", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {plan} is damaged")
    assert "Traceback" not in done.stderr
