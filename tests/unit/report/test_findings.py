"""The questions of the study against planted answers: both ways, and where nothing can be said."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ceilings.measure.catalogue import STAGES
from ceilings.report.analysis.findings import findings
from ceilings.report.analysis.findings.finding import MARGIN
from ceilings.report.analysis.findings.operating import cost_per_million, pareto
from ceilings.report.analysis.hypotheses import HYPOTHESES, judged
from ceilings.report.analysis.measured import Measured
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import BUDGET_COLUMNS, FLOOR_COLUMNS
from ceilings.report.tables.keys import KEY
from ceilings.runtimes.catalogue import (
    AUTOTUNING,
    COMPILATION,
    FUSION,
    GRAPH,
    IO_BINDING,
    OVERLAP,
    REWRITTEN,
    RUNTIMES,
    STATIC,
)
from ceilings.statistics.quantiles import Interval
from ceilings.study.config import checked

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

CPU, GPU = planted.CPU, planted.GPU
ORT = "onnxruntime-cuda"
LEVERS = [f"{ORT}{end}" for end in ("", "-graph", "-fused", "-fused-graph")]
TENSORRT = ["onnxruntime-tensorrt", "tensorrt"]


def made(root, truth, runtimes, *, precisions=("fp16",), batches=(1,), n=240, price=None, **options):
    """Tables of GPU cells at sequence 128, with an A/A pair of the first."""
    maker = planted.StudyMaker(root, truth, **({"between": 0.004, "runs": 5} | options))
    for runtime in runtimes:
        for precision in precisions:
            for batch in batches:
                maker.add(GPU, runtime, precision, batch, 128, n=n)
    maker.repeat(GPU, runtimes[0], precisions[0], next(iter(batches)), 128, n=n)
    maker.price_per_hour = price or {}
    return collect(maker.plan())


def of(found, question, claim=None):
    return [f for f in found if f.question == question and f.claim and (claim is None or claim in f.claim)]


def statuses(found):
    return {finding.status for finding in found}


def with_budgets(tables, rows):
    """Captures: (runtime, batch, busy time in ms, verdict), of iterations that recording made longer by half."""
    budgets = []
    for runtime, batch, busy, verdict in rows:
        row = dict.fromkeys(BUDGET_COLUMNS) | dict(
            zip(KEY, (GPU, runtime, "distilbert", "fp16", f"b{batch}-s128"), strict=True)
        )
        row |= {"iteration_ms": 1.5, "gpu_busy_ms": busy, "gpu_gemm_ms": busy, "no_host_ms": 1.1 * busy}
        row |= {"verdict": verdict}
        budgets.append(row)
    return dataclasses.replace(tables, budgets=pd.DataFrame(budgets, columns=BUDGET_COLUMNS))


def told(found, topic):
    return " ".join(finding.text for finding in found if finding.topic == topic)


# --- nothing there ---------------------------------------------------------------------------------------------------


@pytest.mark.slow  # many studies of nothing
def test_noise_alone_answers_nothing_in_favour_of_an_effect(tmp_path):
    """Every stack, precision and batch the same an inference: no lever, no winner, no tail, no turn."""
    claims = judged_ = 0
    for seed in range(5):
        tables = made(
            tmp_path / str(seed),
            lambda runtime, precision, batch, sequence: 10.0 * batch,
            [*LEVERS, *TENSORRT],
            precisions=("fp32", "fp16"),
            batches=(1, 8),
            between=0.02,
            runs=4,
            seed=seed,
        )
        found = findings(tables)
        effects = [f for f in found if f.verdict is not None or f.question in {4, 5, 6, 7}]
        judged_ += len(effects)
        claims += sum(f.claims_difference or (f.question in {4, 5, 6, 7} and f.status == "supported") for f in effects)
    assert judged_ > 120
    assert claims / judged_ <= 0.05


# --- levers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("interaction", "word"), [(0.5, "gain more together"), (2.0, "gain less together")])
def test_levers_are_ranked_and_their_interaction_is_found(tmp_path, interaction, word):
    def truth(runtime, precision, batch, sequence):
        graph, fused, half = "graph" in runtime, "fused" in runtime, precision == "fp16"
        return 4.0 * 0.5**graph * 0.8**fused * 0.9**half * interaction ** (graph and half)

    found = findings(made(tmp_path, truth, LEVERS, precisions=("fp32", "fp16")))
    levers = of(found, 5, "A lever")
    assert [f.subject.split(" on ")[0] for f in levers] == [GRAPH, FUSION, "FP16"]
    on_top = {"CUDA graph": 0.5 * interaction, "fusion": 0.8, "FP16": 0.9 * interaction}
    for finding in levers:
        factor = on_top[finding.subject.split(" on ")[0]]
        assert finding.effect.low < factor < finding.effect.high
        assert finding.status == ("supported" if factor < 1 else "refuted")
    (together,) = [f for f in found if f.question == 5 and "all 8 combinations" in f.text]
    assert f"CUDA graph and FP16 {word}" in together.text
    assert "FP16 and fusion (1.0" in together.text or "FP16 and fusion (0.9" in together.text
    assert together.text.count("together") == 1


def test_every_runtime_of_the_catalogue_has_its_recipe():
    """Levers that the catalogue lists are what its options do."""
    for name, spec in RUNTIMES.items():
        if spec.device == "cpu":
            continue
        levers = spec.levers
        options = spec.options
        mode = options.get("mode")
        compiled = mode == "compile" or (spec.stack == "vLLM" and mode == "default")
        graph = options.get("cuda_graph") or mode == "cudagraph" or (spec.stack == "vLLM" and mode == "default")
        graph = graph or options.get("compile_mode") in {"reduce-overhead", "max-autotune"}
        assert (GRAPH in levers) == bool(graph), name
        assert (FUSION in levers) == (spec.artifact in REWRITTEN), name
        assert (COMPILATION in levers) == compiled, name
        assert (OVERLAP in levers) == options.get("overlapped", spec.module == "ceilings_fused"), name
        assert (AUTOTUNING in levers) == (options.get("compile_mode") == "max-autotune"), name
        if spec.module == "onnxruntime_cuda":
            assert (IO_BINDING in levers) == options.get("io_binding", True), name
            assert (STATIC in levers) == (not options.get("dynamic", False)), name


# --- TensorRT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "status"), [(1.0, "supported"), (1.25, "refuted"), (0.8, "refuted")])
def test_native_and_provider_are_equivalent_or_not_and_so_is_the_tail(tmp_path, factor, status):
    def truth(runtime, precision, batch, sequence):
        return {ORT: 2.0, "onnxruntime-tensorrt": 1.0}.get(runtime.removesuffix(".aa"), factor)

    tables = made(tmp_path, truth, [ORT, *TENSORRT], between=0.002, spike=lambda runtime, batch: 0.02)
    found = findings(tables)
    for estimand in ("mean", "p50", "p99"):
        (finding,) = of(found, 2, f"equal in {estimand} within {MARGIN:.0%}")
        assert finding.status == status, finding.text
        assert finding.effect.estimate == pytest.approx(factor, rel=0.03)
    assert statuses(of(found, 2, "TensorRT is faster")) == {"supported"}


def test_equal_medians_with_different_tails_are_equivalent_in_the_median_alone(tmp_path):
    spike = {"tensorrt": 1.0}
    tables = made(tmp_path, lambda *_: 1.0, [ORT, *TENSORRT], spike=lambda r, b: spike.get(r, 0.05), between=0.001)
    found = findings(tables)
    assert statuses(of(found, 2, "equal in p50")) == {"supported"}
    assert statuses(of(found, 2, "equal in p99")) == {"refuted"}
    assert statuses(of(found, 2, "TensorRT is faster")) == {"refuted"}  # the same is not faster


def test_wide_spread_decides_no_equivalence_and_different_versions_are_not_compared(tmp_path):
    tables = made(tmp_path, lambda *_: 1.0, [ORT, *TENSORRT], between=0.08, runs=3)
    wide = of(findings(tables), 2, "equal in p50")
    assert statuses(wide) == {"not decidable"}
    assert wide[0].missing == ("protocol: {processes: 6}",)
    runs = tables.runs.copy()
    version = runs["runtime"].map({"tensorrt": "11.4.0.106"}).fillna("10.16.1.11")
    runs["environment"] = [json.dumps({"packages": {"tensorrt": v}}) for v in version]
    (finding,) = of(findings(dataclasses.replace(tables, runs=runs)), 2, "equal in p50")
    assert finding.status == "not decidable"
    assert "not compared, TensorRT 11.4 against 10.16" in finding.text


# --- host or device --------------------------------------------------------------------------------------------------


def test_the_turn_from_host_to_device_is_where_it_was_planted(tmp_path):
    share = {1: 0.97, 4: 0.95, 16: 0.7, 32: 0.3}
    tables = made(tmp_path, lambda r, p, b, s: 1.0 * b, [ORT], batches=share, enqueue=lambda r, b: share[b])
    (finding,) = of(findings(tables), 4)
    assert finding.status == "supported"
    assert "turns between batch 4 and 32" in finding.text
    for constant, kind in ((0.95, "host-bound"), (0.1, "device-bound")):
        flat = made(tmp_path / kind, lambda r, p, b, s: 1.0, [ORT], batches=share, enqueue=lambda r, b, c=constant: c)
        (finding,) = of(findings(flat), 4)
        assert finding.status == "refuted"
        assert finding.text.startswith(f"{kind} at every size")


def test_the_brief_tells_batch_from_sequence_and_names_the_largest_gain(tmp_path):
    """Over the batch one configuration turns, over the sequence it does not; FP16 gains 1.1 times, then 4 times."""

    def truth(runtime, precision, batch, sequence):
        return 1.0 / ((1.1 if batch == 1 else 4.0) if precision == "fp16" else 1.0)

    maker = planted.StudyMaker(tmp_path, truth, runs=5, between=0.004, enqueue=lambda r, b: 0.95 if b == 1 else 0.1)
    maker.measure(GPU, [(ORT, "fp32"), (ORT, "fp16")], [(1, 16), (1, 128), (32, 128)])
    briefs = [finding.brief for finding in findings(collect(maker.plan()))]
    assert f"{ORT} fp32 turns from host-bound to device-bound between batch 1 and 32." in briefs
    assert f"{ORT} fp32 and {ORT} fp16: host-bound at every measured sequence." in briefs
    assert any(re.fullmatch(rf"{ORT} fp16 is [34]\.\d+× faster than {ORT} fp32 at b32-s128\.", one) for one in briefs)


def test_a_capture_goes_before_the_hosts_share(tmp_path):
    """The share says host-bound throughout; the captures say that the device computes from batch 16 on."""
    tables = made(tmp_path, lambda r, p, b, s: 1.0, [ORT], batches=(1, 16), enqueue=lambda r, b: 0.95)
    captured = with_budgets(tables, [(ORT, 1, 0.4, "launch-bound"), (ORT, 16, 0.95, "kernel-bound")])
    found = findings(captured)
    assert "turns between batch 1 and 16" in of(found, 4)[0].text
    (busy,) = of(found, 1)
    assert busy.status == "refuted"
    assert "Busy from batch 16" in busy.text
    assert busy.effect.estimate == pytest.approx(0.4, rel=0.02)  # of the untraced latency


def test_a_capture_that_is_mixed_is_not_asked_for_again(tmp_path):
    tables = made(tmp_path, lambda r, p, b, s: 1.0, [ORT], batches=(1, 16), enqueue=lambda r, b: 0.7)
    both, one = (
        next(found for found in of(findings(with_budgets(tables, rows)), 4) if found.status)
        for rows in ([(ORT, 1, 0.6, "mixed"), (ORT, 16, 0.7, "mixed")], [(ORT, 1, 0.6, "mixed")])
    )
    assert both.status == one.status == "not decidable" and both.missing == ()
    assert "b16-s128" in one.missing[0] and "b1-s128" not in one.missing[0]


def test_a_busy_share_whose_interval_holds_the_threshold_needs_more_processes(tmp_path):
    tables = made(tmp_path, lambda *_: 1.0, [ORT], between=0.05, runs=3)
    (finding,) = of(findings(with_budgets(tables, [(ORT, 1, 0.9, "kernel-bound")])), 1)
    assert finding.status == "not decidable" and finding.missing == ("protocol: {processes: 6}",)


@pytest.mark.parametrize(("graph", "status"), [(0.4, "refuted"), (0.97, "not decidable")])
def test_a_cuda_graph_bounds_the_busy_share_from_above_only(tmp_path, graph, status):
    tables = made(tmp_path, lambda r, *_: 1.0 * (graph if "graph" in r else 1), [ORT, f"{ORT}-graph"])
    (finding,) = of(findings(tables), 1)
    assert finding.status == status
    assert f"at most {graph:.0%}" in finding.text or "at most 9" in finding.text
    assert bool(finding.missing) == (status == "not decidable")


def test_one_idle_size_refutes_that_the_gpu_is_busy_at_all_sizes(tmp_path):
    """The smallest size has no graph, so nothing is known of it; the next one's graph takes 40% of the time."""
    tables = made(tmp_path, lambda r, p, b, s: 0.4 if "graph" in r else 1.0, [ORT, f"{ORT}-graph"], batches=(1, 4))
    lost = (tables.cells["runtime"] == f"{ORT}-graph") & (tables.cells["batch"] == 1)
    (finding,) = of(findings(dataclasses.replace(tables, cells=tables.cells[~lost])), 1)
    assert finding.status == "refuted"
    assert "Not known at b1-s128" in finding.text


