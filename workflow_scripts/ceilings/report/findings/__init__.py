"""What the data say: findings computed from the tables alone, a module a question.

A sentence that calls something faster, slower or flat rests on ``statistics.verdict``: the interval excludes 1 and the
estimate lies beyond the noise floor. Everything that was compared and not decided is said to be undecided, with the
entries of a study that would decide it.
"""

from __future__ import annotations

from collections.abc import Callable

from ceilings.report.findings.beyond import cold_start, other_boundaries
from ceilings.report.findings.bottleneck import bottleneck
from ceilings.report.findings.energy import clocks, energy
from ceilings.report.findings.finding import QUESTIONS, Finding
from ceilings.report.findings.floor import floor
from ceilings.report.findings.headroom import headroom
from ceilings.report.findings.layers import layers, runtimes
from ceilings.report.findings.levers import levers
from ceilings.report.findings.operating import operating_points
from ceilings.report.findings.overview import fastest
from ceilings.report.findings.precisions import precisions
from ceilings.report.findings.providers import providers
from ceilings.report.findings.saturation import saturation
from ceilings.report.findings.scaling import batching, sequences
from ceilings.report.findings.tail import tail
from ceilings.report.findings.trust import noise, warnings
from ceilings.report.measured import Measured
from ceilings.report.tables import Tables

__all__ = ["QUESTIONS", "RULES", "Finding", "findings"]

RULES: tuple[Callable[[Measured], list[Finding]], ...] = (
    fastest,
    saturation,
    providers,
    layers,
    runtimes,
    bottleneck,
    levers,
    headroom,
    precisions,
    tail,
    operating_points,
    floor,
    batching,
    sequences,
    other_boundaries,
    cold_start,
    energy,
    clocks,
    noise,
    warnings,
)
"""In the order that a reader needs them."""


def findings(tables: Tables) -> list[Finding]:
    """All findings of a study; none where nothing was measured."""
    measured = Measured(tables)
    return [finding for rule in RULES for finding in rule(measured)] if measured.cells else []
