"""Lessons on one device: variants of a kernel that differ in one thing, what each must do, and which counter shows it.

Arrays are larger than an L2 cache, so that each variant meets the memory. What a variant must do is counted by hand
here, and held against the hardware's counters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

WARP, TILE, ROWS = 32, 32, 8
FLOAT, SECTOR = 4, 32

OUTPUTS = 1 << 24
"""Floats that a strided copy writes."""

STRIDES = (1, 2, 4, 8, 16, 32)
EDGE = 8192
"""Of the transposed matrix."""

SUMMED = 1 << 28
"""Floats that the sums read."""

RESIDENT = (1, 2, 4, 8)
"""Blocks of 256 threads that a multiprocessor holds."""

THREADS = 256
RESERVED = 1024
"""Bytes of shared memory that the driver takes of each block."""

ROUNDS = 20_000
"""Operations of a chain."""

CHAIN_THREADS = 128
WAVES = ((1, 2, 0), (1, 1, 0), (1, 1, 1), (3, 2, 0), (2, 1, 0), (2, 1, 1))
"""Blocks of a chain, as a fraction of a wave and blocks on top of it."""

PRODUCT = 8192
"""Edge of the product with an epilogue; its depth is a tile's."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """One kernel.

    Attributes:
        arguments: ``in``, ``out``, ``left``, ``right`` and ``bias`` are buffers, whole numbers are themselves.
        wide: Whether its whole numbers have 64 bits.
        expected: What its counters must show, by the names of ``ceilings.traces.counters``.
    """

    kernel: str
    grid: tuple[int, int]
    block: tuple[int, int]
    arguments: tuple[str | int, ...]
    shared: int = 0
    wide: bool = False
    expected: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Variant:
    """Launches that together do the work of a lesson."""

    name: str
    launches: tuple[Launch, ...]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """Variants of the same work, of which ``cause`` differs and decides the time.

    Attributes:
        title: What it teaches.
        varied: What the names of the variants are.
        cause: The counter that shows why.
        meaning: What that counter is, with its unit.
    """

    name: str
    title: str
    varied: str
    cause: str
    meaning: str
    variants: tuple[Variant, ...]


def lessons(multiprocessors: int, shared_bytes: int) -> Sequence[Lesson]:
    """All lessons on a device.

    Args:
        multiprocessors: How many it has.
        shared_bytes: Shared memory of one.
    """
    return (
        _access(),
        _tiling(),
        _banks(),
        _occupancy(multiprocessors, shared_bytes),
        _waves(multiprocessors, shared_bytes),
        _epilogue(),
    )


def _access() -> Lesson:
    variants = []
    for stride in STRIDES:
        sectors = min(WARP, WARP * FLOAT * stride // SECTOR)
        asked = OUTPUTS // WARP * sectors + OUTPUTS * FLOAT // SECTOR
        launch = Launch(
            "strided",
            (OUTPUTS // THREADS, 1),
            (THREADS, 1),
            ("in", "out", stride),
            expected={"sectors_per_load": sectors, "l2_sectors": asked},
        )
        variants.append(Variant(str(stride), (launch,)))
    return Lesson(
        "access",
        "Coalesced access: a warp's neighbours read next to each other",
        "floats between neighbours",
        "sectors_per_load",
        "sectors of 32 bytes per load of a warp",
        tuple(variants),
    )


def _tiling() -> Lesson:
    return Lesson(
        "tiling",
        "Shared memory: through a tile, a transposition reads and writes whole sectors",
        "transposition",
        "l2_sectors",
        "sectors asked of L2",
        (
            _transposition("no tile", "transpose_plain", WARP, 0),
            _transposition("padded tile", "transpose_padded", WARP * FLOAT // SECTOR, 0),
        ),
    )


def _banks() -> Lesson:
    return Lesson(
        "banks",
        "Bank conflicts: a column of a tile that lies in one bank is read row by row",
        "floats in a tile's row",
        "shared_conflicts",
        "bank conflicts",
        (
            _transposition("32", "transpose_tile", WARP * FLOAT // SECTOR, WARP - 1),
            _transposition("33", "transpose_padded", WARP * FLOAT // SECTOR, 0),
        ),
    )


def _transposition(name: str, kernel: str, sectors_written: int, conflicts: int) -> Variant:
    """A transposition whose warps write so many sectors at once, and wait so often for a bank when they read a tile."""
    asked = EDGE**2 // WARP * (WARP * FLOAT // SECTOR + sectors_written)
    expected = {"l2_sectors": asked, "shared_conflicts": conflicts * EDGE**2 // WARP}
    grid = (EDGE // TILE, EDGE // TILE)
    return Variant(name, (Launch(kernel, grid, (TILE, ROWS), ("in", "out", EDGE), expected=expected),))


def _occupancy(multiprocessors: int, shared_bytes: int) -> Lesson:
    variants = []
    for resident in RESIDENT:
        # So much that one more block would not fit; the most that fit without any are 2,048 threads.
        unused = 0 if resident == RESIDENT[-1] else _alone(shared_bytes, resident)
        launch = Launch(
            "sums",
            (multiprocessors * resident, 1),
            (THREADS, 1),
            ("in", "out", SUMMED),
            shared=unused,
            wide=True,
            expected={
                "theoretical_occupancy_pct": 100 * resident / RESIDENT[-1],
                "dram_read_bytes": SUMMED * FLOAT,
                "waves": 1,
            },
        )
        variants.append(Variant(str(resident), (launch,)))
    return Lesson(
        "occupancy",
        "Occupancy: more warps hide the latency of the memory",
        "blocks a multiprocessor holds",
        "occupancy_pct",
        "achieved occupancy (%)",
        tuple(variants),
    )


def _waves(multiprocessors: int, shared_bytes: int) -> Lesson:
    variants = []
    for part, of, more in WAVES:
        blocks = multiprocessors * part // of + more
        launch = Launch(
            "chain",
            (blocks, 1),
            (CHAIN_THREADS, 1),
            ("out", ROUNDS),
            shared=_alone(shared_bytes, 1),
            expected={"waves": blocks / multiprocessors, "fp32_fma": ROUNDS * blocks * CHAIN_THREADS},
        )
        variants.append(Variant(f"{blocks}", (launch,)))
    return Lesson(
        "waves",
        "Waves: one block more than fits at once costs as much as a whole wave",
        f"blocks; {multiprocessors} fit at once",
        "waves",
        "waves",
        tuple(variants),
    )


def _epilogue() -> Lesson:
    tiles, blocks = PRODUCT // TILE, PRODUCT**2 // THREADS
    written, multiplied = PRODUCT**2 * FLOAT, PRODUCT**2 * TILE
    of_product = ("left", "right", "bias", "out", PRODUCT)

    def product(kernel: str, **expected: float) -> Launch:
        return Launch(kernel, (tiles, tiles), (TILE, ROWS), of_product, expected=expected)

    passing = {"dram_read_bytes": written}
    separate = (
        product("product_plain", fp32_fma=multiplied),
        Launch("add_bias", (blocks, 1), (THREADS, 1), ("bias", "out", PRODUCT), expected=passing),
        Launch("apply_gelu", (blocks, 1), (THREADS, 1), ("out",), expected=passing),
    )
    return Lesson(
        "epilogue",
        "Epilogue: a product that applies bias and GELU itself moves its result once",
        "kernels",
        "dram_bytes",
        "bytes read from and written to DRAM",
        (Variant("three kernels", separate), Variant("one kernel", (product("product_fused"),))),
    )


def _alone(shared_bytes: int, blocks: int) -> int:
    """Shared memory of a block of which just so many fit, in whole KiB.

    >>> _alone(233472, 1), _alone(233472, 2), _alone(233472, 4)
    (117760, 78848, 47104)
    """
    kib = 1024
    return (math.floor(shared_bytes / (blocks + 1) / kib) + 1) * kib - RESERVED + kib


def input_floats() -> int:
    """How many floats the input has: as many as the lesson that reads most."""
    return max(OUTPUTS * max(STRIDES), EDGE**2, SUMMED)


def output_floats(multiprocessors: int) -> int:
    """How many floats the output has."""
    return max(OUTPUTS, EDGE**2, PRODUCT**2, multiprocessors * RESIDENT[-1] * THREADS)