@pytest.mark.parametrize(("cost", "status"), [(1.01, "supported"), (1.6, "refuted")])
def test_layers_stop_mattering_or_do_not(tmp_path, cost, status):
    def truth(runtime, precision, batch, sequence):
        return 1.0 * batch * (1 if "graph" in runtime else 3.0 if batch == 1 else cost)

    (finding,) = of(findings(made(tmp_path, truth, [ORT, f"{ORT}-graph"], batches=(1, 32))), 3)
    assert finding.status == status
    assert ("from b32-s128 on" in finding.text) == (status == "supported")


def test_a_layer_that_costs_less_than_nothing_has_stopped_mattering(tmp_path):
    """At the largest size the graph is the slower one."""

    def truth(runtime, precision, batch, sequence):
        return 1.0 * batch * ((1 if batch == 1 else 1.5) if "graph" in runtime else 3.0 if batch == 1 else 1.0)

    (finding,) = of(findings(made(tmp_path, truth, [ORT, f"{ORT}-graph"], batches=(1, 32))), 3)
    assert finding.status == "supported" and "from b32-s128 on" in finding.text


def test_a_gpu_that_idles_again_at_a_larger_size_is_not_busy_from_there_on(tmp_path):
    tables = made(tmp_path, lambda *_: 1.0, [ORT], batches=(1, 8, 32))
    rows = [(ORT, 1, 0.4, "launch-bound"), (ORT, 8, 0.97, "kernel-bound"), (ORT, 32, 0.5, "launch-bound")]
    (finding,) = of(findings(with_budgets(tables, rows)), 1)
    assert "Busy at b8-s128" in finding.text and "Busy from" not in finding.text


