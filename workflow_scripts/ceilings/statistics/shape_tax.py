"""The shape tax: how many times as long a sequence of changing shapes takes as its requests do at a steady shape.

Pure functions of numbers. A process gives several rounds; in each the shapes are timed alone, then the sequence, then
alone again, so that what drifts from minute to minute falls on both sides. The processes are paired by that: each gives
one ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ceilings.statistics.intervals import paired_over_processes
from ceilings.statistics.quantiles import Interval


@dataclass(frozen=True)
class Round:
    """A pass over the sequence between two steady references.

    Attributes:
        order: The shape of each request, as an index.
        latency: Of each request; the first has no predecessor in the sequence and does not count.
        before, after: Steady latencies of each shape, by its index.
    """

    order: Sequence[int]
    latency: Sequence[float]
    before: Mapping[int, Sequence[float]]
    after: Mapping[int, Sequence[float]]

    def steady(self) -> dict[int, float]:
        """Mean steady latency of each shape: before and after count alike, however many iterations each had."""
        return {
            shape: (float(np.mean(self.before[shape])) + float(np.mean(self.after[shape]))) / 2
            for shape in sorted(set(self.order))
        }

    def ratio(self) -> float:
        """Time of the sequence over that of the same requests at their steady latencies."""
        steady = self.steady()
        return float(np.sum(self.latency[1:])) / sum(steady[shape] for shape in self.order[1:])

    def by_shape(self, *, another: bool) -> dict[int, list[float]]:
        """Latencies of each shape after another one, or after itself; only of the shapes that have any."""
        chosen: dict[int, list[float]] = {}
        for previous, shape, latency in zip(self.order, self.order[1:], self.latency[1:], strict=False):
            if (previous != shape) == another:
                chosen.setdefault(shape, []).append(latency)
        return chosen

    def change_cost(self) -> float | None:
        """Time of the requests after another shape over what the same take after their shape; None without either.

        A shape that is never repeated takes what its steady latency says, with the excess of the repeats of the others
        by factor or by addend, whichever is more: what they pay as well is no cost of a change.
        """
        changed, repeated, steady = self.by_shape(another=True), self.by_shape(another=False), self.steady()
        if not changed or not repeated:
            return None
        took = sum(map(sum, repeated.values()))
        count = sum(map(len, repeated.values()))
        at_steady = sum(steady[shape] * len(latencies) for shape, latencies in repeated.items())
        factor, addend = max(1.0, took / at_steady), max(0.0, took - at_steady) / count
        expected = {shape: max(steady[shape] * factor, steady[shape] + addend) for shape in changed}
        expected |= {shape: float(np.mean(latencies)) for shape, latencies in repeated.items()}
        without = sum(expected[shape] * len(latencies) for shape, latencies in changed.items())
        return sum(map(sum, changed.values())) / without


def tax(processes: Sequence[Sequence[Round]], confidence: float = 0.95, seed: int = 0) -> Interval:
    """The shape tax with its interval: the geometric mean over the processes, each with all of its rounds.

    The interval is the wider, on each side, of Student's t over the logs of the processes and a hierarchical bootstrap
    of processes and rounds. One process bounds nothing: its interval is (0, infinity).
    """
    logs = [np.log([each.ratio() for each in rounds]) for rounds in processes]
    return paired_over_processes(logs, confidence, seed)


def change_cost(processes: Sequence[Sequence[Round]], confidence: float = 0.95, seed: int = 0) -> Interval | None:
    """How many times as long requests take after another shape as after their own, paired by pass.

    A tax without it comes from something else than the changes. None where a sequence has no changes or no repeats.
    """
    costs = [[each.change_cost() for each in rounds] for rounds in processes]
    known = [[cost for cost in each if cost is not None] for each in costs]
    return paired_over_processes([np.log(each) for each in known], confidence, seed) if all(known) else None


def drift(processes: Sequence[Sequence[Round]], confidence: float = 0.95, seed: int = 0) -> Interval:
    """The steady latencies after the sequence over those before it, weighted as the sequence has the shapes.

    What a process drifts by within a round. A tax that is not beyond it says nothing.
    """
    logs = [np.log([_drift(each) for each in rounds]) for rounds in processes]
    return paired_over_processes(logs, confidence, seed)


def transitions(rounds: Sequence[Round]) -> dict[tuple[int, int], list[float]]:
    """Latencies by (previous shape, shape), of all rounds."""
    grouped: dict[tuple[int, int], list[float]] = {}
    for each in rounds:
        for previous, shape, latency in zip(each.order, each.order[1:], each.latency[1:], strict=False):
            grouped.setdefault((previous, shape), []).append(latency)
    return grouped


def excess(rounds: Sequence[Round]) -> dict[tuple[int, int], float]:
    """What each (previous shape, shape) adds to the mean latency of a request, beside the steady latencies.

    All of them add up to the mean latency of the sequence less that of its requests at their steady latencies.
    """
    added: dict[tuple[int, int], float] = {}
    requests = sum(len(each.order) - 1 for each in rounds)
    for each in rounds:
        steady = each.steady()
        for previous, shape, latency in zip(each.order, each.order[1:], each.latency[1:], strict=False):
            added[previous, shape] = added.get((previous, shape), 0.0) + (latency - steady[shape]) / requests
    return added


def _drift(each: Round) -> float:
    weights = each.order[1:]
    before = {shape: float(np.mean(values)) for shape, values in each.before.items()}
    after = {shape: float(np.mean(values)) for shape, values in each.after.items()}
    return sum(after[shape] for shape in weights) / sum(before[shape] for shape in weights)
