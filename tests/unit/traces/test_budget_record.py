"""The budget record, the report's part of it, and the trace for Perfetto."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from unit import planted_records
from unit.traces import planted
from unit.traces.events import Events

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.render.notes import observations
from ceilings.report.render.plots import draw, iteration_timeline, parts, style
from ceilings.report.render.time_account import where_time_goes
from ceilings.report.tables.budget_rows import UNSTEADY_COLUMNS
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import BUDGET_COLUMNS, KERNEL_COLUMNS, KEY, read_tables
from ceilings.traces import health, store
from ceilings.traces.budget_record import budget_record
from ceilings.traces.kernel_classes import TABLE, kernel_class, short
from ceilings.traces.source import SOURCES
from ceilings.traces.verdict import verdict

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"
DATA = Path(__file__).parent / "data"

NAMES = {
    "communication": {
        "ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevKernelArgsStorage<4096ul>)": (
            "ncclDevKernel_AllReduce_Sum_f16_RING_LL"
        ),
        "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*, unsigned long, ncclWork*)": (
            "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t"
        ),
        "void vllm::cross_device_reduce_1stage<__half, 2>(vllm::RankData*, vllm::RankSignals, vllm::Signal*, "
        "__half*, int, int)": "cross_device_reduce_1stage",
        "void multimem_all_reduce_kernel<c10::BFloat16, 16>(c10::BFloat16*, unsigned long, unsigned int**)": (
            "multimem_all_reduce_kernel"
        ),
    },
    "gemm": {
        "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT128x256x32_MI16x16x1_SN_LDSB1_AFC1_AFEM1_AFEM1_ASEM1_CLR1": (
            "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT128x25…FC1_AFEM1_AFEM1_ASEM1_CLR1"
        ),
        "bmm_MxE4m3_MxE2m1MxE4m3_Fp32_t128x16x256u2_s3_et128x16_m128x16x32_cga1x1x1": None,
        "_matmul_ogs_NNT_bf16xbf16xmxfp4_16x256x128x1_swiglu": None,
        "cudnn_infer_volta_scudnn_128x64_stridedB_interior_nn_v1": None,
        "void marlin::Marlin<__half, 1125899907892224l, 256, 4, 16, 4, 4, false, 4, 8, false>(int4 const*)": "Marlin",
        "fused_moe_kernel": None,
        "nvjet_sm90_hsh_64x32_64x16_2x4_h_bz_splitK_bias_TNT": None,
        "void cublasLt::splitKreduce_kernel<(int)32, (int)16, int, float, __half, float, __half, (bool)0, float, "
        "__half, __half, (bool)1, (bool)1>(cublasLt::cublasSplitKParams<T6>, const T4 *)": "splitKreduce_kernel",
        "void cutlass::Kernel2<cutlass_80_wmma_tensorop_f16_s161616gemm_f16_32x32_128x2_tn_align2>(T1::Params)": (
            "Kernel2<cutlass_80_wmma_tensorop_f16_s161616gemm_f16_32x32_128x2_tn_align2>"
        ),
        "std::enable_if<!T7, void>::type internal::gemvx::kernel<int, int, __half, __half, __half, float, (bool)0, "
        "cublasGemvParamsEx<int, cublasGemvTensorStridedBatched<const __half>, float>>(T13)": "gemvx::kernel",
        "std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, __half, __half, __half, float, false, "
        "cublasGemvParamsEx<int, cublasGemvTensorStridedBatched<__half const>, float> >(int)": "gemvx::kernel",
        "void dot_kernel<float, (int)128, (int)0, cublasDotParams<cublasGemvTensorStridedBatched<const __half>, "
        "cublasGemvTensorStridedBatched<float>>>(T4)": "dot_kernel",
        "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_"
        "cublas": "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x6…nt_k_off_kernel__5x_cublas",
        "ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x3_tn": None,
        "triton_tem_fused_addmm_native_layer_norm_view_3": None,
        "__myl_FcMulAdd_myl0_7": None,
    },
    "attention": {
        "attn_fwd": None,
        "sage_fwd": None,
        "kernel_unified_attention_3d": None,
        "void vllm::paged_attention_v2_kernel<unsigned short, unsigned short, 128, 16, 128, (vllm::Fp8KVCacheDataType)0"
        ">(float*)": "paged_attention_v2_kernel",
        "void flashinfer::BatchDecodeWithPagedKVCacheKernel<(flashinfer::PosEncodingMode)0, 2u, 4u>(Params)": (
            "BatchDecodeWithPagedKVCacheKernel"
        ),
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64_4x1x1_cga1x1x1_kernel0_0": (
            "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgm…4_4x1x1_cga1x1x1_kernel0_0"
        ),
        "triton_poi_fused__scaled_dot_product_cudnn_attention__to_copy_add_arange_bitwise_and_expand_ge_index_new_ones_"
        "scalar_tensor_transpose_unsqueeze_view_where_4": (
            "triton_poi_fused__scaled_dot_product_cudnn_attention_…ose_unsqueeze_view_where_4"
        ),
        "void onnxruntime::contrib::cuda::AddBiasTransposeQKV<onnxruntime::cuda::Half4>(int, const T1 *, const T1 *, "
        "T1 *, T1 *)": "AddBiasTransposeQKV",
        "void onnxruntime::contrib::cuda::MaskIndexKernelSmall<(unsigned int)128>(int, const int *, int *)": (
            "MaskIndexKernelSmall"
        ),
        "void onnxruntime::contrib::cuda::SoftmaxKernelSmall<__half, (unsigned int)128>(int, const T1 *, T1 *)": (
            "SoftmaxKernelSmall"
        ),
        "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<(int)64, (int)128>>(T9)": (
            "flash_fwd_kernel"
        ),
        "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::half_t>::Params)": (
            "fmha_cutlassF_f16_aligned_64x64_rf_sm80"
        ),
        "_gemm_mha_v2_0x1a2b3c": None,
    },
    "normalization": {
        "void cudnn::bn_fw_tr_1C11_singleread<float, 512, true, 1, 2, 0>(cudnn::bn_fw_tr_1C11_args<float>)": (
            "bn_fw_tr_1C11_singleread"
        ),
        "void vllm::rms_norm_kernel<c10::BFloat16>(c10::BFloat16*, c10::BFloat16 const*, float, int, int)": (
            "rms_norm_kernel"
        ),
        "void at::native::<unnamed>::vectorized_layer_norm_kernel<c10::Half, float, (bool)0>(int, T2, const T1 *)": (
            "vectorized_layer_norm_kernel"
        ),
        "void onnxruntime::cuda::softmax_warp_forward<__half, __half, float, (int)7, (bool)0>(T2 *, const T1 *)": (
            "softmax_warp_forward"
        ),
        "void onnxruntime::contrib::cuda::BiasSoftmaxWarpForward<__half, __half, float, (int)7, (bool)0>(T2 *, "
        "const T1 *, const T1 *, int, int, onnxruntime::cuda::DivMod<int>)": "BiasSoftmaxWarpForward",
        "void onnxruntime::cuda::cuApplyLayerNorm<__half, float, __half, (bool)0>(T3 *, T2 *)": "cuApplyLayerNorm",
        "void onnxruntime::contrib::cuda::SkipLayerNormKernelSmall<__half, (unsigned int)96, (int)8, (bool)0>(T1 *)": (
            "SkipLayerNormKernelSmall"
        ),
        "triton_per_fused_add_native_layer_norm_view_2": None,
        "triton_red_fused__softmax_2": None,
        "__myl_MeanSubMulMeanAddSqrtDivMulMulAdd_myl0_3": None,
    },
    "elementwise": {
        "void vllm::act_and_mul_kernel<c10::BFloat16, &vllm::silu_kernel<c10::BFloat16>>(c10::BFloat16*, int)": (
            "act_and_mul_kernel"
        ),
        "SubTensorOpWithCastTensor1d": None,
        "void at::native::vectorized_elementwise_kernel<(int)8, at::native::GeluCUDAKernelImpl(at::TensorIteratorBase "
        "&, at::native::GeluType)::[lambda() (instance 2)]::operator ()() const::[lambda() (instance 3)]::operator "
        "()() const::[lambda(c10::Half) (instance 1)], std::array<char *, (unsigned long)2>>(int, T2, T3)": (
            "vectorized_elementwise_kernel<GeluCUDAKernelImpl>"
        ),
        "void at::native::vectorized_elementwise_kernel<8, at::native::(anonymous namespace)::launch_clamp_scalar("
        "at::TensorIteratorBase&, c10::Scalar, c10::Scalar, at::native::detail::ClampLimits)::{lambda()#1}::operator()"
        "() const::{lambda()#8}::operator()() const::{lambda(c10::Half)#1}, std::array<char*, 2ul> >(int)": (
            "vectorized_elementwise_kernel<launch_clamp_scalar>"
        ),
        "void at::native::elementwise_kernel<(int)128, (int)4, void at::native::gpu_kernel_impl_nocast<"
        "at::native::CUDAFunctor_add<c10::Half>>(at::TensorIteratorBase &, const T1 &)::[lambda(int) (instance 1)]>"
        "(int, T3)": "elementwise_kernel<CUDAFunctor_add>",
        "void at::native::vectorized_elementwise_kernel<(int)4, at::native::BinaryFunctor<float, float, float, "
        "at::native::binary_internal::MulFunctor<float>>, std::array<char *, (unsigned long)3>>(int, T2, T3)": (
            "vectorized_elementwise_kernel<MulFunctor>"
        ),
        "void onnxruntime::cuda::_BinaryElementWise<__half, __half, __half, onnxruntime::cuda::OP_Add<__half, __half, "
        "__half>, (bool)0, (bool)1, (int)256, (int)4, int>(int, onnxruntime::cuda::TArray<long, (int)8>)": (
            "_BinaryElementWise<OP_Add<__half, __half, __half>>"
        ),
        "void onnxruntime::cuda::_UnaryElementWise<long, bool, onnxruntime::cuda::OP_Cast<long, bool>, 256, 4>("
        "long const*, bool*, onnxruntime::cuda::OP_Cast<long, bool>, long)": "_UnaryElementWise<OP_Cast<long, bool>>",
        "void onnxruntime::cuda::_TenaryElementWiseSimple<__half, (onnxruntime::cuda::BroadcastIndexType)0, (int)256>("
        "const bool *, const T1 *, const T1 *, T1 *, int)": "_TenaryElementWiseSimple",
        "void onnxruntime::cuda::BroadcastBiasKernel<__half, int, false>(__half const*, __half*, long)": (
            "BroadcastBiasKernel"
        ),
        "void onnxruntime::contrib::cuda::VectorizedBiasGeluKernel<__half>(long, const T1 *)": (
            "VectorizedBiasGeluKernel"
        ),
        "void onnxruntime::cuda::_Fill<int, (int)256, (int)4>(T1 *, T1, int)": "_Fill",
        "triton_poi_fused_gelu_view_3": None,
    },
    "gather": {
        "void at::native::vectorized_gather_kernel<(int)16, long>(char *, char *, T2 *, int, long, long, bool)": (
            "vectorized_gather_kernel"
        ),
        "void onnxruntime::cuda::_GatherKernel<short>(long, long, onnxruntime::cuda::DivMod<int>, const void *)": (
            "_GatherKernel"
        ),
        "void onnxruntime::contrib::cuda::EmbedLayerNormKernel<__half, (unsigned int)256>(int, const int *)": (
            "EmbedLayerNormKernel"
        ),
        "triton_red_fused_add_embedding_native_layer_norm_slice_0": None,
        "void at::native::<unnamed>::indexSelectLargeIndex<c10::Half, long, unsigned int, (int)2>(int)": (
            "indexSelectLargeIndex"
        ),
    },
    "copy": {
        "void vllm::reshape_and_cache_flash_kernel<__hip_bfloat16, __hip_bfloat16, (vllm::Fp8KVCacheDataType)0>("
        "__hip_bfloat16 const*)": "reshape_and_cache_flash_kernel",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase &)::"
        "[lambda() (instance 3)]::operator ()() const::[lambda(bool) (instance 1)], (int)4>(int, T1)": (
            "unrolled_elementwise_kernel<direct_copy_kernel_cuda>"
        ),
        "void onnxruntime::cuda::Transpose4DKernelParallelizeMultipleElementsPerThreadInInnermostDim<(int)2>("
        "onnxruntime::cuda::TArray<long, (int)8>)": (
            "Transpose4DKernelParallelizeMultipleElementsPerThreadInInnermostDim"
        ),
        "<unnamed>::transposeNoOverlap(__half *, const __half *, int, int)": "transposeNoOverlap",
        "(anonymous namespace)::transposeNoOverlap(__half*, __half const*, int, int)": "transposeNoOverlap",
        "memcpy32_post": None,
        "void at::native::<unnamed>::CatArrayBatchedCopy<c10::Half, unsigned int, (int)3, (int)64, (int)64>(T1 *)": (
            "CatArrayBatchedCopy"
        ),
        "void onnxruntime::cuda::_SliceKernel<(bool)0, (int)3, float>(onnxruntime::cuda::TArray<long, (int)8>)": (
            "_SliceKernel"
        ),
    },
    "other": {
        "void at::native::reduce_kernel<(int)512, (int)1, at::native::ReduceOp<bool, at::native::func_wrapper_t<bool, "
        "at::native::and_kernel_cuda(at::TensorIterator &)::[lambda() (instance 1)]::operator ()() const::"
        "[lambda(bool, bool) (instance 1)]>, unsigned int, bool, (int)4, (int)4>>(T3)": (
            "reduce_kernel<and_kernel_cuda>"
        ),
        "triton_red_fused_all_eq_0": None,
    },
    "unknown": {"void my::own_thing<float>(float *)": "own_thing"},
}
"""Class to full names to short ones (none: the same). The C++ of Nsight Systems and of CUPTI differs."""

DECODERS = {
    "sampling": {
        "likeliest": None,
        (
            "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<c10::Half, at::native::ArgMaxO"
            "ps<float>, unsigned int, long, 4, 4> >(at::native::ReduceOp<c10::Half, at::native::ArgMaxO"
            "ps<float>, unsigned int, long, 4, 4>)"
        ): "reduce_kernel<ArgMaxOps>",
        ("triton_red_fused_argmax_0"): None,
        ("_gumbel_sample_kernel"): None,
        ("_topk_topp_kernel"): None,
        ("_topk_log_softmax_kernel"): None,
        (
            "void flashinfer::sampling::TopKTopPSamplingFromProbKernel<1024u, (cub::BlockScanAlgorithm)"
            "2, true, float, int>(float*, int*)"
        ): "TopKTopPSamplingFromProbKernel",
        (
            "void onnxruntime::contrib::cuda::GreedySearchTopOneStage1Kernel<__half, 256>(__half const*"
            ", int, int, __half*, int*)"
        ): "GreedySearchTopOneStage1Kernel",
    },
    "attention": {
        (
            "onnxruntime::contrib::cuda::H64::grp16_fp16::kernel_mha(unsigned int, unsigned int, float,"
            " Vec<__half, 64u>*)"
        ): "kernel_mha",
        (
            "void onnxruntime::flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<64, 64, 256, 4, "
            "false>, false, true>(onnxruntime::flash::Flash_fwd_params)"
        ): "flash_fwd_splitkv_kernel",
        (
            "void onnxruntime::contrib::cuda::UnpackQKV<__half, true>(__half const*, __half*, __half*, "
            "__half*, int, int, int, int)"
        ): "UnpackQKV",
        (
            "onnxruntime::contrib::cuda::GetSequenceLengths(int const*, int*, int*, int*, int*, int*, i"
            "nt*, int, int, bool)"
        ): "GetSequenceLengths",
        (
            "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::Col"
            "lectiveMainloopFwdSm90<2> > > >(flash::Params)"
        ): "device_kernel",
        ("kernel_unified_attention_2d"): None,
        ("reduce_segments"): None,
        (
            "void pytorch_flash::flash_fwd_splitkv_combine_kernel<pytorch_flash::Flash_fwd_kernel_trait"
            "s<64, 64, 256, 4> >(pytorch_flash::Flash_fwd_params)"
        ): "flash_fwd_splitkv_combine_kernel",
        (
            "void onnxruntime::contrib::cuda::UnpackRoPEAppend<__half, __half, 16, 64>(__half const*, __half*, void*)"
        ): "UnpackRoPEAppend",
    },
    "copy": {
        (
            "void onnxruntime::contrib::cuda::ConcatNewToPastKVFused<float2, __half>(int, int, float2 c"
            "onst*, float2 const*)"
        ): "ConcatNewToPastKVFused",
        (
            "void onnxruntime::contrib::cuda::ConcatTensorToTensor<__half>(int, __half const*, __half const*, __half*)"
        ): "ConcatTensorToTensor",
        (
            "void at::native::index_elementwise_kernel<128, 4, at::native::gpu_index_kernel<at::native:"
            ":index_put_kernel_impl<at::native::OpaqueType<2> >(at::TensorIterator&)::{lambda()#1}>>(lo"
            "ng)"
        ): "index_elementwise_kernel<gpu_index_kernel>",
        ("reshape_and_cache_kernel_flash"): None,
    },
    "elementwise": {
        (
            "void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*, c10::BFloat16*, c10::BFloat16*)"
        ): "rotary_embedding_kernel",
    },
    "normalization": {
        "normalization": None,
        (
            "void vllm::fused_add_rms_norm_kernel<c10::Half, 8>(c10::Half*, c10::Half*, c10::Half const"
            "*, float, int, int)"
        ): "fused_add_rms_norm_kernel",
        ("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0"): None,
    },
    "gemm": {
        "product": None,
        "streamed": None,
        (
            "void gemv2T_kernel_val<int, int, __half, __half, __half, float, 128, 16, 4, 4, false, true>(int)"
        ): "gemv2T_kernel_val",
        (
            "void internal::gemvx::kernel<int, int, __half, __half, __half, float, false, true, false, "
            "false, 7, false>(int)"
        ): "gemvx::kernel",
    },
    "other": {
        ("_compute_slot_mappings_kernel"): None,
        ("_topk_forward"): None,
        "pooling": None,
    },
    "gather": {"embedding": None, "new_token": None},
}
"""The same of kernels that decoders and samplers run: names of vLLM, ONNX Runtime, PyTorch and ``ceilings.kernels``."""


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [(kind, *entry) for table in (NAMES, DECODERS) for kind, names in table.items() for entry in names.items()],
)
def test_kernel_names(kind, name, shown):
    assert (kernel_class(name), short(name)) == (kind, shown or name)


@pytest.mark.parametrize("stack", ["torch-cuda-eager", "onnxruntime-cuda-graph"])
def test_both_recorders_of_a_real_capture_name_the_same_kernels(stack):
    """Each with the other's C++; CUPTI also reports the kernel by which the driver copies inside of a graph."""
    both = [store.read(DATA / f"{stack}.{source}.sqlite") for source in SOURCES]
    names = [{kept.names[name] for name in kept.operations.name if name >= 0} for kept in both]
    assert {kernel_class(name) for name in names[0] | names[1]}.isdisjoint({"unknown"})
    one, other = ({(kernel_class(name), short(name)) for name in kernels} for kernels in names)
    assert one ^ other <= {("copy", "memcpy32_post")}
    assert all(len({short(name) for name in kernels}) >= len(kernels) - 1 for kernels in names), (
        "short names that coincide"
    )


