"""Advice against planted truths: what is advised, what never is, and ranges that hold the truth."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from ceilings.report.analysis.advice import MOST, NOTHING, Advice, advise
from ceilings.report.analysis.measured import Measured
from ceilings.report.tables.collect import collect

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

CPU, GPU = planted.CPU, planted.GPU


def cpu_truth(runtime, precision, batch, sequence):
    """INT8 takes 0.35 of FP32 on both stacks, and a batch brings nothing."""
    each = {"onnxruntime-cpu": 30.0, "torch-eager": 60.0, "torch-int8-dynamic": 60.0}[runtime.removesuffix(".aa")]
    return each * batch * (0.35 if precision == "int8" else 1.0)


def measured_of(root, cells, truth=cpu_truth, device=CPU, **options) -> Measured:
    """A study of (runtime, precision, batch) at sequence 128, with an A/A pair of the first."""
    maker = planted.StudyMaker(root, truth, **({"between": 0.004, "runs": 5} | options))
    for runtime, precision, batch in cells:
        maker.add(device, runtime, precision, batch, 128)
    maker.repeat(device, *cells[0], 128)
    return Measured(collect(maker.plan()))


def by_lever(found: list[Advice]) -> dict[str, Advice]:
    return {one.lever: one for one in found}


FP32_ONLY = [("onnxruntime-cpu", "fp32", 1), ("torch-eager", "fp32", 1)]


def test_a_precision_that_was_not_measured_is_advised_with_a_range_that_holds_the_truth(tmp_path):
    measured = measured_of(tmp_path, FP32_ONLY)
    advice = by_lever(advise(measured))["int8"]
    assert advice.cell.runtime == "onnxruntime-cpu" and advice.ground == "bounds"
    assert advice.factor[0] < 0.35 < advice.factor[1]
    assert "range from bounds only" in advice.because
    assert advice.cells == ("onnxruntime-cpu/distilbert/int8/b1-s128",)
    sweep = yaml.safe_load(advice.snippet)["sweeps"]["next"]
    assert sweep == {
        "models": ["distilbert"],
        "runtimes": ["onnxruntime-cpu"],
        "precisions": ["int8"],
        "shapes": ["b1-s128"],
    }


def test_a_neighbour_narrows_the_range(tmp_path):
    measured = measured_of(tmp_path, [*FP32_ONLY, ("onnxruntime-cpu", "fp32", 4), ("onnxruntime-cpu", "int8", 4)])
    alone = by_lever(advise(measured_of(tmp_path / "alone", FP32_ONLY)))["int8"]
    advice = by_lever(advise(measured))["int8"]
    assert advice.ground == "neighbour" and advice.factor[0] < 0.35 < advice.factor[1]
    assert advice.factor[1] / advice.factor[0] < 0.5 * alone.factor[1] / alone.factor[0]
    assert f"{CPU}/onnxruntime-cpu/distilbert/int8/b4-s128" in advice.evidence


def test_what_was_measured_or_failed_is_not_advised(tmp_path):
    cells = [*FP32_ONLY, ("onnxruntime-cpu", "int8", 1), ("torch-int8-dynamic", "int8", 1)]
    maker = planted.StudyMaker(tmp_path, cpu_truth, runs=5)
    made = [maker.add(CPU, runtime, precision, batch, 128) for runtime, precision, batch in cells]
    for run in range(1, 6):
        maker.fail(made[-2], run)
    advised = {cell for one in advise(Measured(collect(maker.plan()))) for cell in one.cells}
    assert not advised & {f"{r}/distilbert/{p}/b{b}-s128" for r, p, b in cells}


def test_what_is_missing_is_named_and_comes_last(tmp_path):
    cells = [("onnxruntime-cuda", "fp16", 1), ("onnxruntime-cuda-graph", "fp16", 1)]
    measured = measured_of(tmp_path, cells, lambda *_: 1.0, GPU)
    lacking = {("torch-cudagraph", "distilbert", "fp16"): ("package torch is not installed", "pip install torch")}
    found = advise(measured, lacking)
    assert len(found) <= MOST
    assert all(not one.missing for one in found[:-1])
    assert all("pip install" in one.missing for one in found if one.cells[0].startswith("torch-cudagraph"))


@pytest.mark.parametrize("truth", [cpu_truth])
def test_nothing_left_is_said(tmp_path, truth):
    cells = [
        ("onnxruntime-cpu", "int8", 1),
        ("torch-int8-dynamic", "int8", 1),
        *(("onnxruntime-cpu", "int8", batch) for batch in (4, 16)),
    ]
    (advice,) = advise(measured_of(tmp_path, cells, truth))
    assert advice.lever == NOTHING and advice.cells == () and "change the model or the hardware" in advice.change
