"""Quality from records to the table, the findings and the summary; and the price of padding."""

import math
import types

import numpy as np
import pytest
from unit import planted_records
from unit.report.planted_study import CPU, StudyMaker

from ceilings import records
from ceilings.errors import UserError
from ceilings.measure.evaluation import evaluate
from ceilings.models.dataset import Dataset
from ceilings.report.analysis.findings.padding import padding, what_becomes
from ceilings.report.analysis.findings.quality import quality, status_of_quality
from ceilings.report.analysis.measured import Measured
from ceilings.report.analysis.quality_words import worth
from ceilings.report.render.conditions import reference
from ceilings.report.render.notes import observations
from ceilings.report.render.quality_section import section
from ceilings.report.render.summary import summary
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import read_tables
from ceilings.report.tables.quality_rows import QUALITY_COLUMNS, quality_table
from ceilings.statistics.quantiles import Interval
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

IDS = TensorSpec("ids", "int64", ("batch", "sequence"), "tokens", 1, 9)
CLASSIFIER = Workload(TASKS["sequence-classification"], (IDS,), (TensorSpec("logits", "float32", ("batch", 2)),))
EMBEDDING = Workload(TASKS["sentence-embedding"], (IDS,), (TensorSpec("vector", "float32", ("batch", 8)),))


PLAN = {"models": {"distilbert": {"weights": "auto"}}}


class Planted:
    """Records of quality as evaluate_quality.py writes them, and the planned cells that name them."""

    def __init__(self, root):
        self.root, self.cells = root, []

    def add(self, runtime, precision, model="distilbert", **changes):
        names = {"device": CPU, "runtime": runtime, "model": model, "precision": precision}
        path = self.root / f"{runtime}.{model}.{precision}.json"
        failed = {"log": None, "provenance": planted_records.PROVENANCE, "cell": {**names, "shape": "b8-s128"}}
        records.write(path, "quality", failed | changes)
        cell = {**names, "shape": "b8-s128", "aa_of": None, "quality": str(path)}
        self.cells.append(cell)
        return cell

    def classified(
        self,
        runtime,
        precision,
        *,
        lost,
        gained=0,
        count=2000,
        labelled=True,
        weights="pretrained",
        available=0,
        **names,
    ):
        """``lost`` rows that FP32 has right are wrong, ``gained`` the other way; FP32 is wrong on one row in ten."""
        labels = np.random.default_rng(0).integers(0, 2, count)
        fp32, cell = labels.copy(), labels.copy()
        wrong = np.arange(0, count, 10)
        fp32[wrong] = cell[wrong] = 1 - labels[wrong]
        right = np.setdiff1d(np.arange(count), wrong)
        cell[right[:lost]] = 1 - labels[right[:lost]]
        cell[wrong[:gained]] = labels[wrong[:gained]]
        one_hot = np.eye(2)
        rows = Dataset({"ids": np.ones((count, 4), int)}, labels if labelled else None, np.arange(count) < 3, {})
        metrics = evaluate(CLASSIFIER, rows, {"logits": one_hot[cell]}, {"logits": one_hot[fp32]})
        source = {"source": "file", "file": "dev.tsv", "label": "label"} if labelled else {"source": "corpus"}
        source["available"] = available or count
        data = {**source, "labelled": labelled, "rows": count, "truncated": 3, "weights": weights}
        task = "sequence-classification"
        return self.add(runtime, precision, **names, status="ok", failure=None, task=task, metrics=metrics, data=data)

    def embedded(self, runtime, precision, noise, *, count=200, weights="path", **names):
        random = np.random.default_rng(0)
        fp32 = random.normal(size=(count, 8))
        cell = fp32 + noise * random.normal(size=fp32.shape)
        rows = Dataset({"ids": np.ones((count, 4), int)}, None, np.zeros(count, bool), {})
        metrics = evaluate(EMBEDDING, rows, {"vector": cell}, {"vector": fp32})
        data = {"source": "corpus", "labelled": False, "rows": count, "available": count, "truncated": 0}
        data["weights"] = weights
        task = "sentence-embedding"
        return self.add(runtime, precision, **names, status="ok", failure=None, task=task, metrics=metrics, data=data)

    def table(self):
        return quality_table(self.cells)


@pytest.fixture
def planted(tmp_path):
    return Planted(tmp_path)


# --- the table -------------------------------------------------------------------------------------------------------


