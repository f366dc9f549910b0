"""What vLLM's engine says of itself, held against what a cell asks of it: vLLM falls back without an error.

Facts are those of ``ceilings.runtimes.vllm_engine.OfflineEngine.describe``, as a record's ``runtime`` holds them.
Standard library only: the report judges records by the same rules as the runner its engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings.workload import generation
from ceilings.workload.shape import Shape

DTYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Type of weights and cache, by precision."""

OF_PREFILLS = ("PIECEWISE", "FULL", "FULL_AND_PIECEWISE")
"""Modes of CUDA graphs that hold for a step that reads prompts; others are of decode steps alone."""

NARROW = ("fp8", "int8", "fp4", "int4")
"""What occurs in the name of a type for a cache that is narrower than any precision here."""


def unlike(facts: Mapping[str, Any], precision: str, shape: Shape, mode: str) -> str | None:
    """In what an engine is not what its cell says; None where it is.

    Args:
        facts: Of the engine.
        precision: Of the cell.
        shape: Of the cell.
        mode: ``default``, ``compile``, which has no CUDA graphs, or ``eager``.
    """
    room = (facts["blocks"] - 1) * facts["block_size"]  # one block is never used
    graphs, compiled = facts["cudagraph_mode"] != "NONE", facts["compilation"] != "NONE"
    for wrong, what in (
        (facts["dtype"] != DTYPES[precision], f"computes in {facts['dtype']}"),
        (any(kind in facts["cache_dtype"] for kind in NARROW), f"keeps its cache in {facts['cache_dtype']}"),
        (facts["prefix_caching"], "keeps prefixes of prompts, so a prompt that comes again is not read"),
        (graphs != (mode == "default"), f"{'captures' if graphs else 'captures no'} CUDA graphs in mode {mode}"),
        (compiled != (mode != "eager"), f"{'compiles' if compiled else 'compiles nothing'} in mode {mode}"),
        (room < shape.batch * generation.context(shape), f"has room for {room} tokens in its cache"),
        (facts["max_num_seqs"] < shape.batch, f"works on {facts['max_num_seqs']} rows at once"),
        (
            facts["max_num_batched_tokens"] < shape.batch * shape["prompt"],
            f"reads {facts['max_num_batched_tokens']} tokens of prompts in a step",
        ),
    ):
        if wrong:
            return f"vLLM's engine {what}, which is not what {precision} at {shape} asks for"
    return None


def replays(facts: Mapping[str, Any], shape: Shape) -> bool:
    """Whether an iteration of a shape runs in CUDA graphs: one with more tokens than any captured size does not."""
    if generation.phase(shape) == "decode":
        fits, tokens = facts["cudagraph_mode"] != "NONE", shape.batch
    else:
        fits, tokens = facts["cudagraph_mode"] in OF_PREFILLS, shape.batch * shape["prompt"]
    return bool(fits and tokens <= max(facts["cudagraph_sizes"], default=0))
