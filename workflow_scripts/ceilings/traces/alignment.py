"""Two orders of the same things, brought together as far as there is one way to do it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def aligned(fits: Sequence[frozenset[int]], count: int) -> Integers:
    """For each thing of the first order its place in the second, -1 where that is not certain.

    What belongs together is a common subsequence. The longest ones explain most; certain is what all of them say.

    Args:
        fits: The places that each thing may have.
        count: Number of places.
    """
    fit = np.zeros((len(fits), count), bool)
    for thing, places in enumerate(fits):
        fit[thing, list(places)] = True
    ahead, behind = _longest(fit), _longest(fit[::-1, ::-1])[::-1, ::-1]
    best = ahead[-1, -1]
    needed = (ahead[:-1] + behind[1:]).max(axis=1) < best
    possible = fit & (ahead[:-1, :-1] + 1 + behind[1:, 1:] == best)
    return np.where(needed & (possible.sum(axis=1) == 1), possible.argmax(axis=1) if count else 0, -1)


def _longest(fit: NDArray[np.bool_]) -> Integers:
    """Length of the longest common subsequence of the first i things and the first j places."""
    length = np.zeros((fit.shape[0] + 1, fit.shape[1] + 1), np.int64)
    for thing, row in enumerate(fit):
        length[thing + 1, 1:] = np.maximum.accumulate(np.maximum(length[thing, 1:], length[thing, :-1] + row))
    return length
