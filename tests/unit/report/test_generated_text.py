"""Models that generate: their findings against planted answers, both ways, and their pages as a reader sees them."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ceilings.errors import UserError
from ceilings.report import text
from ceilings.report.analysis.advice import advise
from ceilings.report.analysis.findings import findings
from ceilings.report.analysis.findings.abstraction import RUNTIMES_TOPIC
from ceilings.report.analysis.findings.finding import NO_GENERATION, sweep_entry
from ceilings.report.analysis.findings.generation_stacks import GRAPHS, REGIMES, SCHEDULER
from ceilings.report.analysis.findings.token_costs import BATCHING, CONTEXT
from ceilings.report.analysis.hypotheses import judged
from ceilings.report.analysis.measured import Measured
from ceilings.report.render import plots
from ceilings.report.render.decision_table import expected
from ceilings.report.render.generation_section import ITERATION, generated
from ceilings.report.render.notes import observations, summary_table
from ceilings.report.render.page import page
from ceilings.report.render.summary import summary
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import BUDGET_COLUMNS
from ceilings.report.tables.keys import KEY
from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.statistics.quantiles import Interval
from ceilings.study.config import checked
from ceilings.workload.shape import Shape

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

GPU, MODEL = planted.GPU, planted.DECODER
EAGER, CAPTURED = "torch-cuda-eager", "torch-cudagraph"
FUSED, FUSED_CAPTURED = "onnxruntime-cuda-fused", "onnxruntime-cuda-fused-graph"
SCHEDULED, COMPILED = "vllm", "vllm-compile"
STEP_MS = {EAGER: 6.5, CAPTURED: 1.45, FUSED: 2.2, FUSED_CAPTURED: 1.1, SCHEDULED: 1.5, COMPILED: 3.5}
WEIGHTS, CACHE_PER_TOKEN = 710_000_000, 98_304


def truth(runtime, precision, batch, prompt, generated):
    """A step costs its launches and a little for each row; a prefill its launches and every token."""
    fixed = STEP_MS[runtime.removesuffix(".aa")]
    return fixed * (1 + 0.01 * batch) if generated > 1 else fixed + 0.2 * batch * prompt / 128


def same(runtime, precision, batch, prompt, generated):
    return 2.0


def made(
    root, truth=truth, *, runtimes=tuple(STEP_MS), batches=(1, 8, 64), prompts=(128,), generated=(128, 1), **options
):
    maker = planted.StudyMaker(root, truth, **({"between": 0.003, "runs": 5} | options))
    for runtime in runtimes:
        for tokens in generated:
            for prompt in prompts:
                for batch in batches:
                    maker.add(GPU, runtime, "fp16", batch, (prompt, tokens), n=120, model=MODEL)
    maker.repeat(GPU, runtimes[0], "fp16", batches[0], (prompts[0], generated[0]), n=120, model=MODEL)
    return maker


def bounded(maker):
    """Floors of bytes for decode steps, of computing for prefills, with the bytes of weights and cache."""
    for cell in maker.cells:
        if cell["aa_of"]:
            continue
        batch, prompt, generated = cell["axes"].values()
        cache = CACHE_PER_TOKEN * batch * (prompt + (generated - 2) // 2 + 1) if generated > 1 else 0
        floor = (WEIGHTS + cache) / 3e9 if generated > 1 else 0.1 * batch * prompt / 128
        path = maker.bound(cell, floor, "dram" if generated > 1 else "compute")
        record = json.loads(path.read_text())
        record["work"] |= {"weight_bytes": WEIGHTS, "cache_bytes": cache}
        planted.planted_records.overwrite(path, {k: v for k, v in record.items() if k != "digest"})
    return maker


def about(tables, topic):
    return [finding for finding in findings(tables) if finding.topic == topic]


def captured(tables, rows):
    """Captures: (runtime, shape, other columns of the budget)."""
    budgets = [
        dict.fromkeys(BUDGET_COLUMNS) | dict(zip(KEY, (GPU, runtime, MODEL, "fp16", shape), strict=True)) | values
        for runtime, shape, values in rows
    ]
    return dataclasses.replace(tables, budgets=pd.DataFrame(budgets, columns=BUDGET_COLUMNS))


# --- findings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("each", "status", "says"),
    [
        (0.0, "supported", "free up to batch 64"),
        (0.02, "refuted", r"At batch 8 it costs time: \*\*1.1"),
        (0.0015, "refuted", "free up to batch 8"),
    ],
)
def test_batching_is_free_up_to_the_batch_that_was_planted(tmp_path, each, status, says):
    def truth(runtime, precision, batch, prompt, generated):
        return 1.0 + each * (batch - 1)

    (finding,) = about(collect(made(tmp_path, truth, runtimes=[CAPTURED]).plan()), BATCHING)
    assert finding.status == status
    assert re.search(says, finding.text)
    times = 1.0 + each * 63
    assert finding.effect.low <= times * 1.03 and finding.effect.high >= times / 1.03
    more = re.search(r"tokens/s at batch 64, ([\d.]+)×", finding.text)
    assert float(more[1]) == pytest.approx(64 / times, rel=0.03)


def test_noise_makes_batching_neither_free_nor_dear(tmp_path):
    tables = collect(made(tmp_path, same, runtimes=[CAPTURED], between=0.3, runs=3).plan())
    (finding,) = about(tables, BATCHING)
    assert finding.status == "not decidable" and finding.undecided_by_noise and not finding.brief
    assert finding.missing == ("protocol: {processes: 6}",)


@pytest.mark.parametrize(("longer", "again"), [(1.08, 1.4), (1.05, 1.0)])
def test_what_may_be_longer_than_the_margin_is_not_called_free(tmp_path, longer, again):
    """8% are the same within the noise of a machine whose pair differs by 40%; 5% are slower, and maybe within 5%."""

    def truth(runtime, precision, batch, prompt, generated):
        return (again if runtime.endswith(".aa") else 1.0) * (longer if batch > 1 else 1.0)

    (finding,) = about(collect(made(tmp_path, truth, runtimes=[CAPTURED]).plan()), BATCHING)
    assert finding.status == "not decidable" and not finding.brief and "free up to" not in finding.text


def test_one_process_claims_nothing(tmp_path):
    """Of anything that was compared: floors are counted and need no interval."""
    for finding in findings(collect(made(tmp_path, runs=1, prompts=(128, 512)).plan())):
        if finding.topic.startswith("Generation"):
            assert finding.status == "not decidable", finding
            assert finding.verdict in {None, "undecided"}
            assert not finding.brief


def test_what_was_not_measured_is_asked_for(tmp_path):
    tables = collect(made(tmp_path, runtimes=[EAGER], batches=(1,), generated=(128,)).plan())
    asked = {finding.topic: finding.missing for finding in findings(tables) if finding.topic.startswith("Generation")}
    assert asked[BATCHING] == (
        f"{{models: [{MODEL}], runtimes: [{EAGER}], precisions: [fp16], batches: [1, 8, 64], "
        "axes: {prompt: [128], generated: [128]}}",
    )
    assert "prompt: [512]" in asked[CONTEXT][0]
    assert CAPTURED in asked[GRAPHS][0]


def test_every_entry_that_is_asked_for_is_one_that_a_study_accepts(tmp_path):
    tables = collect(made(tmp_path, runtimes=[EAGER], batches=(1,), generated=(128,)).plan())
    for finding in findings(tables):
        for entry in finding.missing:
            if not entry.startswith("{"):
                continue
            sweep = yaml.safe_load(entry)
            models = {name: {"architecture": "bert"} for name in sweep["models"]}
            checked({"study": "s", "models": models, "sweeps": {"next": sweep}})
            for runtime in sweep["runtimes"]:
                assert RUNTIMES[runtime].generator, f"{finding.topic} asks for {runtime}, which generates nothing"
            for precision in sweep["precisions"]:
                able = [
                    name
                    for name in sweep["runtimes"]
                    if precision in {*RUNTIMES[name].precisions} & {*RUNTIMES[name].generates}
                ]
                assert able, f"{finding.topic} asks for {precision}, in which nothing generates"


@pytest.mark.parametrize(
    ("runtimes", "precisions", "asked"),
    [
        (["onnxruntime-cpu"], ("fp32", "int8"), None),  # one side of a comparison decides nothing
        (["onnxruntime-cpu"], ("int8",), None),
        (["onnxruntime-cuda"], ("fp32", "fp16", "int8"), ["fp32", "fp16"]),
        (["torch-eager"], None, ["fp32"]),
        (["onnxruntime-cuda", "onnxruntime-tensorrt"], ("fp16",), None),
        (["onnxruntime-cuda", "torch-cuda-eager", "onnxruntime-tensorrt"], ("fp16",), ["fp16"]),
    ],
)
def test_no_sweep_asks_for_precisions_in_which_nothing_generates(tmp_path, runtimes, precisions, asked):
    measured = Measured(collect(made(tmp_path, runtimes=[EAGER], batches=(1,), generated=(128,)).plan()))
    entry = sweep_entry(measured, runtimes, precisions)
    assert (entry == NO_GENERATION) if asked is None else (yaml.safe_load(entry)["precisions"] == asked)


@pytest.mark.parametrize(
    ("runtimes", "asked"),
    [
        (["vllm", "onnxruntime-tensorrt"], None),  # each takes one kind of model, and never both the same
        (["vllm", "torch-cuda-eager", "onnxruntime-tensorrt"], ["vllm", "torch-cuda-eager", "onnxruntime-tensorrt"]),
        (["vllm", "torch-cuda-eager"], ["vllm", "torch-cuda-eager"]),
    ],
)
def test_runtimes_that_run_no_model_of_both_are_no_comparison(tmp_path, runtimes, asked):
    maker = made(tmp_path, lambda *_: 2.0, runtimes=(EAGER,), batches=(1,))
    maker.measure(GPU, [(EAGER, "fp16")], [(1, 128)])
    entry = sweep_entry(Measured(collect(maker.plan())), runtimes, ("fp16",))
    assert (entry == NO_GENERATION) if asked is None else (yaml.safe_load(entry)["runtimes"] == asked)


@pytest.mark.parametrize(("gain", "status"), [(4.0, "supported"), (0.8, "refuted"), (1.0, "not decidable")])
def test_what_a_cuda_graph_buys_each_phase(tmp_path, gain, status):
    def truth(runtime, precision, batch, prompt, generated):
        return (4.0 if generated > 1 else 9.0) / (gain if runtime == CAPTURED and generated > 1 else 1.0)

    tables = collect(made(tmp_path, truth, runtimes=[EAGER, CAPTURED]).plan())
    decode, prefill = about(tables, GRAPHS)
    # That two are equal may be shown or not, but never that one is faster.
    assert decode.status == status or (gain == 1.0 and decode.status == "refuted")
    assert prefill.status != "supported"
    assert decode.effect.estimate == pytest.approx(1 / gain, rel=0.03)
    assert "a decode step" in decode.claim and "a prefill" in prefill.claim
    assert all("-g128" in name for name in decode.cells) and all("-g1" in name[-3:] for name in prefill.cells)


def test_the_step_is_held_against_its_floor(tmp_path):
    tables = collect(bounded(made(tmp_path)).plan())
    decode = next(one for one in about(tables, GRAPHS) if "PyTorch, a decode step" in one.text)
    floor = (WEIGHTS + CACHE_PER_TOKEN * 192) / 3e9
    gap = float(re.search(r"still ([\d.]+)×", decode.text)[1])
    assert gap == pytest.approx(truth(CAPTURED, "fp16", 1, 128, 128) / floor, rel=0.02)


def test_the_context_at_which_the_cache_outweighs_the_weights_is_computed_from_their_bytes(tmp_path):
    tables = collect(bounded(made(tmp_path, batches=(1, 64))).plan())
    computed = next(one for one in about(tables, CONTEXT) if "computed" in one.text)
    contexts = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) tokens at batch", computed.text)]
    for context, batch in zip(contexts, (1, 64), strict=True):  # the first at which it does
        assert (context - 1) * batch * CACHE_PER_TOKEN <= WEIGHTS < context * batch * CACHE_PER_TOKEN
    assert computed.status == "supported"  # 192 tokens of 64 rows are more than 710 MB
    assert re.search(
        r"tokens at batch 1 \(beyond the [\d,]+ that were measured\) and [\d,]+ tokens at batch 64 on", computed.text
    )
    small = collect(bounded(made(tmp_path / "small", batches=(1,))).plan())
    assert next(one for one in about(small, CONTEXT) if "computed" in one.text).status == "refuted"


@pytest.mark.parametrize(("grown", "status"), [(3.0, "supported"), (1.5, "refuted"), (1.0, "refuted")])
def test_a_step_that_doubles_with_the_context_is_one_that_the_context_bounds(tmp_path, grown, status):
    def truth(runtime, precision, batch, prompt, generated):
        return 1.0 * (grown if prompt > 128 else 1.0)

    tables = collect(made(tmp_path, truth, runtimes=[CAPTURED], batches=(1,), prompts=(128, 896)).plan())
    tables = captured(tables, [(CAPTURED, "b1-p896-g128", {"gpu_attention_ms": 0.6, "gpu_gemm_ms": 0.4})])
    (finding,) = about(tables, CONTEXT)
    assert finding.status == status
    assert "0.600 ms, more than the 0.400 ms of the other products, with 959 tokens" in finding.text
    assert ("brief" if finding.brief else "") == ("brief" if grown > 1 else "")


def test_a_context_within_the_noise_is_not_decided(tmp_path):
    tables = collect(
        made(tmp_path, same, runtimes=[CAPTURED], batches=(1,), prompts=(128, 896), between=0.5, runs=3).plan()
    )
    (finding,) = about(tables, CONTEXT)
    assert finding.status == "not decidable" and finding.missing


@pytest.mark.parametrize(
    ("alone", "together", "status"), [(1.5, 0.5, "supported"), (0.5, 0.5, "refuted"), (1.5, 1.5, "refuted")]
)
def test_what_a_scheduler_costs_alone_and_buys_together(tmp_path, alone, together, status):
    def truth(runtime, precision, batch, prompt, generated):
        factor = (alone if batch == 1 else together) if runtime == SCHEDULED else 1.0
        return 2.0 * factor * (0.9 if runtime == CAPTURED else 1.0)  # this is the fastest of the others

    tables = collect(
        made(tmp_path, truth, runtimes=[FUSED_CAPTURED, CAPTURED, SCHEDULED], batches=(1, 64), generated=(128,)).plan()
    )
    parts = {"host_framework_ms": 0.8, "host_launch_ms": 0.1, "host_copy_ms": 0.1, "host_sync_ms": 1.0}
    tables = captured(tables, [(SCHEDULED, "b1-p128-g128", {"iteration_ms": 2.0} | parts)])
    (finding,) = about(tables, SCHEDULER)
    assert finding.status == status
    assert finding.effect.estimate == pytest.approx(alone / 0.9, rel=0.03)
    assert f"than {CAPTURED} fp16" in finding.text and f"than {FUSED_CAPTURED}" not in finding.text
    assert "the host works for 50% at batch 1" in finding.text


def test_a_scheduler_is_not_judged_alone(tmp_path):
    tables = collect(made(tmp_path, runtimes=[SCHEDULED], generated=(128,)).plan())
    (finding,) = about(tables, SCHEDULER)
    assert finding.status == "not decidable" and CAPTURED in finding.missing[0]


def test_a_sweep_for_decode_steps_has_some_where_the_study_has_prefills_alone(tmp_path):
    tables = collect(made(tmp_path, runtimes=[CAPTURED], generated=(1,)).plan())
    (finding,) = about(tables, SCHEDULER)
    assert "generated: [32]" in finding.missing[0]


def test_prefill_and_decode_are_two_regimes_with_two_floors(tmp_path):
    tables = collect(bounded(made(tmp_path)).plan())
    (finding,) = about(tables, REGIMES)
    assert finding.status == "supported"
    assert finding.claim.startswith("The floor of a prefill")  # cells far above their floors are limited by neither
    assert "set by the matrix rate" in finding.text and "set by device memory" in finding.text
    best = truth(FUSED_CAPTURED, "fp16", 1, 128, 128)
    assert finding.effect.estimate == pytest.approx(best / ((WEIGHTS + CACHE_PER_TOKEN * 192) / 3e9), rel=0.02)
    (unknown,) = about(collect(made(tmp_path / "no_floor").plan()), REGIMES)
    assert unknown.status == "not decidable" and not unknown.cells
    (half,) = about(collect(bounded(made(tmp_path / "half", runtimes=[CAPTURED], generated=(128,))).plan()), REGIMES)
    assert half.status == "not decidable" and "generated: [1]" in half.missing[0]


def test_no_finding_compares_a_prefill_with_a_decode_step(tmp_path):
    """But the one that says that they differ. The levers too pair by shape; lists of cells compare nothing."""
    tables = collect(bounded(made(tmp_path, prompts=(128, 512))).plan())
    for finding in findings(tables):
        phases = {name.endswith("-g1") for name in finding.cells}
        assert len(phases) < 2 or finding.effect is None or finding.topic == REGIMES, finding
        assert "generated 1 to 128" not in finding.text and "generated^" not in finding.text


def test_a_study_of_encoders_has_no_word_of_generation(tmp_path):
    tables = collect(planted.default_study(tmp_path).plan())
    assert not [one for one in findings(tables) if one.question == 10]
    assert generated(Measured(tables), {}) == ""


@pytest.mark.slow  # a hundred comparisons of planted noise
def test_noise_alone_finds_next_to_nothing(tmp_path):
    """Of intervals of 95% one in twenty misses, and those that share a cell miss together."""
    claims = judged = 0
    for seed in range(3):
        tables = collect(made(tmp_path / str(seed), same, seed=seed, between=0.02, runs=4, prompts=(128, 512)).plan())
        compared = [one for one in findings(tables) if one.topic.startswith("Generation") and one.verdict]
        judged += len(compared)
        claims += sum(one.claims_difference for one in compared)
    assert judged > 40
    assert claims <= 0.05 * judged


# --- claims of others -------------------------------------------------------------------------------------------------


def ours(tables, number):
    return next(one for hypothesis, one in judged(Measured(tables), Evidence()) if hypothesis.number == number)


@pytest.mark.parametrize(
    ("eager", "captured", "status"),
    [
        (10.0, 1.4, "supported"),  # 7 times faster, 5.9 times the floor
        (2.8, 1.4, "refuted"),  # twice as fast
        (1.4, 1.4, "refuted"),
        (3.0, 0.4, "refuted"),  # 7.5 times faster, and 1.7 times the floor
        (6.0, 1.4, "supported"),  # 4.3 times faster: at least half of 7
    ],
)
def test_claim_of_cuda_graphs_at_batch_1(tmp_path, eager, captured, status):
    def truth(runtime, precision, batch, prompt, generated):
        times = {EAGER: eager, CAPTURED: captured}
        # At another batch, and of a prefill, the opposite: the claim is about neither.
        return times[runtime.removesuffix(".aa")] if batch == 1 and generated > 1 else 5.0

    judgement = ours(collect(bounded(made(tmp_path, truth, runtimes=[EAGER, CAPTURED], batches=(1, 8))).plan()), 18)
    assert judgement.verdict == status, judgement.ours
    assert judgement.ours.count(CAPTURED) == 1
    factor = re.search(r"then ([\d.]+)× \[.*\] its floor", judgement.ours)
    assert float(factor[1]) == pytest.approx(captured / ((WEIGHTS + CACHE_PER_TOKEN * 192) / 3e9), rel=0.03)


def test_claim_of_cuda_graphs_needs_processes_and_a_floor(tmp_path):
    runtimes = {"runtimes": [EAGER, CAPTURED], "batches": (1,), "generated": (128,)}
    once = ours(collect(bounded(made(tmp_path / "once", runs=1, **runtimes)).plan()), 18)
    assert once.verdict == "not decidable" and once.missing[0].startswith("protocol: {processes")
    unbounded = ours(collect(made(tmp_path / "unbounded", **runtimes).plan()), 18)
    assert unbounded.verdict == "not decidable" and unbounded.missing[0].startswith("peaks")


def test_a_pair_that_differs_in_more_than_the_graph_decides_nothing(tmp_path):
    def truth(runtime, *_):
        return 1.4 if runtime.removesuffix(".aa") == SCHEDULED else 10.0

    tables = collect(bounded(made(tmp_path, truth, runtimes=[SCHEDULED, "vllm-eager"], batches=(1,))).plan())
    judgement = ours(tables, 18)
    assert judgement.verdict == "not decidable" and "no pair that differs in the CUDA graph alone" in judgement.ours
    assert COMPILED in judgement.missing[0] and "generated: [128]" in judgement.missing[0]


@pytest.mark.parametrize(
    ("scheduled", "runs", "status", "count"),
    [(1.0, 5, "not decidable", "3 of 3"), (2.0, 5, "refuted", "0 of 3"), (1.0, 1, "not decidable", "0 of 3")],
)
def test_claim_that_vllm_is_for_text_follows_its_steps(tmp_path, scheduled, runs, status, count):
    """Without TensorRT the whole claim is not supported, and its half on vLLM can still refute it."""

    def truth(runtime, precision, batch, prompt, generated):
        return (scheduled if runtime == SCHEDULED else 1.5) * batch

    judgement = ours(collect(made(tmp_path, truth, runtimes=[CAPTURED, SCHEDULED], runs=runs).plan()), 14)
    assert judgement.verdict == status
    assert f"vLLM, at decode steps, is the fastest at {count} combinations" in judgement.ours


def test_a_graph_that_no_iteration_runs_in_is_credited_with_nothing(tmp_path):
    """vLLM captures up to 512 tokens: its prefills of 1,024 and 8,192 are those of vllm-compile, measured twice."""

    def faster(runtime, precision, batch, prompt, generated):
        return (1.0 if runtime == SCHEDULED else 2.0) * (1 + batch)

    maker = made(tmp_path, faster, runtimes=[SCHEDULED, COMPILED])
    tables = collect(maker.plan())
    levers = tables.cells[tables.cells["runtime"] == SCHEDULED].set_index("shape")["levers"]
    without = {shape for shape, value in levers.items() if "CUDA graph" not in value}
    assert without == {"b8-p128-g1", "b64-p128-g1"}
    named = {cell.split("/")[-1] for finding in about(tables, GRAPHS) for cell in finding.cells}
    assert named == {"b1-p128-g1", *(f"b{batch}-p128-g128" for batch in (1, 8, 64))}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dtype": "float32"}, "computes in float32"),
        ({"cache_dtype": "fp8_e4m3"}, "keeps its cache in fp8_e4m3"),
        ({"prefix_caching": True}, "a prompt that comes again is not read"),
        ({"cudagraph_mode": "NONE"}, "captures no CUDA graphs in mode default"),
        ({"compilation": "NONE"}, "compiles nothing in mode default"),
        ({"blocks": 16}, "has room for 240 tokens in its cache"),
        ({"max_num_seqs": 4}, "works on 4 rows at once"),
        ({"max_num_batched_tokens": 512}, "reads 512 tokens of prompts in a step"),
        ({"blocks": None}, "does not say of vLLM's engine what it was"),
    ],
)
def test_an_engine_that_is_not_what_its_cell_says_leaves_no_number(tmp_path, change, why):
    maker = made(tmp_path, runtimes=[SCHEDULED], batches=(8,), generated=(128,), runs=2)
    path = Path(maker.cells[0]["runs"][0])
    record = json.loads(path.read_text())
    record["runtime"] |= change
    planted.planted_records.overwrite(path, {key: value for key, value in record.items() if key != "digest"})
    with pytest.raises(UserError, match=why):
        collect(maker.plan())


def test_claims_on_vllm_and_tensorrt_together(tmp_path):
    def truth(runtime, precision, *sizes):
        return {"tensorrt": 1.0, SCHEDULED: 1.0}.get(runtime, 2.0)

    maker = made(tmp_path, truth, runtimes=[CAPTURED, SCHEDULED], batches=(1,), generated=(128,))
    for runtime in ("tensorrt", "onnxruntime-cuda"):
        maker.add(GPU, runtime, "fp16", 1, 128)
    judgement = ours(collect(maker.plan()), 14)
    assert judgement.verdict == "supported"
    assert judgement.ours.count("is the fastest at 1 of 1 combination") == 2


def test_a_study_without_generated_text_is_asked_for_a_model(tmp_path):
    tables = collect(planted.StudyMaker(tmp_path).measure(GPU, planted.GPU_CONFIGURATIONS, [(1, 128)]).plan())
    assert ours(tables, 18).missing == ("a model of task text-generation, on a GPU",)


# --- advice ----------------------------------------------------------------------------------------------------------


def test_the_advisor_names_only_runtimes_that_generate_and_stays_in_the_phase(tmp_path):
    advice = advise(Measured(collect(made(tmp_path, runtimes=[EAGER]).plan())))
    proposed = [cell.split("/") for one in advice for cell in one.cells]
    assert proposed
    for runtime, _, precision, shape in proposed:
        assert RUNTIMES[runtime].generator and precision in RUNTIMES[runtime].generates
        assert Shape.parse(shape)["generated"] == 128
    # A larger batch makes a token cheaper and its step longer: never to be read as a shorter time per output token.
    larger = [expected(one) for one in advice if one.per_inference and not one.missing]
    assert larger and all(words.endswith("× in tokens/s") for words in larger)
    encoders = advise(Measured(collect(planted.default_study(tmp_path / "encoders").plan())))
    assert all(RUNTIMES[cell.split("/")[0]].module for one in encoders for cell in one.cells)


def test_claims_of_encoders_are_read_as_generation_has_them(tmp_path):
    """A CUDA graph needs the fused graph beside it, and that is not what a fusing tool made."""
    maker = made(tmp_path, same, runtimes=["onnxruntime-cuda", FUSED], batches=(1,))
    ours = {one.number: judgement for one, judgement in judged(Measured(collect(maker.plan())), Evidence())}
    (wanted,) = ours[5].missing
    assert yaml.safe_load(wanted)["runtimes"] == [FUSED, FUSED_CAPTURED]
    assert "GroupQueryAttention" in ours[3].ours and "onnxruntime.transformers" not in ours[3].ours
    assert ours[8].missing == (NO_GENERATION,)


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("generation")
    maker = bounded(made(root, prompts=(128, 512)))
    plan = maker.plan()
    return plan, collect(plan)


def test_the_summary_says_once_what_an_iteration_is_and_before_any_result(study):
    plan, tables = study
    shown = summary(plan, tables, Evidence(), "plots")
    assert shown.count(ITERATION) == 1
    assert shown.index(ITERATION) < shown.index("## Decision") < shown.index("## Generation")
    assert "## Results" not in shown  # that of models that do not generate
    assert len(shown.splitlines()) <= 150
    assert "tokens/s" in shown
    for line in shown.splitlines():
        assert "inference" not in line.replace("Inference latency", ""), line


def test_the_tables_of_results_hold_what_the_cells_do(study):
    plan, tables = study
    shown = generated(Measured(tables), plan)
    decode, prefill = shown.split("prefill, time to the first token")[:2]
    line = next(line for line in decode.splitlines() if f"| {FUSED_CAPTURED} fp16" in line)
    row = tables.cells[(tables.cells["runtime"] == FUSED_CAPTURED) & (tables.cells["shape"] == "b1-p128-g128")].iloc[0]
    headers = next(line for line in decode.splitlines() if line.startswith("| shape"))
    values = dict(zip(_split(headers), _split(line), strict=True))
    samples = tables.samples
    samples = samples[(samples["runtime"] == FUSED_CAPTURED) & (samples["shape"] == "b1-p128-g128")]
    token = samples[samples["series"] == "latency"].groupby("run", observed=True)["latency_ns"].median().median() / 1e6
    assert float(values["p50, ms [95%]"].split()[0]) == pytest.approx(token, rel=0.01)
    if "request" in set(samples["series"]):
        whole = samples[samples["series"] == "request"].groupby("run", observed=True)["latency_ns"].median() / 1e6
        for heading, stem in (("end to end", "request_p50"), ("TTFT", "first_token_p50")):
            ends = [row[f"{stem}_low_ms"], row[f"{stem}_ms"], row[f"{stem}_high_ms"]]
            assert ends[0] < ends[1] < ends[2]
            assert values[f"{heading}, ms [95%]"] == text.interval(Interval(*ends))
        assert row["request_p50_ms"] == pytest.approx(whole.median(), rel=0.01)
        assert float(values["tokens/s, one row"]) == pytest.approx(128e3 / whole.median(), rel=0.01)
        assert float(values["KV cache, MB"]) == pytest.approx(98304 * 256 / 1e6, rel=0.01)
    assert float(values["gap to floor"].rstrip("×")) == pytest.approx(row["p50_ms"] / 0.2429, rel=0.02)
    assert "-g128" not in prefill.split("| shape")[1].split("\n\n")[0]


def _split(line):
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_every_page_speaks_of_tokens(study):
    plan, tables = study
    note, table, html = observations(plan, tables, Evidence(), "plots"), summary_table(plan, tables), None
    assert ITERATION in note and ITERATION in table
    headers = next(line for line in table.splitlines() if line.startswith("| runtime"))
    assert "tokens/s" in headers and "J/token" in headers and "inference" not in headers
    html = page(plan, tables, Evidence())
    assert "tokens/s in the closed loop" in html and "inferences/s in the closed loop" not in html
    assert "<" + "th" in html and "What bounds generation" in html
    assert "median time of one output token (ms, log scale)" in html and "median latency (ms" not in html
    heads = re.findall(r"<th\b.*?</th>", html, re.DOTALL)
    assert any("tokens/s" in head for head in heads) and not any(
        re.search("inferences/s|one inference", one) for one in heads
    )
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert "inferences/s" not in json.dumps(data["charts"]) and "inferences/s" not in json.dumps(data["cells"])
    titles = {line.get("title") for layer in data["charts"]["pareto"]["layer"] for line in tooltips(layer)}
    assert "tokens/s" in titles


def tooltips(layer):
    """Lines of a layer's tooltip."""
    return layer.get("encoding", {}).get("tooltip", [])


