"""What kind of work a kernel does, by its name.

The first pattern that occurs in the name decides. Order: what is special before what is general, since a name tells of
several things (a fused attention contains matrix products; a copy of PyTorch's is an elementwise kernel by template).
"""

from __future__ import annotations

import functools
import re

TABLE: tuple[tuple[str, str, str], ...] = (
    # kernels of ``ceilings.kernels``, by their whole names, beside attention, which any pattern of it knows
    ("gemm", r"^(product|streamed)$", "ours"),
    ("gather", r"^(embedding|new_token)$", "ours"),
    ("normalization", r"^normalization$", "ours"),
    ("sampling", r"^likeliest$", "ours"),
    ("other", r"^pooling$", "ours"),
    # exchanges data with other devices; before all, since collectives reduce and gather
    (
        "communication",
        r"nccl(Dev)?Kernel|ncclSymk|^nccl:|rccl|nvshmem|rocshmem|mscclpp?_?kernel",
        "NCCL, RCCL, NVSHMEM",
    ),
    (
        "communication",
        r"cross_device_reduce|(all|one|two)_?shot_(all_?)?reduce|multimem|all_?reduce_?(fusion|kernel|norm|one|two|lamport)|"
        r"lamport|userbuffers|quickreduce|deep_ep::|symm_mem::|(reduce_scatter|all_?gather)_kernel",
        "all-reduces of vLLM, SGLang, TensorRT-LLM and Transformer Engine, DeepEP",
    ),
    # the choice of the next token; before attention and normalization, since it is a softmax of logits in part
    (
        "sampling",
        r"arg_?max|arg_min_max|gumbel|multinomial|topk_?topp|Top(K|P|KTopP)(Sampling|Renorm|Mask)|MinPSampling|SamplingFrom|"
        r"(rejection|typical)_\w*sample|sample_recovered|_sampled_and_|topk_log_softmax|_ranks_kernel|logprob_token|"
        r"_temperature_kernel|_min_p_kernel|penalt(y|ies)|bad_words|grammar_bitmask|apply_token_bitmask|"
        r"GreedySearch|BeamSearch|(Logits(Process)?|FilterLogits|ForceDecodingIds|NextToken)Kernel|banRepeatedTokens",
        "PyTorch, vLLM, FlashInfer, ORT",
    ),
    # attention computed by one kernel, and the helpers that exist only for it
    (
        "attention",
        r"fmha|flash_?(fwd|attn|attention)|flash_fprop|pytorch_flash|flash::",
        "FlashAttention, CUTLASS FMHA",
    ),
    (
        "attention",
        r"fused_multihead|multi_?head_attention|_mha_|mha_v\d|sdpa|flex_attention",
        "TensorRT, cuDNN, Inductor",
    ),
    (
        "attention",
        # BiasSoftmax is Add and Softmax of a graph whose attention is not fused.
        r"contrib::cuda::.*(AddBiasTranspose|TransposeQKV|TransposeCtx|MaskIndex|(?<!Bias)Softmax)",
        "ORT",
    ),
    (
        "attention",
        # xqa of grouped queries, one namespace a size of head and group; what unpacks for it and what sums its parts
        r"::kernel_mha\b|contrib::cuda::(UnpackQKV|UnpackRoPEAppend|UnpackV\b|Ungroup|PagedDecode|ApplyHeadSink|PagedXqa|GetSeqlens|"
        r"GetCumulativeSeqlens|GetSequenceLengths|ConvertHeadSink|PagedConvertHeadSink|ZeroFullyMasked|ZeroOutputForFully)",
        "ORT's grouped-query attention",
    ),
    # products of rotations: before products and look-ups, whose words occur in their names
    ("elementwise", r"rotary_?emb", "vLLM, ORT"),
    ("attention", r"attention", "any"),
    (
        "attention",
        r"attn_(fwd|bwd)|_attn_|sage_fwd|flash_?mla|mla_(decode|fwd|reduce)|flash_?infer\w*::\w*(Merge|Attention)|reduce_segments|"
        r"(Batch|Single)(Decode|Prefill)With|_fwd_grouped_kernel|^_fwd_kernel(_stage\d|_alibi)?$|_fwd_kernel_stage|prepare_varlen_num_blocks|(Persistent)?VariableLengthMergeStates",
        "SageAttention, FlashMLA, FlashInfer, AITER, Triton's of servers",
    ),
    # the cache of keys and values
    (
        "copy",
        r"reshape_(and_)?cache|store_kv_?cache|set_kv_buffer|concat_and_cache|copy_blocks|gather_cache|kv_?cache_copy|"
        r"swap_blocks|zero_kv_blocks|copy_page_indices|index_(copy|put|fill)_kernel",
        "vLLM, SGLang, PyTorch",
    ),
    (
        "copy",
        r"Concat(KVInPlace|NewToPastKV|TensorToTensor)|AppendKvToPresent|ReshapeAndCache|K[vV]CacheRows|PagedKVCache|"
        r"ReorderPastState|KeyCacheExpansion|BufferExpansion|StridedCopy",
        "ORT",
    ),
    # Inductor: tem templates of products, poi pointwise, per and red reductions; the name lists what is fused
    ("gemm", r"^triton_(tem_|mm|bmm|.*_gemm)", "Inductor"),
    # embeddings, also with a LayerNorm fused to them
    ("gather", r"EmbedLayerNorm", "ORT"),
    ("gather", r"^triton_\w*(embedding|gather|index_select)", "Inductor"),
    (
        "gather",
        r"embedding_?(bag|dense)?_?kernel|indexSelect|index_select|vectorized_gather|index_elementwise",
        "PyTorch",
    ),
    (
        "gather",
        r"_?Gather(ND|Elements|Block)?_?Kernel|cuGather|gatherAxis|__myl_Gath|\bgather_?kernel",
        "ORT, TensorRT",
    ),
    # statistics over a row, then scaling
    ("normalization", r"layer_?norm|rms_?norm|group_?norm|batch_?norm|RowwiseMoments|cuApplyLayerNorm", "any"),
    ("normalization", r"soft_?max", "any"),
    ("normalization", r"__myl_\w*(Mean\w*Sqrt|Max\w*Exp)", "TensorRT (Myelin)"),
    ("normalization", r"^triton_(per|red)_\w*(var_mean|native_norm|_norm|rsqrt)", "Inductor"),
    ("elementwise", r"^triton_(poi|for)_", "Inductor"),
    ("other", r"^triton_(per|red|spl|scan)_", "Inductor"),
    # matrix products, convolutions among them
    ("gemm", r"gemm|gemv|nvjet|cublas|splitKreduce|matmul|__myl_Fc|wgrad|dgrad|fprop|conv2d|convolve", "any"),
    ("gemm", r"^(void )?cutlass::(Kernel2?|device_kernel)<", "CUTLASS, not named more closely"),
    ("gemm", r"dot_kernel|reduce_1Block_kernel", "cuBLAS"),
    (
        "gemm",
        r"^Cijk_|^Custom_Cijk_|tensile|igemm|miopenSp3Asm|winograd|^(void )?MIOpenConv|_?xdlops|_?scudnn_|^bmm_|"
        r"^fused_moe|fmoe|marlin|machete|deep_gemm|scaled_mm|_mma_kernel|tinygemm|w[48]a(8|16)|grouped_mm|implicit_conv|"
        r"_matmul_ogs|hgmma",
        "Tensile, MIOpen, cuDNN, Triton and quantised products of servers",
    ),
    (
        "normalization",
        r"cudnn::bn_|\bbn_(fw|bw)_|MIOpenBatchNorm|cuCompute(Part)?Grad(GammaBeta|Input)",
        "cuDNN, MIOpen, Apex",
    ),
    (
        "normalization",
        r"Compute(Internal)?Gradients?\w*CUDAKernel|Compute(Backward)?FusedParams|GammaBetaBackward",
        "PyTorch's group norm",
    ),
    # moves data without computing
    (
        "copy",
        r"direct_copy|copy_kernel|CatArrayBatchedCopy|copyPacked|copyVectorized|genericReformat",
        "PyTorch, TensorRT",
    ),
    (
        "copy",
        r"transpose|permut|_?(Concat|Slice|Split|Pad|Expand|Tile)\w*Kernel|cuSliceLayer|nchwTo|ToNchw",
        "ORT, TensorRT",
    ),
    ("copy", r"^mem(cpy|set)\d*_", "the driver's own, for nodes of a graph"),
    ("copy", r"__myl_(Tran|Mov|Move|Resh|Repl|Slic|Conc|Cast)+_", "TensorRT (Myelin)"),
    # one value in, one value out
    ("elementwise", r"_(Unary|Binary|Ternary)ElementWise|elementwise|pointwise|gelu|relu|tanh|sigmoid", "any"),
    (
        "elementwise",
        r"_Fill\b|FillKernel|fill_kernel|FillFunctor|WhereKernel|CastKernel|_?(De)?quantize|cuda::_Clip<",
        "ORT",
    ),
    ("elementwise", r"onnxruntime::(contrib::)?cuda::\w*(Bias|Add|Scale|Clip)\w*Kernel", "ORT"),
    ("elementwise", r"__myl_", "TensorRT (Myelin)"),
    (
        "elementwise",
        r"act_and_mul|silu_and_mul|swiglu|\bsilu|rotary|rope|multi_tensor_apply|SubTensorOp|OpTensor|AdamFunctor|"
        r"dequant|quant_(kernel|fp8|int8)|per_token(_group)?_quant|dynamic_\w*quant|convert_fp8|dropout|add_bias|scalePackedTensor|clamp_",
        "vLLM, SGLang, Apex, MIOpen, PyTorch's optimisers",
    ),
    # known, and none of these
    (
        "other",
        r"reduce|reduction|cub::|thrust::|(?<!ten)sort|topk|scan|cumsum|arange|range_kernel|random|philox|distribution",
        "any",
    ),
    ("other", r"spin|sleep|barrier|nonzero|triu_tril|compact|isfinite", "any"),
    (
        "other",
        r"_pool(ing)?_|pool2d|Pooling|upsample|interpolate|average_pool|max_pool|grid_sample",
        "pooling, resampling",
    ),
    (
        "other",
        r"moe|routing|expert|bitmatrix|align_block_size|sampl(e|ing)|nll_loss|cross_entropy|loss|computeB?Offsets|bounds_check|find_long_segments|kv_indices|position_kernel|"
        r"slot_mapping|block_tables?|prepare_(prefill|pos|rope)_|post_update|seq_lens|_apply_write_kernel|PositionIds(Prompt|Token)",
        "servers, training",
    ),
    (
        "copy",
        r"linearize_index|\bfill_?kernel|set_?zero|memset|SubTensorOpWithScalar|scatter|index_put|roll_cuda|recat_copy|copy_page|Im2d2Col|Im2Col|to_dense|"
        r"cuda::(Range|Trilu|_EyeLike)Kernel|FillFromDataPtr|expand_(kernel|idx)",
        "any",
    ),
)
"""Class, pattern (case does not count), and whose kernels it is for."""