# --- tail ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("with_graph", "status"), [(0.05, "supported"), (1.5, "refuted")])
def test_tail_of_a_cuda_graph_is_judged_by_its_reach_not_by_the_p99(tmp_path, with_graph, status):
    """In both the graph halves the latency, so its p99 falls; the claim is about p99 over p50."""
    tables = made(
        tmp_path,
        lambda r, *_: 0.5 if "graph" in r else 1.0,
        [ORT, f"{ORT}-graph"],
        n=6000,
        spike=lambda r, b: with_graph if "graph" in r else 0.4,
        between=0.002,
    )
    (finding,) = of(findings(tables), 7)
    assert finding.status == status, finding.text


def test_a_tail_within_the_noise_has_nothing_to_tighten(tmp_path):
    """Without the graph p99 lies 4% above the median, less than the noise floor of the ratio: no graph could show a
    gain, so finding none refutes nothing."""
    tables = made(
        tmp_path,
        lambda r, *_: 0.5 if "graph" in r else 1.0,
        [ORT, f"{ORT}-graph"],
        n=6000,
        spike=lambda r, b: 0.2 if r.endswith(".aa") else 1e-6,
        between=0.002,
    )
    (finding,) = of(findings(tables), 7)
    assert finding.status == "not decidable", finding.text
    assert "too short" in finding.text and finding.missing
    graphs = next(ours for hypothesis, ours in judged(Measured(tables), Evidence()) if hypothesis.number == 5)
    assert graphs.verdict == "not decidable"
    assert "the p99 itself falls in 1 of 1" in graphs.ours


