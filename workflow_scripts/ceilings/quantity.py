"""One quantity of a cell: its column, unit, format and meaning, declared once. Standard library only."""

from __future__ import annotations

import dataclasses
from typing import Literal

Form = Literal["number", "percent", "powers", "count", "text"]


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A column of the table of cells, and everything that a reader is shown of it.

    Attributes:
        column: Its name, ending in the unit: ``e2e_p50_ms``.
        label: As headings call it: ``end to end p50``.
        unit: ``ms``, ``MB``, ``1/s``; empty for a ratio or a count.
        form: ``number`` (three digits), ``percent`` (a share of 1), ``powers`` (of ten), ``count`` or ``text``.
        meaning: One sentence.
        group: Heading under which a page shows it.
        interval: Whether two columns hold the ends of its 95% interval: ``_low`` and ``_high`` before the unit.
        source: Where a run record holds it, dotted: ``series.latency_cold.latency_ns``. Of a list the median counts.
            Empty: it is computed otherwise.
        scale: What the record's number is multiplied by: 1e-6 for ns to ms.
        over: How the processes' values become the cell's: their ``median`` (in logarithms) or ``max``.
    """

    column: str
    label: str
    unit: str
    form: Form
    meaning: str
    group: str = ""
    interval: bool = False
    source: str = ""
    scale: float = 1.0
    over: Literal["median", "max"] = "median"