def test_the_page_has_the_section_of_requests(study):
    """Each heading and each value of the summary's tables, in a section that the page's head links to."""
    html = page(*study, Evidence())
    body = html.split('<section id="generation"')[1].split("</section>")[0]
    assert '<a href="#generation">Generation</a>' in html
    for line in generated(Measured(study[1]), study[0]).splitlines():
        for value in _split(line) if line.startswith("| ") else ():
            assert value in body, value


def test_a_study_of_both_kinds_counts_inferences_or_tokens(tmp_path):
    maker = made(tmp_path, lambda *_: 2.0, runtimes=(EAGER,), batches=(1,))
    maker.measure(GPU, [(EAGER, "fp16")], [(1, 128)])
    html = page(maker.plan(), collect(maker.plan()), Evidence())
    heads = " ".join(re.findall(r"<th\b.*?</th>", html, re.DOTALL))
    assert "inferences or tokens/s" in heads
    cells = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])["cells"]
    called = {str(cell["model"]): json.dumps(cell["facts"]) for cell in cells}
    assert "tokens/s" in called.pop(MODEL) and "inferences/s" in called.popitem()[1]


def test_a_sentence_says_of_what_its_milliseconds_are(study):
    texts = {one.topic: one for one in findings(study[1]) if one.topic in ("Fastest", RUNTIMES_TOPIC)}
    assert re.search(r"takes [\d.]+ ms \[[^]]+\] per output token; the next", texts["Fastest"].text)
    assert texts["Fastest"].brief.endswith(" ms per output token.")
    assert re.search(r"\([\d.]+ ms per output token\): ", texts[RUNTIMES_TOPIC].text)


