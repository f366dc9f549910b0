"""Findings, computed from the tables alone, a module a question.

A sentence that calls something faster, slower or flat rests on ``statistics.verdict``: the interval excludes 1 and the
estimate lies beyond the noise floor. What was compared and is not decided is called undecided, with the entries of
a study that would decide it.
"""

from __future__ import annotations

from collections.abc import Callable

from ceilings.report.analysis.findings.abstraction import layers, runtimes
from ceilings.report.analysis.findings.batch_limits import best_batches
from ceilings.report.analysis.findings.beyond import cold_start, other_boundaries
from ceilings.report.analysis.findings.bottleneck import bottleneck
from ceilings.report.analysis.findings.bucket_padding import padded_requests
from ceilings.report.analysis.findings.company import company
from ceilings.report.analysis.findings.copies_beside import copies_beside
from ceilings.report.analysis.findings.counted_kernels import counted_kernels
from ceilings.report.analysis.findings.energy import clocks, energy
from ceilings.report.analysis.findings.finding import QUESTIONS, Finding
from ceilings.report.analysis.findings.floor import floor
from ceilings.report.analysis.findings.headroom import headroom
from ceilings.report.analysis.findings.host_copies import transfers
from ceilings.report.analysis.findings.levers import levers
from ceilings.report.analysis.findings.one_shape import choices, published_latencies, shape_taxes
from ceilings.report.analysis.findings.operating import operating_points
from ceilings.report.analysis.findings.overview import fastest
from ceilings.report.analysis.findings.padding import padding
from ceilings.report.analysis.findings.precisions import precisions
from ceilings.report.analysis.findings.providers import providers
from ceilings.report.analysis.findings.quality import quality
from ceilings.report.analysis.findings.saturation import saturation
from ceilings.report.analysis.findings.scaling import batching, sizes
from ceilings.report.analysis.findings.serving_costs import serving
from ceilings.report.analysis.findings.tail import tail
from ceilings.report.analysis.findings.token_costs import generation
from ceilings.report.analysis.findings.trust import noise, warnings
from ceilings.report.analysis.measured import Measured
from ceilings.report.tables.frames import Tables

__all__ = ["QUESTIONS", "RULES", "Finding", "findings"]

RULES: tuple[Callable[[Measured], list[Finding]], ...] = (
    fastest,
    generation,
    serving,
    saturation,
    providers,
    layers,
    runtimes,
    bottleneck,
    levers,
    headroom,
    precisions,
    quality,
    tail,
    operating_points,
    best_batches,
    floor,
    counted_kernels,
    batching,
    sizes,
    padding,
    shape_taxes,
    padded_requests,
    published_latencies,
    choices,
    company,
    copies_beside,
    other_boundaries,
    transfers,
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
    # Of an endpoint elsewhere, no cell need be measured here.
    rules = RULES if measured.cells else (serving,)
    return [finding for rule in rules for finding in rule(measured)]
