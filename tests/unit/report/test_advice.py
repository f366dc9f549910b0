"""Advice against planted truths: what is advised, what never is, and ranges that hold the truth."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ceilings.report.analysis.advice import MOST, NOTHING, PROCESSES, Advice, advise, snippet
from ceilings.report.analysis.change_bounds import LEAST
from ceilings.report.analysis.changes import Place
from ceilings.report.analysis.forecast import forecast
from ceilings.report.analysis.machine import Machine
from ceilings.report.analysis.measured import Measured
from ceilings.report.render.next_page import next_page, to_predict
from ceilings.report.render.prediction_section import gain, speedup
from ceilings.report.tables.collect import collect
from ceilings.report.tables.frames import BUDGET_COLUMNS
from ceilings.report.tables.keys import KEY
from ceilings.runtimes.catalogue import GRAPH, RUNTIMES
from ceilings.study.config import checked

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

CPU, GPU = planted.CPU, planted.GPU
STUDY = {
    "study": "s",
    "models": {"m": {"architecture": "distilbert"}},
    "sweeps": {"one": {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1]}},
}


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


def test_another_stack_may_be_several_times_slower_and_is_still_worth_a_try(tmp_path):
    """Of a tiny model eager PyTorch was measured to take 5.3 times as long."""
    cells = [("onnxruntime-cpu", "fp32", 1), ("onnxruntime-cpu-fused", "fp32", 1)]  # else fusion is advised before it
    measured = measured_of(tmp_path, cells, lambda runtime, *_: 1.2 if runtime == "onnxruntime-cpu-fused" else 1.0)
    advice = by_lever(advise(measured))["stack"]
    assert advice.factor[1] > 5.6 and advice.to_measure


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


def test_a_snippet_is_yaml_whatever_a_model_is_called(tmp_path):
    shape = measured_of(tmp_path, FP32_ONLY).cells[0].shape
    for name in ("distilbert", "12", "1e3", "on"):
        sweep = yaml.safe_load(snippet(name, Place("onnxruntime-cpu", "int8", shape)))["sweeps"]["next"]
        assert sweep["models"] == [name] and sweep["shapes"] == ["b1-s128"]


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


def test_a_batch_that_failed_is_not_advised(tmp_path):
    maker = planted.StudyMaker(tmp_path, lambda r, p, batch, s: 1 + 0.1 * batch)
    maker.measure(GPU, [("onnxruntime-cuda", "fp16")], [(1, 128), (8, 128)])
    assert by_lever(advise(Measured(collect(maker.plan()))))["batch"].short == "batch 32"
    failed = maker.add(GPU, "onnxruntime-cuda", "fp16", 32, 128)
    for run in (1, 2, 3):
        maker.fail(failed, run)
    assert "batch" not in by_lever(advise(Measured(collect(maker.plan()))))


@pytest.mark.parametrize(
    ("factor", "ground", "long", "short"),
    [
        ((0.25, 0.5), "neighbour", "2.00 to 4.00× faster", "speed-up 2.00 to 4.00×"),
        ((0.25, 1.25), "neighbour", "between 1.25× slower and 4.00× faster", "speed-up 0.800 to 4.00×"),
        ((0.25, 1.25), "bounds", "between 1.25× slower and 4.00× faster", "speed-up at most 4.00×"),
        ((LEAST, 2.0), "bounds", "gain unknown; up to 2.00× slower", "speed-up unknown"),
        ((1.25, 2.0), "budget", "1.25 to 2.00× slower", "speed-up 0.500 to 0.800×"),
    ],
)
def test_a_range_in_words(tmp_path, factor, ground, long, short):
    one = dataclasses.replace(advise(measured_of(tmp_path, FP32_ONLY))[0], factor=factor, ground=ground, lever="int8")
    assert (gain(one), speedup(one)) == (long, short)


def test_what_is_missing_is_named_and_comes_last(tmp_path):
    cells = [("onnxruntime-cuda", "fp16", 1), ("torch-cuda-eager", "fp16", 1)]
    measured = measured_of(tmp_path, cells, lambda runtime, *_: 1.0 if "onnx" in runtime else 2.0, GPU)
    here = advise(measured, Machine(frozenset({GPU})))
    assert len(here) == MOST and not any(one.missing for one in here)
    assert [one.lever for one in here].count("stack") <= 1
    first, why = here[0].cells[0], "it is not installed; install it"
    runtime, model, precision, _ = first.split("/")
    found = advise(measured, Machine(frozenset({GPU}), {(runtime, model, precision): why}))
    assert first not in {cell for one in found for cell in one.cells}  # others come first, and there are enough of them
    every = {(name, model, p): why for name, one in RUNTIMES.items() for p in one.precisions}
    found = advise(measured, Machine(frozenset({GPU}), every))
    assert found and all(one.missing == why and not one.to_measure for one in found)
    elsewhere = advise(measured, Machine(frozenset({CPU})))
    assert elsewhere and all(one.missing == f"measure it on a machine with {GPU}" for one in elsewhere)


def test_without_a_machine_the_study_says_what_it_could_not_run(tmp_path):
    maker = planted.StudyMaker(tmp_path, lambda runtime, *_: 1.2 if "operator" in runtime else 1.0, runs=3)
    maker.add(GPU, "onnxruntime-cuda-fused", "fp16", 1, 128)
    maker.add(GPU, "onnxruntime-cuda-operator", "fp16", 1, 128)  # measured: its place among the advice is free
    maker.unavailable("onnxruntime-cuda-fused-graph", "fp16", 1, 128, "it is not installed", "install it", GPU)
    found = advise(Measured(collect(maker.plan())))
    assert by_lever(found)[GRAPH].missing == "it is not installed; install it"


def test_a_batch_is_advised_per_inference_and_never_beyond_what_the_model_takes(tmp_path):
    def free(runtime, precision, batch, sequence):
        return (1.0 + 0.01 * batch) * (1.2 if runtime == "onnxruntime-cpu-fused" else 1.0)

    cells = [("onnxruntime-cpu", "fp32", 1), ("onnxruntime-cpu-fused", "fp32", 1)]  # else fusion is advised before it
    measured = measured_of(tmp_path, cells, free)
    advice = by_lever(advise(measured))["batch"]
    assert advice.per_inference and advice.cells == ("onnxruntime-cpu/distilbert/fp32/b4-s128",)
    assert advice.factor[0] < free("", "", 4, 0) / free("", "", 1, 0) / 4 < advice.factor[1]
    assert advice.factor[0] == pytest.approx(0.95 / 4) and "(medians of equal work differ by 5%)" in advice.because
    limited = Machine(frozenset({CPU}), largest={("distilbert", "batch"): 2})
    assert by_lever(advise(measured, limited))["batch"].cells[0].endswith("b2-s128")
    fixed = Machine(frozenset({CPU}), largest={("distilbert", "batch"): 1})
    assert "batch" not in by_lever(advise(measured, fixed))


def test_smaller_batches_of_a_cell_bound_a_larger_one(tmp_path):
    def grows(runtime, precision, batch, sequence):
        return 1.0 + 0.5 * batch

    measured = measured_of(tmp_path, [("onnxruntime-cpu", "fp32", batch) for batch in (1, 4, 16)], grows)
    advice = by_lever(advise(measured)).get("batch")
    base = measured.cells[-1]
    range_ = forecast(measured, base, Place("onnxruntime-cpu", "fp32", base.shape.with_sizes(batch=64)))
    assert range_.low < grows("", "", 64, 0) / grows("", "", 16, 0) / 4 < range_.high
    assert range_.ground == "neighbour" and range_.low > 0.8
    assert "from batch 4 to 16 each further input took 0." in range_.because
    assert advice is None  # not worth measuring


def test_a_cuda_graph_is_bounded_by_the_host_and_by_a_budget(tmp_path):
    cells = [("onnxruntime-cuda", "fp16", 1)]
    measured = measured_of(tmp_path, cells, lambda *_: 1.0, GPU, enqueue=lambda runtime, batch: 0.4)
    before = measured.cells[0]
    target = Place("onnxruntime-cuda-graph", "fp16", before.shape)
    by_host = forecast(measured, before, target)
    assert by_host.ground == "bounds" and by_host.low == pytest.approx(0.95 * 0.6, rel=0.02)
    row = dict.fromkeys(BUDGET_COLUMNS) | dict(zip(KEY, before.key, strict=True))
    row |= {"gpu_busy_ms": 0.3, "no_host_ms": 0.5, "no_work_ms": 0.9, "gpu_gemm_ms": 0.2, "gpu_attention_ms": 0.0}
    captured = Measured(dataclasses.replace(measured.tables, budgets=pd.DataFrame([row])))
    by_budget = forecast(captured, before, target)
    assert by_budget.ground == "budget" and by_budget.width < 2
    assert by_budget.low < 0.4 < by_budget.high
    # Kernels that take no time would leave 0.9 ms: a lower precision has nothing to gain.
    lower = forecast(captured, before, Place("onnxruntime-cuda", "int8", before.shape))
    assert lower.low > 0.85


def test_a_precision_gains_nothing_where_the_host_makes_the_latency(tmp_path):
    cells = [("onnxruntime-cuda", "fp32", 1)]
    measured = measured_of(tmp_path, cells, lambda *_: 1.0, GPU, enqueue=lambda runtime, batch: 0.98)
    lower = forecast(measured, measured.cells[0], Place("onnxruntime-cuda", "fp16", measured.cells[0].shape))
    assert lower.low > 0.7 and "the host submits for" in lower.because


def test_quantised_products_that_run_in_floats_are_never_advised(tmp_path):
    cells = [("onnxruntime-cuda-graph", "fp16", 1)]
    found = advise(measured_of(tmp_path, cells, lambda *_: 1.0, GPU))
    assert "int8" not in by_lever(found)


def test_noise_between_two_measured_cells_asks_for_more_processes(tmp_path):
    cells = [("onnxruntime-cpu", "int8", 1), ("torch-int8-dynamic", "int8", 1)]
    measured = measured_of(tmp_path, cells, lambda *_: 10.0, between=0.15, runs=3)
    advice = by_lever(advise(measured))[PROCESSES]
    assert yaml.safe_load(advice.snippet) == {"protocol": {"processes": 6}}
    assert len(advice.cells) == 2 and not advice.to_measure
    page = next_page({"protocol": checked(STUDY)["protocol"]}, measured, [advice], planned=False)
    assert advice.because in page and "Expected" not in page and "faster)" not in page  # noise is no gain to expect


def test_nothing_left_is_said(tmp_path):
    cells = [("onnxruntime-cpu", "int8", 1), ("torch-int8-dynamic", "int8", 1)]
    cells += [("onnxruntime-cpu", "int8", batch) for batch in (4, 16)]
    (advice,) = advise(measured_of(tmp_path, cells))
    assert advice.lever == NOTHING and advice.cells == () and "change the model or the hardware" in advice.change


@pytest.mark.parametrize(("again", "short"), [(1.0, "batch 64"), (1.4, "hidden by noise")])
def test_nothing_left_is_not_said_where_only_noise_hides_it(tmp_path, again, short):
    """A larger batch brings something; the A/A pair differs by nothing, or by more than that."""

    def truth(runtime, precision, batch, sequence):
        each = (12.0 + batch) * (1.0 if runtime.startswith("onnx") else 9.0)
        return each * (again if runtime.endswith(".aa") else 1.0)

    cells = [("onnxruntime-cpu", "int8", batch) for batch in (1, 4, 16)] + [("torch-int8-dynamic", "int8", 1)]
    first = advise(measured_of(tmp_path, cells, truth))[0]
    assert (first.short, first.lever == NOTHING) == (short, again > 1)
    assert ("end other work" in first.change and "the noise (it counts as 25% at most)" in first.because) == (again > 1)


def test_the_page_proposes_and_the_recorded_predictions_are_those_of_the_page(tmp_path):
    measured = measured_of(tmp_path, FP32_ONLY)
    plan = planted.StudyMaker(tmp_path).plan() | {
        "protocol": checked({**STUDY, "protocol": {"processes": 3}})["protocol"]
    }
    found = advise(measured)
    page = next_page(plan, measured, found, planned=True)
    assert "snakemake --cores 1 results/next.md --config next=run" in page
    assert [one["cell"] for one in to_predict(found)] == [one.cells[0] for one in found if one.to_measure]
    for one in found:
        assert one.because in page and one.snippet in page
    assert "not recorded yet" in next_page(plan, measured, found, planned=False)
