"""Two orders of the same things, brought together as far as there is one way to do it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def aligned(fits: Sequence[frozenset[int]], count: int) -> Integers | None:
    """For each thing its place, -1 where several would do; None where the things are in another order than the places.

    Each thing that fits anywhere has a place of its own, behind those of the things before it. Places may stay empty.
    Then whatever is true is among the alignments, and what they all say is true.

    Args:
        fits: The places that each thing fits; none for one of which nothing is known.
        count: Number of places.
    """
    fit = np.zeros((len(fits), count), bool)
    for thing, places in enumerate(fits):
        fit[thing, list(places)] = True
    ahead, behind = _longest(fit), _longest(fit[::-1, ::-1])[::-1, ::-1]
    placed = ahead[-1, -1]
    if placed < fit.any(axis=1).sum():
        return None
    possible = fit & (ahead[:-1, :-1] + 1 + behind[1:, 1:] == placed)
    return np.where(possible.sum(axis=1) == 1, possible.argmax(axis=1) if count else 0, -1)


def _longest(fit: NDArray[np.bool_]) -> Integers:
    """Most of the first i things that can be placed at once among the first j places."""
    most = np.zeros((fit.shape[0] + 1, fit.shape[1] + 1), np.int64)
    for thing, row in enumerate(fit):
        most[thing + 1, 1:] = np.maximum.accumulate(np.maximum(most[thing, 1:], most[thing, :-1] + row))
    return most
