"""What came of predictions: each range against the ratio that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ceilings.report.analysis.measured import Measured
from ceilings.statistics.quantiles import Interval

Outcome = Literal["hit", "miss", "undecided", "not measured"]


@dataclass(frozen=True)
class Settled:
    """A prediction with what was measured.

    Attributes:
        prediction: As ``predictions.json`` has it.
        ratio: Latency after / before, per inference for a batch; None where one of the two cells has no latency.
    """

    prediction: Mapping[str, Any]
    ratio: Interval | None
    outcome: Outcome


def settled(measured: Measured, predictions: Sequence[Mapping[str, Any]]) -> list[Settled]:
    """Each prediction with its outcome, in their order."""
    by_name = {(cell.device, "/".join(cell.key[1:])): cell for cell in measured.cells}
    results = []
    for one in predictions:
        after, before = (by_name.get((one["device"], one[name])) for name in ("cell", "before"))
        if after is None or before is None:
            results.append(Settled(one, None, "not measured"))
            continue
        compare = measured.compare_per_inference if one["per_inference"] else measured.compare
        compared = compare(after, before)
        results.append(Settled(one, compared.ratio, outcome(tuple(one["factor"]), compared.ratio, compared.floor)))
    return results


def outcome(factor: tuple[float, ...], measured: Interval, floor: float | None) -> Outcome:
    """Whether a measured ratio lies within a predicted range.

    ``hit``: its whole interval does. ``miss``: none of its interval does, and it is off by more than the noise floor.
    Else the measurement is too coarse to say.

    Args:
        factor: Low and high end of the range.
        floor: The noise floor, a fraction; None without an A/A pair.
    """
    low, high = factor
    if low <= measured.low and measured.high <= high:
        return "hit"
    slack = 1 + (floor or 0.0)
    if measured.high < low / slack or measured.low > high * slack:
        return "miss"
    return "undecided"