def test_a_picture_of_tokens_is_not_called_one_of_requests(study):
    title = plots.draw("configurations", study[1]).get_suptitle()
    assert title.startswith("Median token time at batch 1, ")


@pytest.mark.parametrize("name", ["token_time", "batch_sweep", "sequence_sweep"])
def test_the_pictures_draw(study, name):
    figure = plots.draw(name, study[1])
    titles = " ".join(axis.get_ylabel() + axis.get_xlabel() for axis in figure.axes)
    assert "token" in titles
    figure.canvas.draw_idle()


def test_an_interval_of_decades_does_not_stretch_the_picture_of_tokens(study):
    tables, ratios = study[1], []
    cells = tables.cells.copy()
    at = (cells["runtime"] == EAGER) & (cells["batch"] == 1)
    for name, times in (("p50_low_ms", 1e-9), ("p50_high_ms", 1e9)):
        cells.loc[at, name] *= times
    for one in (tables, dataclasses.replace(tables, cells=cells)):
        axes = [axis for axis in plots.draw("token_time", one).axes if axis.containers]
        ratios.append([high / low for low, high in (axis.get_ylim() for axis in axes)])
        goes_on = [line.get_label() == "the interval goes on" for axis in axes for line in axis.lines]
        assert any(goes_on) == (one is not tables)
    assert all(after < 20 * before for before, after in zip(*ratios, strict=True))