def test_every_pattern_has_a_class_that_the_tables_know():
    assert {kind for kind, *_ in TABLE} <= set(NAMES) | set(DECODERS)


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
    return planted.accounted(planted.eager)


@pytest.fixture(scope="module")
def graph():
    return planted.accounted(planted.graph)


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


def test_slow_iterations_are_explained_by_what_they_have_more_of(eager, graph):
    assert max(eager["jitter"]["host_ns"], key=eager["jitter"]["host_ns"].get) == "framework"
    assert max(eager["jitter"]["device_ns"], key=eager["jitter"]["device_ns"].get) == "idle_host"
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


def test_parts_whose_medians_do_not_add_up_are_flagged():
    """Iterations of three kinds: each part is short in two of them, and the account of each closes."""
    events = Events()
    for number, (unlaunched, busy) in enumerate([(60, 20), (20, 60), (20, 20)] * 3):
        begin = 110 * number
        events.mark(begin, begin + 100)
        start = begin + unlaunched
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
    axes = ["batch", "sequence"]
    assert [name for name in tables.budgets.columns if name not in axes] == BUDGET_COLUMNS and len(budgets) == 2
    eager = budgets.loc["torch-cuda-eager"]
    kernels = tables.kernels[tables.kernels["runtime"] == "torch-cuda-eager"]
    assert [name for name in tables.kernels.columns if name not in axes] == KERNEL_COLUMNS
    assert kernels["count"].sum() == 120
    assert kernels["us"].sum() == pytest.approx(eager["gpu_busy_ms"] * 1e3, rel=0.01)
    assert eager["tracing_ratio"] == pytest.approx(eager["iteration_ms"] / 1.08, rel=0.02)
    page = observations(
        maker.plan() | {"traces": {"cells": ["*"], "source": "cupti", "reason": None}}, tables, Evidence(), "plots"
    )
    assert "is launch-bound: 120 launches of 8.74 µs each (framework included) against 330 µs of work" in page
    assert "is kernel-bound: the device works 0.272 of 0.353 ms (77%)" in page
    assert "of the work, first `gatherKernel` (18 of 4.0" in page
    assert "the slowest 1 iteration of 30 took 534 µs longer" in page
    assert eager[list(UNSTEADY_COLUMNS)].tolist() == [0, 0, 0]
    assert "Steady state: in 2 of 2 checked captures each iteration has the same kernels, copies and calls" in page
    assert page.index("## Where the time goes") < page.index("plots/latency_budget.png") < page.index("## Not run")
    for name in ("latency_budget", "iteration_timeline"):
        style.save(draw(name, tables), tmp_path / "a.svg", tmp_path / "a.png")
        svg = (tmp_path / "a.svg").read_bytes()
        figure = draw(name, tables)
        style.save(figure, tmp_path / "b.svg", tmp_path / "b.png")
        assert (tmp_path / "b.svg").read_bytes() == svg
        shown = [
            label.get_text() for axis in figure.axes for label in (axis.title, *axis.texts, *axis.get_yticklabels())
        ]
        shown += [axis.get_title("left") for axis in figure.axes]
        for cell, bound in (("torch-cuda-eager fp16", "launch-bound"), ("onnxruntime-cuda fp16", "kernel-bound")):
            assert any(cell in text for text in shown) and any(bound in text for text in shown)