def test_a_tail_needs_its_iterations(tmp_path):
    (finding,) = of(findings(made(tmp_path, lambda *_: 1.0, [ORT, f"{ORT}-graph"], n=60)), 7)
    assert finding.status == "not decidable"
    assert finding.missing == ("protocol: {min_iterations: 662}",)


# --- operating points ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("large", "status"), [(0.5, "supported"), (2.0, "refuted")])
def test_one_configuration_for_all_or_one_for_each(tmp_path, large, status):
    """The graph is faster at batch 1; at batch 32 it is ``large`` times the other."""

    def truth(runtime, precision, batch, sequence):
        return (1.0 + 0.1 * batch) * ((0.5 if batch == 1 else large) if "graph" in runtime else 1.0)

    tables = made(tmp_path, truth, [ORT, f"{ORT}-graph"], batches=(1, 32), price={GPU: 3.6})
    (finding,) = of(findings(tables), 8)
    assert finding.status == status
    assert "2 at batch 1 and 32" in finding.text
    kept = pareto(Measured(tables).cells)
    assert [(c.runtime, c.batch) for c in kept] == [(f"{ORT}-graph", 1), (f"{ORT}{'-graph' * (large < 1)}", 32)]


def test_cost_of_a_million_inferences(tmp_path):
    tables = made(tmp_path, lambda *_: 1.0, [ORT], price={GPU: 3.6})
    cost = cost_per_million(Measured(tables).cells[0])
    assert cost.low < 3.6 / 3600 * 1e6 / 1150 < cost.high  # planted: 1.15 inferences a millisecond
    assert any("A million inferences cost" in f.text for f in findings(tables))


