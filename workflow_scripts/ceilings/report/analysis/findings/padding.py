"""The price of padding: what a real token costs where inputs are shorter than their rows."""

from __future__ import annotations

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import (
    MARGIN,
    Finding,
    Status,
    change,
    configuration,
    names,
    processes_entry,
)
from ceilings.report.analysis.measured import Cell, Comparison, Measured

TOPIC = "Price of padding"
CLAIM = "Padding costs as much as real tokens"

SKIPPED = 0.1
"""A latency within this of the share of real tokens shows that none of the padding is computed."""

EAGER = (
    " Transformers drops a mask of ones before the attention and keeps any other. So padded inputs take another "
    "attention kernel."
)


def padding(measured: Measured) -> list[Finding]:
    """Each cell whose inputs follow a length distribution against the cell of the same sizes with full rows."""
    findings = []
    for cell in measured.cells:
        full = measured.find(cell, shape=cell.shape.full) if cell.shape.lengths else None
        if full is not None and pd.notna(cell.row["real_share"]):
            findings.append(_price(measured, measured.compare(cell, full)))
    return findings


def what_becomes(pair: Comparison, share: float, equivalent: bool) -> tuple[str, Status]:
    """What the runtime does with padding, and the status of the claim.

    Args:
        pair: Latency of padded inputs over that of full ones.
        share: Real tokens of all, above 0.
        equivalent: Whether the two are the same within the margin of the study.
    """
    if pair.verdict == "slower":
        return "it computes the padding and pays extra for the mask", "supported"
    if pair.verdict == "same within noise" or equivalent:
        return "it computes the padding", "supported"
    if pair.verdict == "faster" and pair.ratio.high < share * (1 + SKIPPED):
        return "it skips the padding", "refuted"
    if pair.verdict == "faster":
        saved = (1 - pair.ratio.estimate) / (1 - share)
        return f"it saves {text.percent(min(saved, 1.0))} of what skipping all padding would", "refuted"
    return "whether it computes the padding is not decided", "not decidable"


def _price(measured: Measured, pair: Comparison) -> Finding:
    cell = pair.a
    share = float(cell.row["real_share"])
    equivalent = pair.verdict == "undecided" and measured.equivalent(pair.a, pair.b, MARGIN)
    becomes, status = what_becomes(pair, share, equivalent)
    token = pair.ratio.scaled(1 / share)
    sentence = (
        f"{configuration(measured, cell)} {cell.shape}: with {text.percent(share)} real tokens "
        f"{change(pair, 'full rows')}: {becomes}. "
        f"A real token costs {text.interval(token, '×')} as much as in full rows."
        f"{EAGER if pair.verdict == 'slower' and _drops_masks(cell) else ''}"
    )
    missing = (processes_entry([pair.a, pair.b]),) if status == "not decidable" else ()
    brief = (
        f"{configuration(measured, cell)} {cell.shape}: a real token costs {text.number(token.estimate)}× as much as "
        f"in full rows: {becomes}."
    )
    return Finding(
        TOPIC,
        sentence,
        names((pair.a, pair.b)),
        pair.ratio,
        pair.verdict,
        None,
        CLAIM,
        f"{cell.label} {cell.shape}",
        status,
        missing,
        brief="" if status == "not decidable" else brief,
    )


def _drops_masks(cell: Cell) -> bool:
    """PyTorch, operator by operator: it looks at the mask in each call."""
    return cell.stack.startswith("PyTorch") and not cell.levers