def test_idle_time_does_not_look_like_work_in_grey(tmp_path):
    def grey(look):
        return sum(weight * part for weight, part in zip((0.299, 0.587, 0.114), to_rgb(look["facecolor"]), strict=True))

    assert min(map(grey, parts.IDLE_LOOKS.values())) > 0.2 + max(map(grey, parts.CLASS_LOOKS.values()))
    on_a_bar = [*parts.CLASS_LOOKS.values(), *parts.IDLE_LOOKS.values()]
    looks = sorted((look.get("hatch", ""), grey(look)) for look in on_a_bar)
    assert all(a[0] != b[0] or b[1] - a[1] > 0.1 for a, b in itertools.pairwise(looks))
    tables = collect(planted.study(tmp_path).plan())
    (legend,) = draw("latency_budget", tables).legends
    assert "median latency, not traced" in [label.get_text() for label in legend.get_texts()]
    tables.budgets["untraced_p50_ms"] = None
    (legend,) = draw("latency_budget", tables).legends
    assert "median latency, not traced" not in [label.get_text() for label in legend.get_texts()]


def test_timelines_of_a_shape_have_one_scale_and_the_common_shape_comes_first(tmp_path, monkeypatch):
    maker = planted.study(tmp_path, batches=(32, 1))
    maker.add(planted.planted_study.GPU, "onnxruntime-cuda", "fp32", 32, 128)  # measured, not captured
    tables = collect(maker.plan())
    monkeypatch.setattr(iteration_timeline, "MOST", 3)
    figure = draw("iteration_timeline", tables)
    assert [axis.get_title("left").split(" on ")[0] for axis in figure.axes] == [
        "onnxruntime-cuda fp16, distilbert b1-s128",
        "onnxruntime-cuda fp16, distilbert b32-s128",
        "torch-cuda-eager fp16, distilbert b32-s128",
    ]
    alone, graph, eager = figure.axes
    assert "1 launch, 90 kernels" in graph.get_title("left")
    assert "\n3 of 4 captured cells; the others open in Perfetto" in eager.get_xlabel()
    assert graph.get_xlim() == eager.get_xlim() != alone.get_xlim()
    assert alone.child_axes == eager.child_axes == []
    (enlarged,) = graph.child_axes
    assert enlarged.get_xlim() == alone.get_xlim()
    assert [len(one.collections) for one in (enlarged, graph, alone)] == [len(alone.collections)] * 3

    # With names as long as those of a decoder on a GPU, 85 letters, a title still ends within the picture.
    long = "torch-compile-reduce-overhead fp16, gpt2-medium-8k"
    monkeypatch.setattr(iteration_timeline, "configuration_label", lambda *_: long)
    figure = draw("iteration_timeline", tables)
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.get_title("left").startswith(long) and axis.get_title("left").endswith("-bound")
        assert axis.get_tightbbox().x1 <= figure.bbox.width


