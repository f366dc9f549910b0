"""What ran in INT8 or FP8: from planted records to the table, the findings and the claims of others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from unit import planted_records

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.analysis.findings import findings
from ceilings.report.analysis.hypotheses import judged
from ceilings.report.analysis.measured import Measured
from ceilings.report.render.notes import summary_table
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import read_tables
from ceilings.report.tables.product_counts import counted

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

GPU, ORT, TENSORRT = planted.GPU, "onnxruntime-cuda", "tensorrt"
BATCHES = (1, 32)


def profile(narrow, wide, quantizers):
    """``runtime`` of a record, as ONNX Runtime's profile makes it."""
    placement = {
        "operators": {"QuantizeLinear": 1, "DequantizeLinear": quantizers - 1} if quantizers else {},
        "int8_products": {"MatMulIntegerToFloat": narrow} if narrow else {},
        "float_products": {"Gemm": wide} if wide else {},
    }
    return {"placement": placement}


ON_ONNXRUNTIME = [
    (profile(0, 50, 198), "0 of 50"),
    (profile(36, 14, 114), "36 of 50"),
    (profile(0, 0, 0), ""),  # the provider ran all of it as one engine
    ({"products": {"fp8": 24, "fp16": 8}}, "24 of 32"),
    ({"placement": None, "placement_unknown": "RuntimeException: no memory"}, ""),
    ({}, ""),
]


def engine(root, digest="ab" * 32, **products):
    """The record of an engine, whose layers compute products in these types."""
    path = root / "results/engines/nvidia-h200/tensorrt11/distilbert/int8/b1-s128.json"
    summary = planted_records.ENGINE["summary"] | {"products": products}
    records.write(path, "engine", planted_records.ENGINE | {"engine_sha256": digest, "summary": summary})
    return str(path)


ON_ENGINE = {"runtime": {"profile": 0}, "provenance": planted_records.PROVENANCE | {"sources": {"artifact": "ab" * 32}}}


def study(root, runtime, factor, /, **record):
    """INT8 at ``factor`` times FP32's latency, at two batches."""

    def truth(_, precision, batch, sequence):
        return float(batch) * (factor if precision == "int8" else 1.0)

    maker = planted.StudyMaker(root, truth, runs=5, between=0.004)
    for batch in BATCHES:
        maker.add(GPU, runtime, "fp32", batch, 128)
        maker.add(GPU, runtime, "int8", batch, 128, **record)
    maker.repeat(GPU, runtime, "fp32", 1, 128)
    return maker


def int8(tables):
    return tables.cells.query("precision == 'int8'").iloc[0]


def question_6(tables):
    (finding,) = [finding for finding in findings(tables) if finding.question == 6]
    return finding


@pytest.mark.parametrize(("runtime", "shown"), ON_ONNXRUNTIME)
def test_the_table_has_what_onnx_runtime_s_profile_says(tmp_path, runtime, shown):
    collect(study(tmp_path, ORT, 1.0, runtime=runtime).plan()).write(tmp_path / "tables")
    tables = read_tables(tmp_path / "tables")
    assert counted(int8(tables)) == shown
    assert not any(counted(row) for row in tables.cells.query("precision == 'fp32'").to_dict("records"))
    told = summary_table({"study": "x", "cells": []}, tables)
    assert ("INT8/FP8 products" in told) == bool(shown) and shown in told and "<NA>" not in told


@pytest.mark.parametrize(
    ("products", "changes", "shown"),
    [
        ({"int8": 26, "fp16": 6}, {}, "26 of 32"),
        ({"fp16": 32}, {}, "0 of 32"),
        ({"fp8": 26, "fp16": 6}, {}, "26 of 32"),
        ({"fp16": 30, "none": 2}, {}, ""),  # of two nobody knows
        ({}, {}, ""),  # the engine says nothing of its layers
        ({"int8": 26}, {"provenance": planted_records.PROVENANCE}, ""),  # another engine was timed
        ({"int8": 26}, {"runtime": {"profile": 1}}, ""),  # another profile ran
    ],
)
def test_the_table_has_what_the_layers_of_the_engine_say(tmp_path, products, changes, shown):
    maker = study(tmp_path, TENSORRT, 1.0, **(ON_ENGINE | changes))
    for cell in maker.cells:
        cell["engine"] = engine(tmp_path, **products)
    assert counted(int8(collect(maker.plan()))) == shown


