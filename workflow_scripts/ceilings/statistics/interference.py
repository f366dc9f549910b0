"""What instances of a co-location do to each other: slowdowns, and the gain of company over taking turns.

Pure functions of the windows of a record (``ceilings.schemas.colocation``). The pace of an instance in a window is its
requests a second. A round of company lies between two references, in which each instance is at work alone in the same
processes; the geometric mean of both is what the round is held against, so that what drifts falls on both sides.

*Slowdown* of an instance: its pace alone over its pace in company, which is the mean time of a request in company over
that alone. A median would not show it: where a scheduler gives turns that are longer than a request, most requests see
no neighbour, and the waiting lies in few.

*Gain* of a company: the sum over its instances of pace in company over pace alone on the whole device. Instances that
take turns, whichever share of the time each gets, have a sum of exactly 1; above 1 the device does what no division of
its time could. (Eyerman and Eeckhout call it system throughput, and the slowdown normalised turnaround time: IEEE Micro
28(3), 2008.) A sum of inferences a second is no such measure of unlike models: it grows when the faster one gets more
turns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ceilings.statistics.intervals import paired_over_processes

Record = Mapping[str, Any]
Floats = NDArray[np.float64]


def pace(window: Record, instance: int) -> float:
    """Requests a second of an instance in a window."""
    answers = window["answers"][str(instance)]
    return float(answers["completions"]) * 1e9 / (window["closed_ns"] - window["opened_ns"])


def references(record: Record, instance: int) -> Floats:
    """The pace of an instance alone, one a reference, in the order of time."""
    alone = [w for w in record["windows"] if w["reference"] and w["instances"] == [instance]]
    return np.array([pace(window, instance) for window in sorted(alone, key=_round)])


def paces(record: Record, of: Sequence[int], instance: int) -> Floats:
    """The pace of an instance in a company, one a round."""
    together = [w for w in record["windows"] if not w["reference"] and w["instances"] == list(of)]
    return np.array([pace(window, instance) for window in sorted(together, key=_round)])


def log_slowdowns(record: Record, of: Sequence[int], instance: int) -> Floats:
    """Logarithm of the slowdown of an instance in a company beside itself alone, one a round."""
    return _log_around(record, instance) - np.log(paces(record, of, instance))


def log_gains(record: Record, of: Sequence[int], whole: Mapping[int, int]) -> Floats:
    """Logarithm of the gain of a company, one a round.

    Args:
        whole: By instance the one that runs its cell with the whole device.
    """
    shares = [paces(record, of, at) / np.exp(_log_around(record, whole[at])) for at in of]
    return np.asarray(np.log(np.sum(shares, axis=0)), np.float64)


def log_repeats(record: Record, of: Sequence[int]) -> Floats:
    """Logarithm of a reference over the one before it, of instances in the mean, one a round: nothing but noise."""
    return np.asarray(np.mean([np.diff(np.log(references(record, at))) for at in of], axis=0), np.float64)


def noise(records: Sequence[Record], of: Sequence[int]) -> float | None:
    """By what fraction references differ from those before them; None of one process."""
    if len(records) < 2:
        return None
    repeats = paired_over_processes([log_repeats(record, of) for record in records])
    return largest_factor(repeats.low, repeats.high)


def largest_factor(low: float, high: float) -> float:
    """How far an interval of a ratio reaches from 1, as a fraction: a noise floor."""
    if low <= 0 or not math.isfinite(high):
        return math.inf
    return math.expm1(max(abs(math.log(low)), abs(math.log(high))))


def _log_around(record: Record, instance: int) -> Floats:
    """Logarithm of what each round is held against: the mean of the references before and after it."""
    logs = np.log(references(record, instance))
    return np.asarray((logs[:-1] + logs[1:]) / 2, np.float64)


def _round(window: Record) -> int:
    return int(window["round"])