def test_what_faster_work_on_the_device_could_gain(tmp_path):
    tables = with_budgets(made(tmp_path, lambda *_: 1.0, [ORT, f"{ORT}-graph"]), [(ORT, 1, 0.3, "launch-bound")])
    row = tables.budgets.iloc[0].to_dict()
    rows = [
        row | {"replayed_ms": 1.01, "no_work_ms": 1.0},
        row | {"runtime": f"{ORT}-graph", "replayed_ms": 1.01, "no_work_ms": 0.3},
    ]
    budgets = dataclasses.replace(tables, budgets=pd.DataFrame(rows, columns=BUDGET_COLUMNS))
    host, device = of(findings(budgets), 5, "Faster kernels")
    assert (host.status, host.subject) == ("refuted", f"{ORT} fp16") and "1.00 of 1.01 ms" in host.text
    assert (device.status, device.subject) == ("supported", f"{ORT}-graph fp16") and "0.300 of 1.01 ms" in device.text
    assert not of(findings(tables), 5, "Faster kernels")  # no replay explains the latency


# --- floor -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("floor_ms", "status"), [(0.08, "refuted"), (0.8, "supported")])
def test_gap_to_the_floor(tmp_path, floor_ms, status):
    tables = made(tmp_path, lambda *_: 1.0, [ORT])
    row = dict.fromkeys(FLOOR_COLUMNS) | dict(zip(KEY, (GPU, ORT, "distilbert", "fp16", "b1-s128"), strict=True))
    row |= {"floor_ms": floor_ms, "limited_by": "memory", "mfu": 0.02}
    tables = dataclasses.replace(tables, floors=pd.DataFrame([row], columns=FLOOR_COLUMNS))
    (finding,) = of(findings(tables), 9)
    assert finding.status == status
    assert finding.effect.estimate == pytest.approx(1 / floor_ms, rel=0.05)
    assert "A capture would show the rest" in finding.text
    (captured,) = of(findings(with_budgets(tables, [(ORT, 1, 0.7, "host-bound")])), 9)
    assert re.search(r"the device works 0\.700 ms of it \((69|70|71)%\): 0\.700 gemm\. Without the host", captured.text)
    assert "at most 0.770 ms would remain" in captured.text


# --- what would decide, and the claims of others ---------------------------------------------------------------------


def test_what_is_missing_are_entries_that_a_study_accepts(tmp_path):
    studies = [
        collect(planted.default_study(tmp_path / "cpu").plan()),
        made(tmp_path / "gpu", lambda *_: 1.0, [ORT, "torch-cuda-eager"], between=0.05, runs=3),
    ]
    entries = {entry for tables in studies for finding in findings(tables) for entry in finding.missing}
    assert len(entries) > 8
    for entry in entries:
        section = yaml.safe_load(entry)
        if entry.startswith("{"):
            study = {"study": "x", "models": {m: {"architecture": "bert"} for m in section["models"]}}
            checked(study | {"sweeps": {"x": section}})
            continue
        checked({"study": "x", "models": {"m": {"architecture": "bert"}}, "sweeps": SWEEP} | section)