def test_a_row_a_configuration_whatever_its_shapes(planted):
    cell = planted.classified("onnxruntime-cpu", "int8", lost=40, gained=10)
    planted.cells += [{**cell, "shape": "b1-s128"}, {**cell, "quality": None}, {**cell, "aa_of": "onnxruntime-cpu"}]
    table = planted.table()
    assert list(table.columns) == QUALITY_COLUMNS and len(table) == 1
    row = table.iloc[0]
    assert (row["metric"], row["value"], row["reference_value"]) == ("accuracy", 0.885, 0.9)
    assert row["difference"] == pytest.approx(-0.015)
    assert row["difference_low"] < row["difference"] < row["difference_high"] < 0
    assert row["p_value"] == pytest.approx(2 * sum(math.comb(50, k) for k in range(11)) / 2**50)
    assert (row["rows"], row["truncated"], row["source"], row["labels"]) == (2000, 3, "dev.tsv", "label")


def test_agreement_has_no_labels_and_no_p_value(planted):
    planted.classified("onnxruntime-cpu", "int8", lost=40, labelled=False)
    row = planted.table().iloc[0]
    assert (row["metric"], row["value"], row["agreement"], row["source"]) == ("agreement", 0.98, 0.98, "corpus")
    assert row[["labels", "p_value", "difference", "reference_value"]].isna().all()


def test_a_failed_record_is_a_row_with_its_reason(planted):
    planted.add("onnxruntime-cpu", "int8", status="failed", failure={"kind": "timed-out", "message": "after 5 s"})
    row = planted.table().iloc[0]
    assert (row["status"], row["reason"]) == ("failed", "timed-out: after 5 s")


def test_records_of_another_configuration_are_refused(planted):
    cell = planted.classified("onnxruntime-cpu", "int8", lost=0)
    planted.cells = [{**cell, "precision": "fp16"}]
    with pytest.raises(UserError, match="is the quality of another cell"):
        planted.table()


def test_without_records_the_table_is_empty(planted):
    assert list(planted.table().columns) == QUALITY_COLUMNS and planted.table().empty


# --- what is claimed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "count", "status"),
    [(0, 2000, "supported"), (200, 2000, "refuted"), (20, 2000, "not decidable"), (0, 100, "not decidable")],
)
def test_accuracy_is_kept_only_where_the_whole_interval_is_within_a_point(planted, lost, count, status):
    planted.classified("onnxruntime-cpu", "int8", lost=lost, count=count)
    assert status_of_quality(planted.table().iloc[0].to_dict()) == status


@pytest.mark.parametrize(("noise", "status"), [(0.001, "supported"), (1.0, "refuted"), (0.07, "not decidable")])
def test_neighbours_are_kept_only_where_nine_of_ten_are(planted, noise, status):
    planted.embedded("onnxruntime-cpu", "int8", noise)
    row = planted.table().iloc[0].to_dict()
    assert status_of_quality(row) == status
    assert "accuracy" not in worth(row) and "ten nearest" in worth(row)


def test_random_weights_decide_nothing(planted):
    planted.classified("onnxruntime-cpu", "int8", lost=0, weights="random")
    assert status_of_quality(planted.table().iloc[0].to_dict()) == "not decidable"


# --- the section -----------------------------------------------------------------------------------------------------


def test_the_section_shows_value_difference_and_source(planted):
    planted.classified("onnxruntime-cpu", "fp32", lost=0)
    planted.classified("onnxruntime-cpu", "int8", lost=40, gained=10)
    planted.add("torch-eager", "bf16", status="failed", failure={"kind": "crashed", "message": "ended by SIGSEGV"})
    page = section(PLAN, types.SimpleNamespace(quality=planted.table()))
    assert "### Quality of distilbert on `cpu-amd-epyc`" in page
    line = next(line for line in page.splitlines() if line.startswith("| onnxruntime-cpu int8"))
    assert "88.5% [87.0%, 89.8%]" in line and "-1.5 points [-2.3, -0.8]" in line and "dev.tsv, column label" in line
    assert "torch-eager bf16 was not evaluated: crashed: ended by SIGSEGV." in page
    assert "random" not in page and "no accuracy" not in page


def test_the_section_says_that_agreement_is_no_accuracy_and_that_random_weights_mean_nothing(planted):
    planted.embedded("onnxruntime-cpu", "int8", 0.1, weights="random")
    page = section(PLAN, types.SimpleNamespace(quality=planted.table()))
    assert "this is agreement with the FP32 reference and no accuracy" in page
    assert "**The weights of distilbert are random**: accuracy means nothing here" in page


def test_a_model_that_answers_all_rows_alike_is_flagged(planted):
    same = np.eye(2)[np.zeros(40, int)]
    rows = Dataset({"ids": np.ones((40, 4), int)}, None, np.zeros(40, bool), {})
    metrics = evaluate(CLASSIFIER, rows, {"logits": same}, {"logits": same})
    data = {"source": "corpus", "labelled": False, "rows": 40, "available": 40, "truncated": 0, "weights": "path"}
    shared = {"status": "ok", "failure": None, "task": "sequence-classification", "data": data}
    planted.add("onnxruntime-cpu", "int8", metrics=metrics, **shared)
    page = section(PLAN, types.SimpleNamespace(quality=planted.table()))
    assert "**Agreement of distilbert shows little**: the FP32 reference answers all rows alike" in page
    assert worth(planted.table().iloc[0].to_dict()).endswith("answers all rows alike, so agreement shows little")


