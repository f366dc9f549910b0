"""Which cells became faster or slower between two sets of results, and which provably stayed the same.

Many cells are compared at once, so chance alone finds a difference somewhere. Three things keep it out:

1. A difference is established only if its p value, adjusted with Holm's method for the number of cells compared, is at
   most ``ALPHA``: over all cells of a comparison, the probability of even one false difference is at most that.
2. The 95% interval of the ratio, the wider of two kinds (:mod:`ceilings.statistics.intervals`), must exclude 1.
3. The ratio must lie beyond the noise floor that the A/A pairs of both sides show.

"Same" is a claim too: two one-sided tests at 5% each, so of twenty cells that differ by just the margin one may be
called the same. A cell that is neither is undecided.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from ceilings.errors import UserError
from ceilings.report.analysis.measured import Cell, Measured, carries, equivalence, latency_ratio
from ceilings.report.tables.keys import KEY
from ceilings.statistics.decisions import holm, p_value, within
from ceilings.statistics.estimands import P50, Estimand
from ceilings.statistics.quantiles import Interval

ALPHA = 0.01
"""Probability, at most, of one false "faster" or "slower" among all cells of a comparison."""

Verdict = Literal["slower", "faster", "undecided", "same"]


@dataclass(frozen=True)
class Change:
    """One cell on both sides.

    Attributes:
        ratio: After over before, with its 95% interval.
        p: Holm's adjusted p value of no difference.
        floor: Noise floor of both sides' devices, a fraction.
    """

    before: Cell
    after: Cell
    ratio: Interval
    p: float
    floor: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """All matched cells, and what could not be matched.

    Attributes:
        changes: Slower ones first.
        broken: Cells that were measured before and failed after, with the reason.
        only_before: Names of cells measured before only, for other reasons than failure.
        only_after: Names of cells measured after only.
        environment: What the records of the two sides say differently: (what, before, after).
        floor: The widest noise floor; None where neither side has an A/A pair that carries the estimand.
        too_few: Matched cells without iterations enough for the estimand.
    """

    changes: tuple[Change, ...]
    broken: tuple[tuple[str, str], ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    environment: tuple[tuple[str, str, str], ...]
    margin: float
    estimand: Estimand
    floor: float | None
    too_few: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        return sum(change.verdict == verdict for change in self.changes)

    @property
    def worse(self) -> bool:
        """Whether a cell became slower or stopped working."""
        return bool(self.broken) or self.count("slower") > 0


def compare(
    before: Measured,
    after: Measured,
    *,
    margin: float,
    estimand: Estimand = P50,
    devices: tuple[str | None, str | None] = (None, None),
) -> Comparison:
    """Match the cells of two sets of results and judge each.

    Args:
        margin: Cells that provably differ by less are the same.
        devices: Slugs to compare across, before and after; None: cells match on the same device only.

    Raises:
        UserError: No cell was measured on both sides.
    """
    sides = [_by_key(side, device) for side, device in zip((before, after), _across(devices), strict=True)]
    keys = [key for key in sides[0] if key in sides[1]]
    if not keys:
        raise UserError(_nothing_in_common(before, after))
    matched = [(sides[0][key], sides[1][key]) for key in keys]
    pairs = [pair for pair in matched if all(carries(cell.groups, estimand) for cell in pair)]
    floors = [
        floor
        for side, measured in zip((0, 1), (before, after), strict=True)
        for device in {pair[side].device for pair in pairs}
        if (floor := measured.noise_floor(device, estimand)) is not None
    ]
    floor = max(floors, default=None)
    broken = _broken(after, devices[1], {key: cell for key, cell in sides[0].items() if key not in sides[1]})
    lost = {name for name, _ in broken}
    return Comparison(
        changes=tuple(judge(pairs, floor or 0.0, margin, estimand)),
        broken=tuple(broken),
        only_before=tuple(c.name for key, c in sides[0].items() if key not in sides[1] and c.name not in lost),
        only_after=tuple(cell.name for key, cell in sides[1].items() if key not in sides[0]),
        environment=tuple(differences(before, after, matched)),
        margin=margin,
        estimand=estimand,
        floor=floor,
        too_few=tuple(pair[1].name for pair in matched if pair not in pairs),
    )


def judge(pairs: Sequence[tuple[Cell, Cell]], floor: float, margin: float, estimand: Estimand = P50) -> list[Change]:
    """Verdicts on (before, after) of all cells of a comparison together; slower ones first."""
    adjusted = holm([p_value(after.groups, before.groups, estimand) for before, after in pairs])
    changes = [
        decide(*pair, p=p, floor=floor, margin=margin, estimand=estimand)
        for pair, p in zip(pairs, adjusted, strict=True)
    ]
    order = ("slower", "faster", "undecided", "same")
    return sorted(changes, key=lambda change: (order.index(change.verdict), -change.ratio.estimate))


def decide(before: Cell, after: Cell, *, p: float, floor: float, margin: float, estimand: Estimand = P50) -> Change:
    """The verdict on one cell; ``p`` is adjusted for all that are compared together."""
    factor = latency_ratio(after, before, estimand)
    verdict: Verdict = "undecided"
    # Below the noise floor nothing can be distinguished from nothing, and so neither is sameness.
    if floor <= margin and within(equivalence(after, before, estimand), margin):
        verdict = "same"
    elif p <= ALPHA and not factor.low <= 1 <= factor.high and abs(math.log(factor.estimate)) > math.log1p(floor):
        verdict = "slower" if factor.estimate > 1 else "faster"
    return Change(before, after, factor, p, floor, verdict)


# --- matching --------------------------------------------------------------------------------------------------------


def _across(devices: tuple[str | None, str | None]) -> tuple[str | None, str | None]:
    if (devices[0] is None) != (devices[1] is None):
        raise UserError("one device is named and the other is not; name both, or neither to match on the same device")
    return devices


def _by_key(measured: Measured, device: str | None) -> dict[tuple[object, ...], Cell]:
    """Cells by what names them; without the device where one was chosen."""
    first = 0 if device is None else 1
    cells = (cell for cell in measured.cells if device is None or cell.device == device)
    return {cell.key[first:]: cell for cell in cells}


def _nothing_in_common(before: Measured, after: Measured) -> str:
    devices = [sorted({cell.device for cell in side.cells}) for side in (before, after)]
    problem = f"no cell was measured on both sides (devices: {devices[0]} before, {devices[1]} after)"
    return f"{problem}; to compare two devices, name them with --before-device and --after-device"


def _broken(after: Measured, device: str | None, lost: dict[tuple[object, ...], Cell]) -> list[tuple[str, str]]:
    failed = after.tables.cells[after.tables.cells["status"] == "failed"]
    names = KEY if device is None else KEY[1:]
    rows = failed if device is None else failed[failed["device"] == device]
    reasons = {tuple(row[name] for name in names): str(row["reason"]) for row in rows.to_dict("records")}
    return [(cell.name, reasons[key]) for key, cell in lost.items() if key in reasons]


def differences(before: Measured, after: Measured, matched: Sequence[tuple[Cell, Cell]]) -> list[tuple[str, str, str]]:
    """Packages, versions and protocol that differ between the records of the matched cells: (what, before, after)."""
    sides = [_environment(side, {p[i] for p in matched}) for i, side in enumerate((before, after))]
    differing = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = ("; ".join(sorted(side.get(name, ()))) or "not recorded" for side in sides)
        if old != new:
            differing.append((name, old, new))
    return differing


def _environment(measured: Measured, cells: set[Cell]) -> dict[str, set[str]]:
    values: dict[str, set[str]] = {}
    for recorded in pd.concat([measured.runs(cell)["environment"] for cell in cells]).dropna().unique():
        record = json.loads(recorded)
        for section in ("packages", "gpu", "host", "threads", "protocol"):
            for name, value in (record.pop(section, None) or {}).items():
                values.setdefault(f"{section} {name}", set()).add(str(value))
        for name, value in record.items():
            values.setdefault(name, set()).add(str(value))
    return values