def test_no_remedy_names_a_runtime_that_an_onnx_file_cannot_have(tmp_path):
    maker = planted.StudyMaker(tmp_path).measure(CPU, [("onnxruntime-cpu", "fp32")], [(1, 128)])
    plan = maker.plan()
    named = {}
    for kind, weights in (("weights", "auto"), ("file", {"onnx": "mine.onnx"})):
        plan["models"] = {"distilbert": {"weights": weights}}
        tables = collect(plan)
        entries = [entry for finding in findings(tables) for entry in finding.missing]
        entries += [entry for _, one in judged(Measured(tables), Evidence()) for entry in one.missing]
        named[kind] = " ".join(entries)
    assert "torch" in named["weights"] and "torch" not in named["file"].replace("PyTorch", "")
    assert "an ONNX file has no PyTorch runtime" in named["file"] and "onnxruntime-cuda" in named["file"]


SWEEP = {"x": {"models": ["m"], "runtimes": ["torch-eager"], "precisions": ["fp32"], "batches": [1], "sequences": [8]}}


@pytest.mark.parametrize(("small", "large", "expected"), [(1.3, 0.7, "supported"), (0.6, 0.7, "refuted")])
def test_claims_of_others_follow_the_cells(tmp_path, small, large, expected):
    """Dynamic INT8 on a CPU: slower at batch 1 and faster at 16, as claimed; or faster at both."""

    def truth(runtime, precision, batch, sequence):
        return 10.0 * batch * ((small if batch == 1 else large) if precision == "int8" else 1.0)

    maker = planted.StudyMaker(tmp_path, truth, runs=5, between=0.004)
    maker.measure(CPU, [("torch-eager", "fp32"), ("torch-int8-dynamic", "int8")], [(1, 128), (16, 128)])
    maker.repeat(CPU, "torch-eager", "fp32", 1, 128)
    found = judged(Measured(collect(maker.plan())), Evidence())
    verdicts = {hypothesis.number: judgement for hypothesis, judgement in found}
    assert sorted(verdicts) == [*range(1, 19)] == [hypothesis.number for hypothesis in HYPOTHESES]
    assert verdicts[8].verdict == expected
    for judgement in verdicts.values():
        assert judgement.ours or judgement.missing
        assert judgement.verdict != "not decidable" or judgement.missing


def ours(tables, number):
    return next(one for hypothesis, one in judged(Measured(tables), Evidence()) if hypothesis.number == number)


def test_dynamic_int8_is_judged_by_each_model(tmp_path):
    """One model as claimed, the other faster at both ends: two sentences, each with its model."""

    def truth(runtime, precision, batch, size):
        slow = 1.3 if size == 128 else 0.6
        return 10.0 * batch * ((slow if batch == 1 else 0.7) if precision == "int8" else 1.0)

    maker = planted.StudyMaker(tmp_path, truth, runs=5, between=0.004)
    dynamic = [("torch-eager", "fp32"), ("torch-int8-dynamic", "int8")]
    maker.measure(CPU, dynamic, [(1, 128), (16, 128)])
    maker.measure(CPU, dynamic, [(1, 224), (16, 224)], model=planted.IMAGE)
    judgement = ours(collect(maker.plan()), 8)
    assert judgement.verdict == "refuted"
    assert "distilbert: batch 1 **1.3" in judgement.ours and "clip-image: batch 1 **1.6" in judgement.ours


def test_what_is_undecided_refutes_no_claim_that_something_happens(tmp_path):
    """TensorRT's provider may be slower: neither pair is decided, so more processes would decide it."""
    tables = made(
        tmp_path, lambda *_: 1.0, [ORT, "onnxruntime-tensorrt"], precisions=("fp32", "fp16"), between=0.1, runs=3
    )
    judgement = ours(tables, 7)
    assert judgement.verdict == "not decidable" and judgement.missing == ("protocol: {processes: 6}",)


def test_every_claim_that_is_open_says_what_would_decide_it(tmp_path):
    runtimes = [*LEVERS, *TENSORRT, "torch-cuda-eager", "torch-cudagraph"]
    tables = made(tmp_path, lambda *_: 1.0, runtimes, precisions=("fp32", "fp16"), batches=(1, 4), between=0.1, runs=3)
    open_ = [one for _, one in judged(Measured(tables), Evidence()) if one.verdict == "not decidable"]
    assert len(open_) > 6 and all(one.missing for one in open_)


def test_energies_whose_intervals_overlap_are_not_ranked(tmp_path):
    tables = made(tmp_path, lambda *_: 1.0, [ORT, f"{ORT}-graph"], between=0.05, runs=3)
    text = told(findings(tables), "Energy and clocks")
    assert "no difference in energy is shown" in text and "least energy" not in text