def test_the_picture_of_tokens_names_a_floor_where_it_has_one(study):
    tables = study[1]
    without = dataclasses.replace(tables, floors=tables.floors.iloc[:0])
    assert "the hardware floor" in plots.draw("token_time", tables).get_suptitle()
    assert "floor" not in plots.draw("token_time", without).get_suptitle()


def test_the_decision_says_of_what_its_tokens_a_second_are(study):
    """Of decode steps; beside it what whole requests give, which is the number of the table."""
    text = summary(*study, Evidence(), "plots")
    (whole,) = re.findall(r"tokens/s\*\* `[^`]+` \(decode steps; ([\d,]+)/s in whole requests\)", text)
    assert re.search(rf"\| +{whole} \|", text)


def test_a_legend_has_what_its_tables_have(study):
    plan, tables = study
    cells = tables.cells.assign(tokens_per_j=None)
    assert "Tokens/J" in generated(Measured(tables), plan)
    assert "Tokens/J" not in generated(Measured(dataclasses.replace(tables, cells=cells)), plan)


def test_a_picture_without_values_is_left_out(tmp_path):
    """Batches alone, contexts alone, and both: of one size nothing is drawn along it."""
    for name, sizes, count in (("b", {}, 2), ("p", {"batches": (1,), "prompts": (128, 512)}, 1)):
        maker = made(tmp_path / name, runtimes=(EAGER, CAPTURED), generated=(128,), **sizes)
        axes = plots.draw("token_time", collect(maker.plan())).axes
        assert len(axes) == count and all(axis.lines or axis.containers for axis in axes)
        assert axes[0].get_title("left").startswith(f"{MODEL} on {GPU}")
    maker = made(tmp_path / "both", runtimes=(EAGER, CAPTURED), generated=(128,), prompts=(128, 512))
    titles = [axis.get_title("left") for axis in plots.draw("token_time", collect(maker.plan())).axes]
    assert [title.count("\n") for title in titles] == [1, 0, 0] and titles[1] == "" and "batch" in titles[2]