def test_the_report_without_captures(tmp_path):
    maker = planted.planted_study.StudyMaker(tmp_path)
    cell = maker.add(planted.planted_study.GPU, "torch-cuda-eager", "fp16", 1, 128)
    tables = collect(maker.plan())
    assert tables.budgets.empty and where_time_goes(maker.plan(), tables) == ""
    page = observations(maker.plan(), tables, Evidence(), "plots")
    assert "latency_budget" not in page and "Where the time goes" not in page
    asked = maker.plan() | {"traces": {"cells": ["*"], "source": None, "reason": "nsys is not on PATH"}}
    assert "Nothing can be captured here: nsys is not on PATH." in where_time_goes(asked, tables)
    cell["budget"] = str(tmp_path / "x.budget.json")
    failed = {"status": "failed", "failure": {"kind": "out-of-memory", "message": "too large"}}
    head = {"cell": {name: cell[name] for name in KEY}, "source": "cupti", "tool": None, "warmup_p50_ns": None}
    records.write(cell["budget"], "budget", {**head, **failed, "provenance": planted_records.PROVENANCE})
    page = where_time_goes(asked | {"cells": maker.cells}, collect(maker.plan()))
    assert "torch-cuda-eager fp16 distilbert b1-s128: out-of-memory: too large" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "has schema version 99"),
        ({"cell": {}}, "is damaged"),
        ({"verdict": None}, "is damaged"),
    ],
)
def test_a_bad_budget_is_named_with_the_remedy(tmp_path, change, message):
    maker = planted.study(tmp_path)
    path = Path(maker.cells[0]["budget"])
    planted_records.edit(path, **change)
    with pytest.raises(UserError, match=f"{message}.*delete it and run `snakemake"):
        collect(maker.plan())


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


@pytest.mark.parametrize("shape", [planted.eager, planted.graph], ids=["eager", "graph"])
def test_a_prefill_between_two_steps_counts_in_no_iteration(shape):
    """A cell that generates is captured step by step, with a prefill outside of the marks before each request."""

    def record(prefilled):
        events, now = Events(), 0.0
        for number in range(24):
            begin, now = now + 10, shape(events, now + 10, 1 + 0.002 * (number % 7))
            events.mark(begin, now)
            for kernel in range(40) if prefilled and number % 6 == 5 else ():
                at = now + 10 + 6 * kernel
                events.launch(at, at + 3, (at + 5, at + 60, "prefill_gemm", 7 if kernel % 2 else 9))
            now += 400
            events.call(now - 20, now - 5, "cudaStreamSynchronize_v3020")
        made = events.capture(iterations=24)
        return budget_record(made, health.refuse_unsound(made, "test"))

    assert record(True) == record(False)
