"""Whether answers are those of their own requests: arrays against arrays. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]

FOLLOWS = 1e-3
"""Relative L2 by which answers to two requests must differ before one can be told from the other."""

FINE = 1e-5
"""Of a relative distance from FP32: FP16 rounds each number by up to 5e-4 of it, the other precisions by more."""


def swapped(alone: Mapping[int, Arrays], together: Mapping[int, Arrays]) -> list[int]:
    """The requests whose answers under load are nearer to another request's than to their own.

    Args:
        alone: By request, its answer when nothing else was asked.
        together: The same under load.
    """
    vectors = {index: vector(answer) for index, answer in alone.items()}
    wrong = []
    for index, answer in together.items():
        mine = vector(answer)
        own = distance(mine, vectors[index])
        others = (other for at, other in vectors.items() if at != index and distance(other, vectors[index]) > FOLLOWS)
        if any(distance(mine, other) < own for other in others):
            wrong.append(index)
    return wrong


def changed(alone: Mapping[int, Arrays], together: Mapping[int, Arrays], most: float) -> list[int]:
    """The requests whose answers under load differ from those alone by more than a relative L2 of ``most``."""
    return [index for index, answer in together.items() if not distance(vector(answer), vector(alone[index])) <= most]


def vector(answer: Arrays) -> np.ndarray:
    """All numbers of an answer, output by output."""
    return np.concatenate([_numbers(np.ravel(answer[name])) for name in sorted(answer)])


def _numbers(values: np.ndarray) -> np.ndarray:
    """Of texts, their bytes."""
    if values.dtype.kind in "OSU":
        values = np.frombuffer(b"\0".join(map(bytes, values)), np.uint8)
    return values.astype(np.float64)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Relative L2; infinite between different lengths, and where one side alone has a NaN or an infinity."""
    if one.shape != other.shape:
        return float("inf")
    known = np.isfinite(other)
    if not np.array_equal(known, np.isfinite(one)):
        return float("inf")
    return float(np.linalg.norm((one - other)[known]) / (np.linalg.norm(other[known]) or 1.0))


def finer(precision: str, relative_l2: float | None) -> bool:
    """Whether answers are nearer to FP32 than a model of such a precision can be: then another one gave them.

    >>> finer("int8", 1e-7), finer("int8", 2e-2), finer("fp16", 3e-4), finer("fp32", 1e-7)
    (True, False, False, False)
    """
    return precision != "fp32" and relative_l2 is not None and relative_l2 < FINE