_COMPILED = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern, _ in TABLE)


@functools.lru_cache(maxsize=65_536)
def kernel_class(name: str) -> str:
    """One of ``taxonomy.KERNEL_CLASSES``; ``unknown`` where no pattern fits."""
    return next((kind for kind, pattern in _COMPILED if pattern.search(name)), "unknown")


_UNNAMED = re.compile(r"\(anonymous namespace\)|<unnamed>")
_TELLING = re.compile(
    r"\b(?!gpu_kernel_impl|[AB]?UnaryFunctor|BinaryFunctor)"  # these wrap the one that tells
    r"(?:OP_\w+(?:<[\w:, ]*>)?"  # ORT, with its types: of a cast they are what it does
    r"|\w*Functor\w*|\w+Ops\b|\w+(?=(?:<[^()]*>)?\([^()]*\)::[\[{]lambda)"  # PyTorch: a class, or a function's lambda
    r"|cutlass_\w+)"
)
"""The template argument that tells one kernel of a name from another."""


@functools.lru_cache(maxsize=65_536)
def short(name: str, length: int = 80) -> str:
    """A kernel's name for a table: without return type, namespaces, parameters, and all but the telling argument.

    The same for the C++ of both recorders. If it is still too long, its middle goes: Inductor numbers at the end.

    >>> short("void onnxruntime::cuda::_UnaryElementWise<__half, __half, onnxruntime::cuda::OP_Gelu<__half>>(long)")
    '_UnaryElementWise<OP_Gelu<__half>>'
    """
    qualified, arguments = _split(_UNNAMED.sub("", name))
    *namespaces, base = qualified.split("::")
    if base == "kernel" and namespaces:
        base = f"{namespaces[-1]}::{base}"
    telling = _TELLING.search(arguments)
    shown = (f"{base}<{telling[0]}>" if telling else base) or name
    tail = length // 3
    return shown if len(shown) <= length else f"{shown[: length - tail - 1]}…{shown[-tail:]}"


def _split(name: str) -> tuple[str, str]:
    """A function's qualified name, and its template arguments."""
    depth, qualified, arguments = 0, "", ""
    for letter in name:
        depth -= letter == ">"
        if depth:
            arguments += letter
        elif letter == "(":
            break
        elif letter == " ":  # so far it was the return type
            qualified = arguments = ""
        elif letter not in "<>":
            qualified += letter
        depth += letter == "<"
    return qualified, arguments