def test_without_quality_there_is_no_section(planted):
    assert section(PLAN, types.SimpleNamespace(quality=planted.table())) == ""


# --- the price of padding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "verdict", "equivalent", "becomes", "status"),
    [
        ((0.97, 1.0, 1.02), "same within noise", False, "it computes the padding", "supported"),
        ((0.96, 0.99, 1.03), "undecided", True, "it computes the padding", "supported"),
        ((1.2, 1.3, 1.4), "slower", False, "it computes the padding and pays extra for the mask", "supported"),
        ((0.48, 0.5, 0.53), "faster", False, "it skips the padding", "refuted"),
        ((0.7, 0.75, 0.8), "faster", False, "it saves 50% of what skipping all padding would", "refuted"),
        ((0.6, 0.9, 1.4), "undecided", False, "whether it computes the padding is not decided", "not decidable"),
    ],
)
def test_a_ratio_says_what_becomes_of_padding(ratio, verdict, equivalent, becomes, status):
    pair = types.SimpleNamespace(ratio=Interval(*ratio), verdict=verdict)
    assert what_becomes(pair, 0.5, equivalent) == (becomes, status)


# --- a whole study ---------------------------------------------------------------------------------------------------


@pytest.fixture
def study(planted, tmp_path):
    """One runtime in FP32 and INT8 with quality, INT8 twice as fast; and padded inputs on three runtimes."""
    maker = StudyMaker(tmp_path, lambda runtime, precision, batch, size: 10.0 if precision == "int8" else 20.0)
    for precision, lost in (("fp32", 0), ("int8", 100)):
        cell = maker.add(CPU, "onnxruntime-cpu", precision, 8, 128, inputs={"real_share": 1.0})
        cell["quality"] = planted.classified("onnxruntime-cpu", precision, lost=lost)["quality"]
    maker.repeat(CPU, "onnxruntime-cpu", "fp32", 8, 128)
    maker.add(CPU, "torch-eager", "fp32", 8, 128, inputs={"real_share": 1.0})
    for runtime, padded_ms in (("onnxruntime-cpu", 20.0), ("torch-eager", 26.0)):
        maker.truth = lambda *_, latency=padded_ms: latency
        maker.add(CPU, runtime, "fp32", 8, 128, lengths="half", inputs={"real_share": 0.5})
    return maker


def test_a_precision_s_cost_stands_beside_its_gain(study):
    measured = Measured(collect(study.plan()))
    cost, control = quality(measured)
    assert (cost.status, cost.claim, cost.question) == (
        "refuted",
        "A lower precision costs at most one point of accuracy",
        6,
    )
    assert "onnxruntime-cpu int8: accuracy 85.0%" in cost.text and "-5.0 points" in cost.text
    assert cost.verdict == "faster" and cost.effect is None, "the claim is about outputs, the ratio about latencies"
    assert "faster** than onnxruntime-cpu fp32." in cost.text
    assert cost.cells == tuple(f"{CPU}/onnxruntime-cpu/distilbert/{name}/b8-s128" for name in ("int8", "fp32"))
    assert "onnxruntime-cpu fp32 (control)" in control.text and control.claim is None
    assert control.cells == () and control.records == (f"quality/{CPU}/onnxruntime-cpu/distilbert/fp32.json",)


@pytest.mark.parametrize(
    ("names", "entry"),
    [
        ({"available": 5000}, "quality: {limit: 5000}"),
        ({"available": 100000}, "quality: {limit: 8000}"),
        ({"available": 2000}, "models: {distilbert: {data: {file: FILE_WITH_MORE_ROWS}}}"),
        ({"labelled": False}, "models: {distilbert: {data: {file: FILE_WITH_MORE_ROWS}}}"),
        ({"weights": "random"}, "models: {distilbert: {weights: pretrained}}"),
    ],
)
def test_more_rows_are_asked_of_what_has_them(planted, tmp_path, names, entry):
    maker = StudyMaker(tmp_path)
    cell = maker.add(CPU, "onnxruntime-cpu", "int8", 8, 128)
    cell["quality"] = planted.classified("onnxruntime-cpu", "int8", lost=20, **names)["quality"]
    (cost,) = quality(Measured(collect(maker.plan())))
    assert cost.status == "not decidable" and cost.missing == (entry,)


