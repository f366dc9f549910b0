"""The attention kernel compiled ahead, for programs without Triton: a binary that takes any batch and any sequence.

Sizes that a launch from Python compiles in (``attention.launch``) are arguments here; a head's width stays a constant.
"""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ceilings.kernels.attention import LEAST, attention
from ceilings.kernels.launch import power_of_two
from ceilings.kernels.onnxruntime_attention import Image
from ceilings.kernels.resources import ALIGNED
from ceilings.kernels.tiles import MANY, MANY_TOKENS, AttentionTile, Tiles

ARCHITECTURE = 90
"""Compute capability 9.0: the assembler makes it ``sm_90a``, which runs on no other."""

WIDTHS = 16
"""A head's width is a multiple of it: rows then begin at addresses that a load of 16 bytes takes."""

TILES = ((MANY_TOKENS, MANY.attention), (1, Tiles().attention))
"""From how many tokens on which tile serves, the most first."""


def images(width: int, masked: bool) -> list[Image]:
    """Kernels for heads of a width, the one for the most tokens first.

    Raises:
        ValueError: A width that is no multiple of ``WIDTHS``, or a kernel that asks for more than its arguments.
    """
    if width % WIDTHS:
        raise ValueError(f"heads have {width} numbers; the kernel for GPUs takes multiples of {WIDTHS}")
    return [_image(width, masked, tokens, tile) for tokens, tile in TILES]


def _image(width: int, masked: bool, tokens: int, tile: AttentionTile) -> Image:
    compiled = compile_ahead(width, masked, tile)
    facts = compiled.metadata
    asked = {"scratch": facts.global_scratch_size + facts.profile_scratch_size, "clusters": facts.num_ctas - 1}
    if any(asked.values()):
        raise ValueError(f"the compiled kernel needs a launch that the library does not make: {asked}")
    return Image(width, masked, tokens, tile, int(facts.shared), str(facts.name), compiled.asm["cubin"])


def compile_ahead(width: int, masked: bool, tile: AttentionTile) -> Any:
    """The kernel as Triton compiles it, sizes left open."""
    tensors = ("query", "key", "value", *(["mask"] if masked else []), "result")
    pointers = {name: "*i64" if name == "mask" else "*fp16" for name in tensors}
    sizes = dict.fromkeys(("STRIDE", "RESULT_STRIDE", "SEQUENCE"), "i32")
    constants = {
        **({} if masked else {"mask": None}),
        **{"HEADS": None, "WIDTH": width, "SCALE": width**-0.5, "FACTOR": 1.0, "OVERLAPPED": False},
        **{"BLOCK_QUERIES": tile.queries, "BLOCK_KEYS": tile.keys, "BLOCK_WIDTH": power_of_two(width, LEAST)},
    }
    signature = {**pointers, **sizes, **dict.fromkeys(constants, "constexpr")}
    aligned = {(attention.arg_names.index(name),): ALIGNED for name in (*pointers, "STRIDE", "RESULT_STRIDE")}
    source = ASTSource(attention, signature, constants, aligned)
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return triton.compile(source, target=GPUTarget("cuda", ARCHITECTURE, 32), options=options)
