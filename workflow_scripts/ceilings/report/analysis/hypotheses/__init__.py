"""Claims of earlier studies, held against this one's cells: supported, refuted, or what would decide them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ceilings.report.analysis.hypotheses import decode_claims, served_claims, shape_claims, stacks, tails_and_copies
from ceilings.report.analysis.hypotheses import lower_precision as precision
from ceilings.report.analysis.hypotheses.judgement import Judgement
from ceilings.report.analysis.measured import Measured
from ceilings.report.tables.evidence import Evidence

__all__ = ["HYPOTHESES", "Hypothesis", "Judgement", "judged"]

DISTILBERT = "DistilBERT, RTX 3060 Ti"
"""The model and the device of an earlier study."""


@dataclass(frozen=True)
class Hypothesis:
    """A claim of others.

    Attributes:
        theirs: Their reading, with its numbers.
        source: What they measured it on.
        judge: Decides it from the cells.
    """

    number: int
    claim: str
    theirs: str
    source: str
    judge: Callable[[Measured, Evidence], Judgement]


def judged(measured: Measured, evidence: Evidence) -> list[tuple[Hypothesis, Judgement]]:
    """Every claim with what the study says of it."""
    return [(hypothesis, hypothesis.judge(measured, evidence)) for hypothesis in HYPOTHESES]


HYPOTHESES = (
    Hypothesis(
        1,
        "At batch 1, sequence 128 ONNX Runtime's CUDA provider already uses the GPU well",
        "kernels dominate, CPU overhead modest but not negligible",
        DISTILBERT,
        stacks.saturated,
    ),
    Hypothesis(
        2,
        "For static FP16, TensorRT's provider and native TensorRT agree in mean latency and differ in p99",
        "nearly the same mean and throughput",
        "DistilBERT, BERT-base, RTX 3060 Ti",
        stacks.provider_equals_native,
    ),
    Hypothesis(
        3,
        "Most subgraphs are already fused; further fusion gives diminishing returns",
        "what remains is small and launch-bound",
        "DistilBERT, BERT-base, RTX 3060 Ti, Nsight Systems",
        stacks.fusion_diminishes,
    ),
    Hypothesis(
        4,
        "For small static work the mean is stable and the p99 is not",
        "launch overhead, submission jitter and synchronisation dominate the variance",
        "DistilBERT, BERT-base, RTX 3060 Ti",
        tails_and_copies.mean_stable_tail_not,
    ),
    Hypothesis(
        5,
        "CUDA graphs tighten the tail and cut latency",
        "10 to 20% latency typical, more deterministic",
        "DistilBERT, BERT-base, RTX 3060 Ti; a general guide",
        tails_and_copies.graphs_tighten,
    ),
    Hypothesis(
        6,
        "INT8 does not pay at small batch and sequence, and pays at larger work",
        "calibration and Q/DQ cost can outweigh the gain",
        "DistilBERT, BERT-base, RTX 3060 Ti (unfinished)",
        precision.int8_needs_size,
    ),
    Hypothesis(
        7,
        "TensorRT's provider can be slower than the CUDA provider, and FP16 does not guarantee a speed-up",
        "depending on hardware",
        "DistilBERT SST-2, GTX 1650",
        stacks.tensorrt_can_lose,
    ),
    Hypothesis(
        8,
        "Dynamic INT8 on a CPU is slower at batch 1 and faster an inference at large batches",
        "overhead against amortisation",
        "DistilBERT, CPU, batches 1, 4, 8, 16",
        precision.dynamic_int8_on_cpu,
    ),
    Hypothesis(
        9,
        "The runtime matters more than the precision; graph execution beats eager",
        "through lower Python overhead",
        "DistilBERT, CPU, batches 1, 4, 8, 16",
        precision.runtime_over_precision,
    ),
    Hypothesis(
        10,
        "TensorRT's provider in FP16 beats the CUDA provider in FP32, whose batch 4 takes as long as batch 1",
        "4.7 against 31.1 ms compute, 15.9 against 41.9 ms a request; 31.0 ms at batch 4",
        "OpenCLIP ViT-B-32, RTX A4000, Triton server",
        shape_claims.tensorrt_over_batches,
    ),
    Hypothesis(
        11,
        "FP16 outputs keep a cosine similarity above 0.999 to FP32's",
        "embeddings above 0.999",
        "OpenCLIP ViT-B-32, RTX A4000, Triton server",
        precision.fp16_cosine,
    ),
    Hypothesis(
        12,
        "A client's latency over a network hides the whole difference",
        "210 to 450 ms at the client",
        "OpenCLIP ViT-B-32, RTX A4000, Triton server",
        served_claims.network,
    ),
    Hypothesis(
        13,
        "Loading with an engine build takes minutes, from the cache half a minute",
        "2 to 5 minutes, then about 30 s",
        "OpenCLIP ViT-B-32, RTX A4000, Triton server",
        served_claims.first_start,
    ),
    Hypothesis(
        14,
        "TensorRT is usually fastest once built; vLLM is for autoregressive generation",
        "no numbers",
        "GPT-2 Medium, BERT-base SST-2 (a harness without results)",
        stacks.fastest,
    ),
    Hypothesis(
        15,
        "Pinned host memory copies 2 to 3 times faster than pageable",
        "2 to 3×",
        "a general guide",
        tails_and_copies.pinned,
    ),
    Hypothesis(
        16,
        "FP16 is 2 to 4×, INT8 4 to 8×, TF32 about 2× and FP8 4 to 8× as fast as FP32",
        "on GPUs, FP8 on Hopper",
        "a general guide",
        precision.factors_of_precision,
    ),
    Hypothesis(
        17,
        "Behind dynamic batching the CUDA provider redoes something at every change of the batch size, and TensorRT "
        "does not",
        "1.1 ms at a repeated shape, 18 ms at an alternating one (FP16)",
        "CLIP ViT-B-32 image tower, ONNX Runtime 1.31.1, H100",
        shape_claims.changing_batches,
    ),
    Hypothesis(
        18,
        "With CUDA graphs a decode step at batch 1 is 7 times faster, and still takes 6 times as long as to read the "
        "weights",
        "11.3 to 1.5 ms",
        "GPT-2 Medium FP16, vLLM 0.26, H100",
        decode_claims.graphs_at_batch_1,
    ),
)
"""In the order they were collected."""
