"""What bounds the latency of a cell, with its proof; where nothing says it, what would."""

from __future__ import annotations

from dataclasses import dataclass

from ceilings.report import text
from ceilings.report.analysis.findings.bottleneck import bound
from ceilings.report.analysis.findings.finding import traces_entry
from ceilings.report.analysis.findings.selection import on_gpu
from ceilings.report.analysis.measured import Cell, Measured

OTHERWISE = {"mixed": "no single bound", "unexplained": "not explained"}
"""Verdicts of a capture that name no bound, in words: no part of the critical path is the largest by far, or the
capture is not as long as the latency."""


@dataclass(frozen=True)
class Limiter:
    """What bounds a latency.

    Attributes:
        name: ``launch-bound``, ``kernel-bound``, ``host-bound`` and so on; ``not measured`` where nothing says it.
        proof: By which measurement, in a few words.
        would_decide: The entry of a study that would say it; empty where it is known or no entry would.
    """

    name: str
    proof: str
    would_decide: str = ""

    @property
    def known(self) -> bool:
        return self.name != NOT_MEASURED


NOT_MEASURED = "not measured"


def limiter(measured: Measured, cell: Cell) -> Limiter:
    """By a capture where there is one, else by the share of the latency in which the host submits work."""
    budget = measured.budget(cell)
    if budget and isinstance(budget["verdict"], str):
        return Limiter(OTHERWISE.get(budget["verdict"], budget["verdict"]), "capture")
    if not on_gpu(cell):
        return Limiter(NOT_MEASURED, "captures need a GPU")
    if not cell.submits:
        return Limiter(NOT_MEASURED, "no capture", traces_entry([cell]))
    share = f"the host submits for {text.percent(cell.row['enqueue_p50_ms'] / cell.p50.estimate)} of it"
    match bound(measured, cell):
        case "host-bound" | "device-bound" as kind:
            return Limiter(kind, share)
        case "between":
            return Limiter("host and device overlap", share)
        case "waits":
            return Limiter(NOT_MEASURED, "the call copies and waits", traces_entry([cell]))
        case _:
            return Limiter(NOT_MEASURED, "too noisy for the host's share", traces_entry([cell]))
