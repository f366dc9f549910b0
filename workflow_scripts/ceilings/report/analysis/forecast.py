"""What one change to a measured cell would do to its latency: a range, from bounds and from other cells.

The range is of the ratio latency after / latency before (per inference where the batch changes); below 1 is faster. It
rests on bounds, which hold for this cell alone (floors, the host's share, a budget with its replays), and on analogues:
the same change where the study measured it. Analogues narrow the bounds and never leave them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ceilings.report import text
from ceilings.report.analysis.analogues import analogues, narrowed
from ceilings.report.analysis.change_bounds import bounds
from ceilings.report.analysis.changes import BATCH, Place, change_between
from ceilings.report.analysis.measured import Cell, Measured

Ground = Literal["bounds", "budget", "neighbour"]


@dataclass(frozen=True)
class Forecast:
    """The ratio of latencies to expect.

    Attributes:
        low, high: Of the ratio after / before.
        ground: What the range rests on.
        because: A sentence with its number, less its stop.
        cells: Measured cells that it rests on.
    """

    low: float
    high: float
    ground: Ground
    because: str
    cells: tuple[Cell, ...]

    @property
    def middle(self) -> float:
        """Geometric middle of the range."""
        return math.sqrt(self.low * self.high)

    @property
    def width(self) -> float:
        """How many times the low end the high end is."""
        return self.high / self.low


def forecast(measured: Measured, base: Cell, target: Place) -> Forecast | None:
    """The range for one change; None where the two differ in more than that."""
    change = change_between(base, target)
    if change is None:
        return None
    limits = bounds(measured, base, target, change)
    known = analogues(measured, base, change)
    range_ = narrowed(limits, base, known, change) if known else None
    if range_ is None:
        return Forecast(limits.low, limits.high, limits.ground, limits.because, (base, *limits.cells))
    one = known[0]
    why = (
        f"{one.before.model} {one.before.label} {one.before.shape} took {text.number(one.ratio.estimate)}× as long"
        f"{one.before.per_unit if change.kind == BATCH else ''} after the same change"
    )
    cells = tuple(
        dict.fromkeys([base, *limits.cells, *(cell for other in known for cell in (other.before, other.after))])
    )
    return Forecast(*range_, "neighbour", f"{limits.because}; {why}", cells)