def test_processes_that_differ_are_not_known(tmp_path):
    maker = study(tmp_path, ORT, 1.0, runtime=profile(0, 50, 198))
    cell = next(cell for cell in maker.cells if cell["precision"] == "int8")
    maker.change(cell, 2, runtime=profile(36, 14, 114))
    assert counted(int8(collect(maker.plan()))) == ""


def test_a_damaged_engine_record_is_named(tmp_path):
    maker = study(tmp_path, TENSORRT, 1.0, **ON_ENGINE)
    path = tmp_path / "x.json"
    path.write_text("{}")
    maker.cells[1]["engine"] = str(path)
    with pytest.raises(UserError, match=r"x\.json is no record of this pipeline .*; delete it and run `snakemake"):
        collect(maker.plan())


def test_without_integer_products_the_findings_name_the_reason(tmp_path):
    finding = question_6(collect(study(tmp_path, ORT, 1.7, runtime=profile(0, 50, 198)).plan()))
    assert finding.status == "refuted"
    assert "None of the 50 matrix products ran in INT8: its 198 Q/DQ nodes are extra work" in finding.text
    assert finding.subject == "onnxruntime-cuda int8 (no product ran in it), batch 1 to 32"


@pytest.mark.parametrize(("narrow", "told"), [(0, "INT8 (no product ran in it)"), (36, "INT8")])
def test_a_lever_is_called_int8_only_where_int8_was_pulled(tmp_path, narrow, told):
    found = findings(collect(study(tmp_path, ORT, 1.7, runtime=profile(narrow, 14, 114)).plan()))
    alone, large = [finding for finding in found if finding.topic == "Levers" and "INT8" in finding.text]
    assert alone.subject == f"{told} on onnxruntime-cuda" and f"**{told}** **1." in alone.text
    assert f"at this larger size {told} **1." in large.text


@pytest.mark.parametrize("runtime", [profile(36, 14, 114), {}])
def test_with_integer_products_or_without_a_record_no_reason_is_claimed(tmp_path, runtime):
    finding = question_6(collect(study(tmp_path, ORT, 1.7, runtime=runtime).plan()))
    assert finding.status == "refuted" and finding.subject == "onnxruntime-cuda int8, batch 1 to 32"
    assert "None of" not in finding.text and "added work" not in finding.text
    assert ("36 of 50 matrix products ran in INT8." in finding.text) == bool(runtime)


def test_a_gain_without_integer_products_is_not_put_down_to_them(tmp_path):
    finding = question_6(collect(study(tmp_path, ORT, 0.6, runtime=profile(0, 50, 198)).plan()))
    assert finding.status == "supported"
    assert "the gain is not from INT8 arithmetic" in finding.text and "added work" not in finding.text


def test_an_engine_without_integer_products_says_so_and_nothing_of_nodes(tmp_path):
    maker = study(tmp_path, TENSORRT, 1.2, **ON_ENGINE)
    for cell in maker.cells:
        cell["engine"] = engine(tmp_path, fp16=32)
    text = question_6(collect(maker.plan())).text
    assert "None of the 32 matrix products ran in INT8, so it gains nothing." in text and "nodes" not in text


def test_shapes_that_differ_are_told_apart(tmp_path):
    maker = study(tmp_path, ORT, 1.7, runtime=profile(0, 50, 198))
    large = next(cell for cell in maker.cells if (cell["precision"], cell["axes"]["batch"]) == ("int8", 32))
    for run in range(1, 6):
        maker.change(large, run, runtime=profile(36, 14, 114))
    finding = question_6(collect(maker.plan()))
    assert "None of the 50 matrix products of onnxruntime-cuda int8 b1-s128 ran in INT8" in finding.text
    assert "36 of 50 matrix products of onnxruntime-cuda int8 b32-s128 ran in INT8." in finding.text
    assert "no product ran in it" not in finding.subject


@pytest.mark.parametrize(
    ("runtime", "verdict"), [(profile(36, 14, 114), "refuted"), ({}, "refuted"), (profile(0, 50, 198), "not decidable")]
)
def test_claims_about_int8_are_held_against_int8_arithmetic_alone(tmp_path, runtime, verdict):
    """Faster at both batches, by less than 4: both claims (6: loses at first; 16: 4 to 8 times) would be refuted."""
    tables = collect(study(tmp_path, ORT, 0.6, runtime=runtime).plan())
    found = {hypothesis.number: judgement for hypothesis, judgement in judged(Measured(tables), Evidence())}
    for number in (6, 16):
        assert found[number].verdict == verdict
        assert verdict == "refuted" or (found[number].missing and "INT8" in found[number].ours)
