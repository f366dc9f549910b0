"""The findings as Markdown: their evidence, what nothing here decides, and the claims of earlier studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ceilings.report import text
from ceilings.report.analysis.findings import Finding
from ceilings.report.analysis.findings.finding import Status
from ceilings.report.analysis.hypotheses import judged
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.tables.evidence import Evidence

EVIDENCE_SHOWN = 4
"""Cells linked behind a finding; a finding on more is linked to the table."""

SUBJECTS_SHOWN = 4

SEVERAL_COMPARED = {"Lower precision"}
"""Topics whose findings carry the largest effect of several comparisons."""

VERDICTS: dict[Status, str] = {"supported": "Yes", "refuted": "No", "not decidable": "Not decided"}
"""The answer to a claim."""


def panels_of(cells: Sequence[str]) -> dict[str, str]:
    """The panel of each cell, named by what differs: its model, its device, both; "" where there is one of each."""
    parts = {cell: (model, device) for cell in cells for device, _, model, *_ in [cell.split("/")]}
    models, devices = ({place[i] for place in parts.values()} for i in range(2))
    return {
        cell: " on ".join([*([model] if len(models) > 1 else []), *([device] if len(devices) > 1 else [])])
        for cell, (model, device) in parts.items()
    }


def subject_of(finding: Finding, panels: Mapping[str, str]) -> str:
    """What it is about, on which panel if there are several, and the effect where one is claimed."""
    members = dict.fromkeys(panels[cell] for cell in finding.cells)
    details = [text.listed(members)] if members and all(members) else []
    if finding.effect is not None and finding.claims_difference:
        if finding.measure != "latency":
            details.append(f"{finding.measure} {text.number(finding.effect.estimate)}×")
        else:
            factor = finding.effect.inverted() if finding.verdict == "faster" else finding.effect
            most = "up to " if finding.topic in SEVERAL_COMPARED and len(finding.cells) > 2 else ""
            details.append(f"{most}{text.number(factor.estimate)}× {finding.verdict}")
    return f"{finding.subject} ({', '.join(details)})" if details else finding.subject


def evidence_links(finding: Finding) -> str:
    """Links from the results folder to the first run record of each cell and to the other records."""
    cells, runs = finding.cells, [f"benchmarks/{name}/run1.json" for name in finding.cells]
    paths = [*(runs if len(cells) <= EVIDENCE_SHOWN else ()), *finding.records]
    links = [f"[{text.plural(len(cells), 'cell')}](tables/cells.csv)"] if len(cells) > EVIDENCE_SHOWN else []
    links += [f"[{i}]({path})" for i, path in enumerate(paths, 1)]
    return f" [{', '.join(links)}]" if links else ""


def undecided_by_noise(unsure: Sequence[Finding]) -> str:
    """A row a comparison whose intervals decide nothing."""
    if not unsure:
        return ""
    panels = panels_of([cell for finding in unsure for cell in finding.cells])
    rows = [
        [
            finding.claim or finding.topic,
            subject_of(finding, panels),
            text.interval(finding.effect, "×") if finding.effect else "",
            evidence_links(finding),
            "; ".join(map(text.code, finding.missing)),
        ]
        for finding in unsure
    ]
    return "\n\n".join(
        [
            "## Too noisy to decide",
            f"{text.plural(len(unsure), 'comparison')} with an interval that decides nothing.",
            text.table(rows, ["claim", "of what", "ratio [95%]", "cells", "would narrow it"], "lllll"),
        ]
    )


def undecided(findings: Sequence[Finding]) -> str:
    """What would decide the claims that nothing here does, as entries of a study."""
    panels = panels_of([cell for finding in findings for cell in finding.cells])
    open_ = [
        finding
        for finding in findings
        if finding.status == "not decidable" and finding.missing and not finding.undecided_by_noise
    ]
    rows = [
        [
            same[0].claim,
            text.cut(dict.fromkeys(subject_of(finding, panels) or finding.text for finding in same), SUBJECTS_SHOWN),
            "; ".join(map(text.code, same[0].missing)),
        ]
        for same in group_by(open_, lambda finding: (finding.claim, finding.missing)).values()
    ]
    if not rows:
        return ""
    return "\n\n".join(
        [
            "## Open, and what would decide it",
            "Entries of a study: a sweep in braces, or a section (docs/study.md). Cells that the study asks for are "
            "under Not run.",
            text.table(rows, ["claim", "of what", "add to the study"], "lll"),
        ]
    )


def claims_of_others(measured: Measured, evidence: Evidence) -> str:
    """Claims of earlier studies beside our reading."""
    if not measured.cells:
        return ""
    rows = []
    for hypothesis, ours in judged(measured, evidence):
        wanted = "; ".join(map(text.code, ours.missing))
        missing = f"missing: {wanted}" if wanted and ours.verdict == "not decidable" else ""
        rows.append(
            [
                hypothesis.number,
                hypothesis.claim,
                f"{hypothesis.theirs} ({hypothesis.source})",
                "; ".join(filter(None, (ours.ours, missing))),
                ours.verdict,
            ]
        )
    return "\n\n".join(
        [
            "## Claims of earlier studies",
            "Each claim was read on one machine; ours is what these cells show.",
            text.table(rows, ["", "claim", "theirs", "ours", "here"], "rllll"),
        ]
    )