@pytest.mark.parametrize(("precision", "verdict"), [("fp32", "refuted"), ("fp16", "not decidable")])
def test_a_claim_about_fp32_is_decided_by_fp32(tmp_path, precision, verdict):
    """TensorRT's provider wins, as claimed; batch 4 takes twice as long as batch 1, in FP32 or in FP16 alone."""

    def truth(runtime, own, batch, sequence):
        return (0.2 if runtime == "onnxruntime-tensorrt" else 1.0) * (2 if batch == 4 else 1)

    maker = planted.StudyMaker(tmp_path, truth, runs=5)
    for runtime, own, batch in sorted(
        {(ORT, "fp32", 1), ("onnxruntime-tensorrt", "fp16", 1), (ORT, precision, 1), (ORT, precision, 4)}
    ):
        maker.add(GPU, runtime, own, batch, 128)
    ours = next(j for hypothesis, j in judged(Measured(collect(maker.plan())), Evidence()) if hypothesis.number == 10)
    assert ours.verdict == verdict, ours.ours


def test_pinned_memory_is_judged_by_the_measured_limits(tmp_path):
    tables = made(tmp_path, lambda *_: 1.0, [ORT])

    def verdict(pinned):
        def peak(rate):
            return {"median": rate, "low": 0.99 * rate, "high": 1.01 * rate}

        peaks = {"h2d_bandwidth.pinned": peak(pinned), "h2d_bandwidth.pageable": peak(10.0)}
        found = judged(Measured(tables), Evidence(peaks={GPU: {"peaks": peaks}}))
        return next(judgement for hypothesis, judgement in found if hypothesis.number == 15)

    assert verdict(25.0).verdict == "supported"
    assert verdict(57.0).verdict == "refuted"
    assert "5.70×" in verdict(57.0).ours


def test_energy_is_told_as_time_times_power(tmp_path):
    tables = made(tmp_path, lambda r, *_: 0.5 if "graph" in r else 1.0, [ORT, f"{ORT}-graph"])
    told = [f.text for f in findings(tables) if f.topic == "Energy and clocks"]
    assert "2.0" in told[0] and "1.00× the power" in told[0]
    assert any("1,700 of 1,980 MHz" in text for text in told)


def test_power_above_the_limit_of_the_card_is_called_what_it_is(tmp_path):
    tables = made(tmp_path, lambda *_: 1.0, [ORT, f"{ORT}-graph"])
    runs = tables.runs

    def told(watts):
        energy = json.dumps({"latency": {"joules_per_inference": 0.1, "mean_watts": watts}})
        gpu = runs["gpu"].map(lambda record: json.dumps({**json.loads(record or "{}"), "power_limit_w": 700.0}))
        found = findings(dataclasses.replace(tables, runs=runs.assign(energy=energy, gpu=gpu)))
        return " ".join(finding.text for finding in found if finding.topic == "Energy and clocks")

    assert "754 W (above the limit of 700 W" in told(754.0)
    assert "650 W" in told(650.0) and "above the limit" not in told(650.0)


def test_precision_is_held_against_the_same_runtime_alone(tmp_path):
    """A CUDA graph's gain is not FP16's: without the graph in FP32 there is nothing to hold its FP16 against."""

    def truth(runtime, precision, *_):
        return (0.2 if "graph" in runtime else 1.0) * (0.9 if precision == "fp16" else 1.0)

    tables = made(tmp_path, truth, [ORT, f"{ORT}-graph"], precisions=("fp32", "fp16"))
    lost = (tables.cells["runtime"] == f"{ORT}-graph") & (tables.cells["precision"] == "fp32")
    for cells, runtimes in ((tables.cells, {ORT, f"{ORT}-graph"}), (tables.cells[~lost], {ORT})):
        found = findings(dataclasses.replace(tables, cells=cells))
        named = {name for finding in found if finding.topic == "Lower precision" for name in finding.cells}
        assert {name.split("/")[1] for name in named} == runtimes


def test_intervals_are_what_findings_carry(tmp_path):
    found = findings(made(tmp_path, lambda *_: 1.0, LEVERS))
    assert all(f.effect is None or isinstance(f.effect, Interval) for f in found)
    assert all(f.cells for f in found if f.status in {"supported", "refuted"})


# --- beyond the steady state -----------------------------------------------------------------------------------------


