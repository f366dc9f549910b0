"""The budget record, the report's part of it, and the trace for Perfetto."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from unit.traces import planted
from unit.traces.events import Events

from ceilings.errors import UserError
from ceilings.report.collect import collect
from ceilings.report.evidence import Evidence
from ceilings.report.plots import draw, style
from ceilings.report.summary import summary
from ceilings.report.tables import BUDGET_COLUMNS, read_tables
from ceilings.report.where import where_time_goes
from ceilings.traces import store
from ceilings.traces.kernels import TABLE, kernel_class, short
from ceilings.traces.perfetto import chrome_trace
from ceilings.traces.record import budget_record
from ceilings.traces.verdict import verdict

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"

NAMES = {
    "gemm": [
        "nvjet_hsh_128x64_64x16_4x1_v_bz_TNT",
        "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas",
        "void cublasLt::splitKreduce_kernel<(int)32, (int)16, int, __half, __half, __half, __half>(int)",
        "void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x64_16x6_tn_align4>(T1::Params)",
        "ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x3_tn",
        "triton_tem_fused_addmm_view_3",
        "void gemv2T_kernel_val<int, int, __half, __half, __half, float, (int)128, (int)16>(T11)",
        "__myl_FcMulAdd_myl0_7",
    ],
    "attention": [
        "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<(int)64, (int)128>>(T9)",
        "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::half_t>::Params)",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_6_128x128x64_4x1x1_kernel0_0",
        "void onnxruntime::contrib::cuda::AddBiasTransposeQKV<__half>(int, const T1 *, const T1 *, T1 *)",
        "void onnxruntime::contrib::cuda::SoftmaxKernelSmall<__half, (unsigned int)128>(int, const T1 *, T1 *)",
        "_gemm_mha_v2_0x1a2b3c",
    ],
    "normalization": [
        "void at::native::<unnamed>::vectorized_layer_norm_kernel<c10::Half, float>(int, T2)",
        "void <unnamed>::softmax_warp_forward<float, float, float, (int)7, (bool)0, (bool)0>(T2 *, const T1 *)",
        "void onnxruntime::cuda::cuApplyLayerNorm<__half, float, __half, (bool)0>(T3 *, float *)",
        "void onnxruntime::contrib::cuda::SkipLayerNormKernelSmall<__half, (unsigned int)192, (int)4>(T1 *)",
        "triton_per_fused_add_native_layer_norm_0",
        "triton_red_fused__softmax_2",
        "__myl_MeanSubMulMeanAddSqrtDivMulMulAdd_myl0_3",
    ],
    "elementwise": [
        "void at::native::vectorized_elementwise_kernel<(int)4, at::native::GeluCUDAKernelImpl(at::TensorIterator &)>",
        "void onnxruntime::cuda::_BinaryElementWiseSimple<(bool)1, (bool)1, __half, onnxruntime::cuda::OP_Add<__half>>",
        "void onnxruntime::cuda::_UnaryElementWise<__half, __half, onnxruntime::cuda::OP_Erf<__half>, (int)256>",
        "triton_poi_fused_add_gelu_1",
        "void onnxruntime::contrib::cuda::FastGeluKernel2<(unsigned int)256>(const __half2, int)",
    ],
    "gather": [
        "void at::native::<unnamed>::indexSelectLargeIndex<c10::Half, long, unsigned int, (int)2, (int)2, (int)-2>",
        "void at::native::vectorized_gather_kernel<(int)16, long>(char *, char *, T2 *, int, long, long, bool)",
        "void onnxruntime::cuda::_GatherKernel<__half>(long, long, onnxruntime::cuda::fast_divmod, const void *)",
        "void onnxruntime::contrib::cuda::EmbedLayerNormKernel<__half, (unsigned int)256>(int, const int *)",
        "triton_poi_fused_embedding_0",
    ],
    "copy": [
        "void at::native::elementwise_kernel<(int)128, at::native::direct_copy_kernel_cuda(at::TensorIterator &)>(int)",
        "void at::native::<unnamed>::CatArrayBatchedCopy<c10::Half, unsigned int, (int)3, (int)64, (int)64>(T1 *)",
        "void onnxruntime::cuda::Transpose4DKernelParallelizeMultipleElementsPerThreadInInnermostDim<(int)8>",
        "void onnxruntime::cuda::_SliceKernel<(bool)0, (int)3, float>(onnxruntime::cuda::TArray<long, (int)8>)",
    ],
    "other": [
        "void at::native::reduce_kernel<(int)512, (int)1, at::native::ReduceOp<bool, at::native::func_wrapper_t>>",
        "triton_red_fused_all_eq_0",
    ],
    "unknown": ["void my::own_thing<float>(float *)"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_kernel_classes(kind, name):
    assert kernel_class(name) == kind
    assert 0 < len(short(name)) <= 80


def test_every_pattern_has_a_class_that_the_tables_know():
    assert {kind for kind, *_ in TABLE} <= set(NAMES)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"kernel": 0.7, "launch": 0.3}, "kernel-bound"),
        ({"kernel": 0.2, "launch": 0.5, "host": 0.3}, "launch-bound"),
        ({"kernel": 0.3, "host": 0.6}, "host-bound"),
        ({"transfer": 0.55, "kernel": 0.45}, "transfer-bound"),
        ({"sync": 0.9, "kernel": 0.1}, "sync-bound"),
        ({"kernel": 0.45, "launch": 0.35, "host": 0.2}, "launch-bound"),  # both are the host's
        ({"kernel": 0.45, "launch": 0.1, "host": 0.15, "transfer": 0.3}, "mixed"),
    ],
)
def test_verdicts(shares, expected):
    assert verdict(shares) == expected


@pytest.fixture(scope="module")
def eager():
    return budget_record(planted.capture(planted.eager))


@pytest.fixture(scope="module")
def graph():
    return budget_record(planted.capture(planted.graph))


def test_what_two_stacks_are_bound_by(eager, graph):
    assert eager["verdict"]["name"] == "launch-bound" and graph["verdict"]["name"] == "kernel-bound"
    assert eager["counts"] == {"launches": 120, "graphs": 0, "kernels": 120}
    assert graph["counts"] == {"launches": 1, "graphs": 1, "kernels": 90}
    for record in (eager, graph):
        assert sum(record["shares"].values()) == pytest.approx(1, abs=0.01)
        assert record["flags"] == [] and record["unknown_kernels"] == []
        for residual in record["residual_ns"].values():
            assert abs(residual) < 0.01 * record["iteration_ns"]["median"]
        interval = record["iteration_ns"]
        assert interval["low"] <= interval["median"] <= interval["high"]


def test_slow_iterations_are_told_by_what_they_have_more_of(eager, graph):
    assert max(eager["jitter"]["host_ns"], key=eager["jitter"]["host_ns"].get) == "framework"
    assert max(eager["jitter"]["device_ns"], key=eager["jitter"]["device_ns"].get) == "idle_starved"
    assert max(graph["jitter"]["host_ns"], key=graph["jitter"]["host_ns"].get) == "sync"
    assert eager["jitter"]["slow_iterations"] == 1
    assert budget_record(planted.capture(planted.graph, 19))["jitter"] is None


def test_kernels_by_name_leave_out_what_lies_between_iterations():
    events = Events()
    for start in (0, 100):
        events.launch(start - 20, start - 18, (start - 15, start - 10, "prepare_kernel"))
        events.mark(start, start + 50)
        events.launch(start + 5, start + 7, (start + 10, start + 20, "strange"), (start + 22, start + 24, "gemm"))
    record = budget_record(events.capture())
    assert [(k["name"], k["class"], k["count"], k["ns"]) for k in record["kernels"]] == [
        ("strange", "unknown", 1, 10_000),
        ("gemm", "gemm", 1, 2_000),
    ]
    assert any("83.3% of busy time is in kernels of unknown class" in flag for flag in record["flags"])


def test_parts_whose_medians_do_not_add_up_are_told():
    """Iterations of three kinds: each part is short in two of them, and the account of each closes."""
    events = Events()
    for number, (starved, busy) in enumerate([(60, 20), (20, 60), (20, 20)] * 3):
        begin = 110 * number
        events.mark(begin, begin + 100)
        start = begin + starved
        events.launch(start, start, (start, start + busy, "gemm"))
        events.call(start, begin + 100, "cudaStreamSynchronize")
    record = budget_record(events.capture())
    assert record["residual_ns"] == {"host": 0, "device": 40_000}
    assert record["flags"] == ["the device side leaves +40.0% of the iteration unexplained"]


def test_the_report_has_what_the_records_say(tmp_path):
    maker = planted.study(tmp_path)
    collect(maker.plan()).write(tmp_path / "tables")
    tables = read_tables(tmp_path / "tables")
    budgets = tables.budgets.set_index("runtime")
    assert list(tables.budgets.columns) == BUDGET_COLUMNS and len(budgets) == 2
    eager = budgets.loc["torch-cuda-eager"]
    assert eager["tracing_ratio"] == pytest.approx(eager["iteration_ms"] / 1.08, rel=0.02)
    page = summary(
        maker.plan() | {"traces": {"cells": ["*"], "source": "cupti", "reason": None}}, tables, Evidence(), "plots"
    )
    assert "is launch-bound: 120 launches of 8.74 µs each (framework included) against 330 µs of work" in page
    assert "is kernel-bound: the device works 0.272 of 0.353 ms (77%)" in page
    assert "the slowest 1 iteration of 30 took 534 µs longer" in page
    assert page.index("## Where the time goes") < page.index("plots/latency_budget.png") < page.index("## Not run")
    for name in ("latency_budget", "iteration_timeline"):
        style.save(draw(name, tables), tmp_path / "a.svg", tmp_path / "a.png")
        svg = (tmp_path / "a.svg").read_bytes()
        figure = draw(name, tables)
        style.save(figure, tmp_path / "b.svg", tmp_path / "b.png")
        assert (tmp_path / "b.svg").read_bytes() == svg
        said = [
            label.get_text() for axis in figure.axes for label in (axis.title, *axis.texts, *axis.get_yticklabels())
        ]
        said += [axis.get_title("left") for axis in figure.axes]
        for cell, bound in (("torch-cuda-eager fp16", "launch-bound"), ("onnxruntime-cuda fp16", "kernel-bound")):
            assert any(cell in text for text in said) and any(bound in text for text in said)


def test_the_report_without_captures(tmp_path):
    maker = planted.planted_study.StudyMaker(tmp_path)
    cell = maker.add(planted.planted_study.GPU, "torch-cuda-eager", "fp16", 1, 128)
    tables = collect(maker.plan())
    assert tables.budgets.empty and where_time_goes(maker.plan(), tables) == ""
    page = summary(maker.plan(), tables, Evidence(), "plots")
    assert "latency_budget" not in page and "Where the time goes" not in page
    asked = maker.plan() | {"traces": {"cells": ["*"], "source": None, "reason": "nsys is not on PATH"}}
    assert "Nothing can be captured here: nsys is not on PATH." in where_time_goes(asked, tables)
    cell["budget"] = str(tmp_path / "x.budget.json")
    names = ("device", "runtime", "model", "precision", "batch", "sequence")
    failed = {"schema_version": 1, "status": "failed", "cell": {name: cell[name] for name in names}}
    Path(cell["budget"]).write_text(json.dumps(failed | {"failure": {"kind": "out-of-memory", "message": "too large"}}))
    told = where_time_goes(asked | {"cells": maker.cells}, collect(maker.plan()))
    assert "torch-cuda-eager fp16 distilbert b1-s128: out-of-memory: too large" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema_version": 99}, "has schema version 99"),
        ({"cell": {}}, "is damaged"),
        ({"verdict": None}, "is damaged"),
    ],
)
def test_a_bad_budget_is_named_with_the_remedy(tmp_path, change, told):
    maker = planted.study(tmp_path)
    path = Path(maker.cells[0]["budget"])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=f"{told}.*delete it and run `snakemake"):
        collect(maker.plan())


def test_the_trace_for_perfetto(tmp_path):
    found = planted.capture(planted.graph, 2)
    events = json.loads(json.dumps(chrome_trace(found)))["traceEvents"]
    slices = pd.DataFrame([event for event in events if event["ph"] == "X"])
    assert (slices["cat"] == "iteration").sum() == 2 and (slices["name"] == "cudaGraphLaunch").sum() == 2
    assert (slices["pid"] == 2).sum() == len(found.operations.start) and (slices["dur"] >= 0).all()
    begins = {event["id"] for event in events if event["ph"] == "s"}
    assert begins == {event["id"] for event in events if event["ph"] == "f"} and len(begins) == 2 * 91


def test_the_programs_by_hand(tmp_path):
    store.write(tmp_path / "kept.sqlite", planted.capture(planted.eager, 6))
    for program, output in (("account_budget", "x.budget.json"), ("export_perfetto", "x.perfetto.json")):
        command = [
            sys.executable,
            SCRIPTS / f"{program}.py",
            "--capture",
            tmp_path / "kept.sqlite",
            "--output",
            tmp_path / output,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "x.budget.json").read_text())
    assert record["status"] == "ok" and record["verdict"]["name"] == "launch-bound"
    assert record["provenance"]["sources"]["capture"]
    (tmp_path / "kept.sqlite").write_text("no capture")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "is no capture" in done.stderr
