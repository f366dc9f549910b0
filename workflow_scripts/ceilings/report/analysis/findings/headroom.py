"""Question 5 as well: what a lever on the device's side could still gain, from replays of captured iterations."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ceilings.report import text
from ceilings.report.analysis.findings.finding import MARGIN, Finding, Status, names, where
from ceilings.report.analysis.findings.selection import panels_at_common_shape
from ceilings.report.analysis.measured import Cell, Measured, group_by

TOPIC = "Levers"

CLAIM = "Faster kernels (a lower precision, better kernels) shorten {}"

HOSTS = ". Only fewer or cheaper launches help"


def headroom(measured: Measured) -> list[Finding]:
    """Whether the latency would change if the device's work took no time at all; captured cells at the common shape."""
    findings = []
    for cells in panels_at_common_shape(measured):
        known = [
            (cell, budget) for cell in cells if (budget := measured.budget(cell)) and pd.notna(budget["no_work_ms"])
        ]
        for status, members in group_by(known, _status).items():
            left = (
                f"{text.number(budget['no_work_ms'])} of {text.number(budget['replayed_ms'])} ms ({cell.label})"
                for cell, budget in members
            )
            sentence = (
                f"{where(measured, members[0][0])}: if the device's work took no time, there would remain "
                f"{text.listed(left)}"
                f"{HOSTS if status == 'refuted' else ''}."
            )
            labels = text.cut((cell.label for cell, _ in members), 3)
            brief = (
                f"{where(measured, members[0][0])}: faster kernels {'help' if status == 'supported' else 'do not help'}"
                f" {labels}{'' if status == 'supported' else ': the host sets the latency'}."
            )
            findings.append(
                Finding(
                    TOPIC,
                    sentence,
                    names(cell for cell, _ in members),
                    question=5,
                    claim=CLAIM.format(members[0][0].shape),
                    subject=text.listed(cell.label for cell, _ in members),
                    status=status,
                    brief=brief,
                )
            )
    return findings


def _status(known: tuple[Cell, dict[str, Any]]) -> Status:
    """Within one replay: the gaps and waits are the same with the work and without."""
    _, budget = known
    return "supported" if budget["no_work_ms"] < (1 - MARGIN) * budget["replayed_ms"] else "refuted"
