"""Turns of a server's loop: it takes a request, computes, waits. Requests of several kinds come in any order.

A period needs what repeats. Turns need only how each begins and ends, so they may differ between.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ceilings.traces.explained.period import DOUBTED, LITTLE, Cut, Sequence, layered, sure
from ceilings.traces.explained.submissions import Integers, Submissions

FEWEST = 4
"""So many turns at least show a loop."""

COVERED = 0.7
"""Turns count if those like another one hold this share of the work in all but the first and last."""

LEAST = 0.1
"""Each turn does at least this share of what the median one does."""

MORE = 1.5
"""Turns that are so many times as many as the stretches of a period are what it consists of."""

LONGEST = 16
"""An order of so many turns at most is looked for."""

ENDED = 0.7
"""Share of the turns that are of the two kinds of a loop: those within it, and the one that ends it."""

REGULAR = 0.9
"""Share of the turns that follow an order."""


SAME = 0.95
"""Parts of a loop hold the same kernels, but for this share; what logs at each tenth is no loop."""


def _places(submitted: Submissions) -> tuple[Integers, bool]:
    """Where turns begin: inputs are copied after a wait, else anything after a wait; whether inputs are."""
    ended = submitted.waits | (submitted.downloads & (submitted.finish <= submitted.end))
    ended[:-1] &= ~ended[1:]
    begins = np.concatenate([[True], ended[:-1]])
    with_inputs = np.flatnonzero(begins & submitted.uploads)
    return (with_inputs, True) if len(with_inputs) >= FEWEST else (np.flatnonzero(begins), False)


def refined(submitted: Submissions, cut: Cut | None, unsure: float) -> Cut | None:
    """A cut into turns where a period consists of several, or is less sure than ``unsure``; else the period."""
    at, by_inputs = _places(submitted)
    weak = cut is None or cut.certainty < unsure
    if len(at) < FEWEST or not (by_inputs or weak):
        return cut
    sequence = Sequence(submitted)
    edges = np.append(at, len(submitted))
    weight = np.diff(sequence.weight_before[edges])
    _, first, kind, times = np.unique(
        np.diff(sequence.hash_before[edges]), return_index=True, return_inverse=True, return_counts=True
    )
    few = weight < LEAST * np.median(weight)
    few[-1] = False  # the last may be cut off
    recurring = np.where(times[kind] > 1, weight, 0)[1:-1].sum()  # the first may tune
    if len(times) < 2 or few.any() or recurring < COVERED * weight[1:-1].sum() or at[0] > edges[-1] / 2:
        return cut
    if by_inputs and (begins := _accumulated(sequence, edges, first, kind, times)) is not None:
        doubt = "inputs are copied and waited for several times in each"
        merged = at[begins]
        known = cut.other if cut else ()
        return Cut(merged, sure(sequence, merged, 1), (doubt,), tuple(dict.fromkeys((*known, len(at)))))
    if not weak and cut is not None and len(at) < MORE * len(cut.at):
        return cut
    doubts, others = list[str](), list[int]()
    if order := _order(kind):
        doubts.append(f"kinds of turns follow each other in one order, so {order} turns may be one iteration")
        others.append(len(at) // order)
    if not by_inputs:
        doubts.append("only waits part them")
    return Cut(at, sure(sequence, at, len(doubts)), tuple(doubts), tuple(others))


def _accumulated(
    sequence: Sequence, edges: Integers, first: Integers, kind: Integers, times: Integers
) -> Integers | None:
    """The turns that begin a loop: at each so many, the one before does what others do, and more."""
    usual = int(np.argmax(times))
    counts = sequence.counts(edges[first], edges[first + 1])
    new = counts[:, counts[usual] == 0].sum(1) > LITTLE * counts[usual].sum()
    new &= (counts >= counts[usual]).all(1)
    last = np.flatnonzero(kind == np.argmax(np.where(new, times, 0))) if new.any() else np.empty(0, np.int64)
    every = np.unique(np.diff(last))
    only = len(last) + times[usual] >= ENDED * len(kind)
    if len(every) != 1 or not 1 < every[0] <= LONGEST or not only:
        return None
    return np.arange((last[0] + 1) % every[0], len(kind), every[0])


def _order(kind: Integers) -> int:
    """After how many turns the same kinds follow again; 0: after none."""
    for order in range(2, min(LONGEST, len(kind) // 2) + 1):
        if (kind[order:] == kind[:-order]).mean() >= REGULAR:
            return order
    return 0


def gathered(submitted: Submissions, cut: Cut, every: int, begins: Integers) -> Cut:
    """A period whose stretches may be parts of a loop that begins anew at each ``every``-th of them, at ``begins``.

    Stretches that wait and have no layers in them are parts, such as layers that are read one by one. Others stay, with
    a doubt: a generation does the same in each step.
    """
    sequence = Sequence(submitted)
    begin, end = cut.at[:-1], cut.at[1:]
    content = sequence.hash_before[end] - sequence.hash_before[begin]
    middle = len(begin) // 2
    same = bool((content == content[middle]).mean() >= SAME)
    waited = bool(submitted.waits[begin[middle] : end[middle]].any())
    part = same and waited and not layered(sequence, int(begin[middle]), int(end[middle]))
    other = len(cut.at) if part else len(cut.at) // every
    doubt = f"the host waits {every} times in each" if part else f"at each {every}th of them a loop may begin anew"
    return dataclasses.replace(
        cut,
        at=begins if part else cut.at,
        certainty=cut.certainty * DOUBTED,
        doubts=(*cut.doubts, doubt),
        other=tuple(dict.fromkeys((*cut.other, other))),
    )


def inputs(submitted: Submissions) -> Integers:
    """Where inputs are copied after a wait; empty where hardly anywhere."""
    at, are = _places(submitted)
    return at if are else at[:0]