def test_a_cold_start_is_the_sum_of_all_stages_that_runtimes_have(tmp_path):
    """A stage that the tables do not know would be missing from the time to the first answer."""
    source = Path(__file__).parents[3] / "workflow_scripts/ceilings/runtimes"
    stages = {stage for path in source.glob("*.py") for stage in re.findall(r'\.phase\("(\w+)"\)', path.read_text())}
    assert {"context", "libraries", "capture"} <= stages <= set(STAGES)

    maker = planted.StudyMaker(tmp_path, lambda *_: 1.0)
    stages_ns = dict.fromkeys(("import", "context", "libraries", "load", "first_run"), 100000000)
    for runtime in (ORT, f"{ORT}-graph"):
        maker.add(GPU, runtime, "fp16", 1, 128, cold_start_ns=stages_ns)
    tables = collect(maker.plan())
    earlier = dataclasses.replace(tables, runs=tables.runs.drop(columns=["interpreter_ms", "instrument_ms"]))
    for read in (tables, earlier):
        (told,) = [f.text for f in findings(read) if f.topic == "Cold start"]
        assert f"{ORT} fp16 500 ms" in told


@pytest.mark.parametrize(("enqueue", "bound"), [(0.1, "0.87"), (0.95, None)])
def test_a_queue_bounds_the_work_of_a_device_that_decides(tmp_path, enqueue, bound):
    """Queued, the planted throughput is 1.15 times that of the closed loop; of a host-bound cell this bounds none."""
    tables = made(tmp_path, lambda *_: 1.0, [ORT, f"{ORT}-graph"], enqueue=lambda r, b: enqueue)
    said = told(findings(tables), "Host or device")
    assert ("with requests queued" in said) == (bound is not None)
    assert bound is None or re.search(rf"{bound}\d of (0\.99\d|1\.0\d) ms", said)


def test_levers_are_told_at_the_larger_size_too(tmp_path):
    """At batch 1 the graph halves the latency; at 32 it costs a fifth."""

    def truth(runtime, precision, batch, sequence):
        return (0.5 if batch == 1 else 1.2 * batch) if "graph" in runtime else 1.0 * batch

    said = told(findings(made(tmp_path, truth, [ORT, f"{ORT}-graph"], batches=(1, 32))), "Levers")
    assert re.search(r"b32-s128, onnxruntime-cuda: at this larger size CUDA graph \*\*1\.[12]\d× .* slower\*\*", said)


def test_a_latency_that_does_not_grow_is_not_said_to_grow(tmp_path):
    maker = planted.StudyMaker(tmp_path, lambda *_: 1.0, runs=5, between=0.004, enqueue=lambda r, b: 0.95)
    maker.measure(GPU, [(ORT, "fp16")], [(1, 16), (1, 128), (1, 512)])
    said = told(findings(collect(maker.plan())), "Sequence length")
    assert "32 times the tokens" in said and "grows" not in said
    assert "It is host-bound at each of these sizes" in said


def test_the_spread_of_processes_is_told_by_what_decides_the_latency(tmp_path):
    maker = planted.StudyMaker(tmp_path, lambda *_: 1.0, runs=5, enqueue=lambda r, b: 0.1 if "graph" in r else 0.95)
    for runtime, maker.between in ((ORT, 0.1), (f"{ORT}-graph", 0.001)):
        maker.add(GPU, runtime, "fp16", 1, 128)
    maker.repeat(GPU, f"{ORT}-graph", "fp16", 1, 128)
    said = told(findings(collect(maker.plan())), "Noise")
    host, device = map(float, re.findall(r"([\d.]+)% in the median of 1 \S+ cells", said))
    assert host > 10 * device
    assert "The A/A pair is device-bound" in said


def test_a_start_that_compiles_is_not_averaged_with_those_that_find_it_compiled(tmp_path):
    maker = planted.StudyMaker(tmp_path, lambda *_: 1.0)
    cell = maker.add(GPU, "torch-compile", "fp16", 1, 128)
    for run, seconds in ((1, 40), (2, 10), (3, 10)):
        cache = "cold" if run == 1 else "warm: 1 graphs came from it"
        stages = {"import": 10**9, "compile": (seconds - 1) * 10**9}
        maker.change(cell, run, cold_start_ns=stages, runtime={"compile_cache": cache})
    said = told(findings(collect(maker.plan())), "Cold start")
    assert "40.0 s [one process" in said and "; 10.0 s [10.0, 10.0] with what the first process compiled" in said
