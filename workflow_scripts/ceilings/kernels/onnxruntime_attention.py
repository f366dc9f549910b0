"""Builds the library with the operator ``ai.ceilings::Attention`` of ONNX Runtime: C, and Triton's kernel in it.

A C compiler suffices: what is used of ONNX Runtime's interface is declared in ``onnxruntime_abi.h``, and the driver of
the GPU is opened when a session needs it.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ceilings import files
from ceilings.errors import CellFailure
from ceilings.graphs.attention_operator import Heads
from ceilings.kernels.tiles import AttentionTile
from ceilings.lifetime import temporary_folder

SOURCE = Path(__file__).parent / "attention_operator.c"
HEADERS = ("attention_call.h", "attention_on_cpu.h", "attention_on_cuda.h", "onnxruntime_abi.h")
"""What the source includes, all beside it."""

IMAGES = "attention_images.h"
"""What is written for a build: the compiled kernels."""

COMPILERS = ("cc", "gcc", "clang")
"""The first that PATH has compiles it."""

FLAGS = ("-std=gnu11", "-O3", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden")
LIBRARIES = ("-lm", "-ldl")


class Image(NamedTuple):
    """A compiled kernel.

    Attributes:
        width: Numbers of a head.
        masked: Whether it reads a mask.
        tokens: From how many tokens on it serves.
        tile: How it is cut.
        shared: Bytes of shared memory that a launch asks for.
        name: Of the function.
        binary: For the driver.
    """

    width: int
    masked: bool
    tokens: int
    tile: AttentionTile
    shared: int
    name: str
    binary: bytes


def build(heads: Iterable[Heads], output: Path) -> dict[str, Any]:
    """Build the library that a graph needs.

    Every library has kernels of FP32 and FP16 for a CPU. Where Triton is installed, it has one of FP16 for a GPU of
    compute capability 9.0 for each kind of heads that the graph has in FP16.

    Args:
        heads: Of the graph's attentions.
        output: The library.

    Returns:
        What is in it, as its record has it.

    Raises:
        CellFailure: There is no C compiler, or it refuses the source, or no kernel is made for these heads.
    """
    made = compiled_images(heads)
    compiler = compile_library(output, made)
    return {
        "compiler": compiler,
        "kernels": ["cpu float32", "cpu float16", *(["cuda float16"] if made else [])],
        "images": [
            {
                **{"width": one.width, "masked": one.masked, "tokens": one.tokens, "shared": one.shared},
                **{"queries": one.tile.queries, "keys": one.tile.keys, "warps": one.tile.warps},
                **{"stages": one.tile.stages, "bytes": len(one.binary)},
            }
            for one in made
        ],
    }


def compiled_images(heads: Iterable[Heads]) -> list[Image]:
    """The kernels for a GPU; none where Triton is not installed or nothing is in FP16.

    Raises:
        CellFailure: Heads that the kernel does not take.
    """
    halves = sorted({(one.width, one.masked) for one in heads if one.kind == "float16"})
    if not halves or importlib.util.find_spec("triton") is None:
        return []
    from ceilings.kernels import attention_images

    try:
        return [image for width, masked in halves for image in attention_images.images(width, masked)]
    except ValueError as error:
        raise CellFailure("unsupported", f"{error}") from error


def compile_library(output: Path, images: Sequence[Image], definitions: Sequence[str] = ()) -> str:
    """Compile the C source, with kernels for a GPU in it if any are given.

    Args:
        output: The library.
        images: Of the kernels.
        definitions: More options of the compiler.

    Returns:
        The compiler's name and version, as it says them.

    Raises:
        CellFailure: There is no C compiler, or it refuses the source.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CellFailure(
            "build-failed",
            f"attention for ONNX Runtime is built by a C compiler, and PATH has none of {', '.join(COMPILERS)}; "
            f"install gcc 12 or newer",
        )
    with temporary_folder() as folder, files.atomic(output) as temporary:
        if images:
            Path(folder, IMAGES).write_text(images_in_c(images), encoding="utf-8")
            definitions = ("-DWITH_CUDA", *definitions)
        command = [compiler, *FLAGS, *definitions, "-I", folder, str(SOURCE), "-o", str(temporary), *LIBRARIES]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[-300:])
            raise CellFailure(
                "build-failed", f"{Path(compiler).name} refuses {SOURCE.name} ({said}); gcc 12 or newer takes it"
            )
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, errors="replace", check=False)
    return next(iter(version.stdout.splitlines()), Path(compiler).name)


def images_in_c(images: Sequence[Image]) -> str:
    """The kernels as a header: their bytes, and the table that says which is which."""
    lines = []
    for number, one in enumerate(images):
        content = ",".join(map(str, one.binary))
        lines.append(f"static const unsigned char IMAGE_{number}[] __attribute__((aligned(64))) = {{{content}}};")
    rows = [
        f"    {{{one.width}, {int(one.masked)}, {one.tokens}, {one.tile.queries}, {one.tile.warps}, {one.shared}, "
        f'"{one.name}", IMAGE_{number}}},'
        for number, one in enumerate(images)
    ]
    return "\n".join((*lines, "static const struct image IMAGES[] = {", *rows, "};", ""))