def test_neighbours_are_looked_for_among_a_fixed_number_of_rows_so_more_rows_decide_nothing(planted, tmp_path):
    maker = StudyMaker(tmp_path)
    cell = maker.add(CPU, "onnxruntime-cpu", "int8", 8, 128)
    cell["quality"] = planted.embedded("onnxruntime-cpu", "int8", 0.07, count=2100)["quality"]
    tables = collect(maker.plan())
    tables.quality[["neighbour_overlap_low", "neighbour_overlap_high"]] = [0.8, 0.95]
    (cost,) = quality(Measured(tables))
    assert cost.status == "not decidable" and cost.missing == ()


def test_the_reference_of_an_onnx_file_is_onnx_runtime():
    plan = {"models": {"distilbert": {"weights": "auto"}, "mine": {"weights": {"onnx": "mine.onnx"}}}}
    assert reference(plan) == (
        "The FP32 reference is FP32 PyTorch on the CPU for distilbert and ONNX Runtime's CPU provider in FP32 for mine "
        "(ONNX files)."
    )
    assert reference(PLAN) == "The FP32 reference is FP32 PyTorch on the CPU."


def test_padding_costs_what_a_real_token_pays_for(study):
    found = {finding.subject: finding for finding in padding(Measured(collect(study.plan())))}
    assert set(found) == {"onnxruntime-cpu fp32 b8-s128.half", "torch-eager fp32 b8-s128.half"}
    computed, extra = (found[f"{runtime} fp32 b8-s128.half"] for runtime in ("onnxruntime-cpu", "torch-eager"))
    assert computed.status == extra.status == "supported"
    assert "with 50% real tokens" in computed.text and "it computes the padding." in computed.text
    assert "A real token costs 2.0" in computed.text.replace("1.9", "2.0")
    assert (
        extra.verdict == "slower" and "pays extra for the mask" in extra.text and "drops a mask of ones" in extra.text
    )


def test_a_study_without_lengths_or_quality_says_nothing_of_them(tmp_path):
    tables = collect(StudyMaker(tmp_path).measure(CPU, [("onnxruntime-cpu", "fp32")], [(1, 128)]).plan())
    measured = Measured(tables)
    assert quality(measured) == padding(measured) == []
    assert section(PLAN, tables) == ""


def test_the_summary_and_the_tables_on_disk_hold_it(study, tmp_path):
    tables = collect(study.plan())
    tables.write(tmp_path / "tables")
    back = read_tables(tmp_path / "tables")
    assert back.quality["metric"].tolist() == ["accuracy", "accuracy"]
    assert back.cells[back.cells["lengths"] == "half"]["real_share"].tolist() == [0.5, 0.5]
    page = observations(study.plan(), back, Evidence(), "plots")
    assert "## Quality" in page and "Padding costs as much as real tokens" in page
    assert "A lower precision costs at most one point of accuracy" in page


def test_tables_of_an_earlier_study_have_no_quality(study, tmp_path):
    collect(study.plan()).write(tmp_path / "tables")
    for name in ("quality.csv", "quality.parquet", "tables.json"):
        (tmp_path / "tables" / name).unlink()
    assert read_tables(tmp_path / "tables").quality.empty


@pytest.mark.parametrize(
    ("quality_of_int8", "short", "why"),
    [
        ({"lost": 200}, "loses quality", "loses quality: accuracy 80.0%"),
        ({"lost": 20}, "quality undecided", "may lose quality, too little data to say: accuracy"),
        ({"lost": 0}, "", ""),
        ({"lost": 200, "weights": "random"}, "quality unknown", "the weights are random"),
        (None, "quality not evaluated", "add `quality: {cells: [onnxruntime-cpu/distilbert/int8]}`"),
    ],
)
def test_a_fast_cell_is_not_recommended_without_a_word_on_its_answers(tmp_path, quality_of_int8, short, why):
    maker = StudyMaker(tmp_path, lambda r, p, b, s: b * (5.0 if p == "int8" else 10.0 if "onnx" in r else 20.0))
    maker.measure(CPU, [("onnxruntime-cpu", "int8"), ("onnxruntime-cpu", "fp32"), ("torch-eager", "fp32")], [(1, 128)])
    if quality_of_int8:
        record = Planted(tmp_path).classified("onnxruntime-cpu", "int8", **quality_of_int8)["quality"]
        maker.cells[0]["quality"] = record
    page = summary(maker.plan(), collect(maker.plan()), Evidence(), "plots")
    row = next(line for line in page.splitlines() if line.startswith("| **distilbert**"))
    assert "`onnxruntime-cpu int8 b1-s128`" in row
    assert [one in row for one in ("quality", short)] == [bool(short), True]
    assert ("**Before you deploy**" in page, why in page) == (bool(short), True)
    assert ("Without what loses quality: " in page and "(onnxruntime-cpu fp32 b1-s128)" in page) == (
        short == "loses quality"
    )
