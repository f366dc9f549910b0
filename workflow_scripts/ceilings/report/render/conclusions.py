"""The findings as Markdown: in short, question by question, and what nothing here decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ceilings.report import text
from ceilings.report.analysis.findings import QUESTIONS, Finding
from ceilings.report.analysis.findings.finding import Status
from ceilings.report.analysis.hypotheses import judged
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.tables.evidence import Evidence
from ceilings.workload.shape import Shape

EVIDENCE_SHOWN = 4
"""Cells linked behind a finding; a finding on more is linked to the table."""

SUBJECTS_SHOWN = 4

FINDINGS_SHOWN = 12
"""Under one claim, of the summary."""

SEVERAL_COMPARED = {"Lower precision"}
"""Topics whose findings carry the largest effect of several comparisons."""

OBSERVATIONS = "results/engineering_observations.md"


def in_short(findings: Sequence[Finding]) -> str:
    """Question by question: of what its claim is supported, of what refuted, of what open."""
    if not findings:
        return "## In short\n\nNothing: no cell was measured."
    lines = [f"- {finding.text}" for finding in findings if finding.topic == "Fastest"]
    open_ = []
    panels = panels_of([cell for finding in findings for cell in finding.cells])
    for number, question in QUESTIONS.items():
        members = [
            finding for finding in findings if finding.question == number and finding.claim and finding.has_evidence
        ]
        if members:
            asked = f"**{question}** "
            for claim, same in group_by(members, lambda finding: finding.claim).items():
                lines.append(f"- {asked}{_claim(claim, same, panels)}")
                asked = ""
        else:
            open_.append(question)
    if open_:
        lines.append(f"- **Not decidable with these cells**, see below what would decide: {' '.join(open_)}")
    return "\n".join(["## In short", "", *lines])


STATUSES: dict[Status, str] = {"supported": "supported for", "refuted": "refuted for", "not decidable": "open for"}


def panels_of(cells: Sequence[str]) -> dict[str, str]:
    """The panel of each cell, named by what differs: its model, its device, both; "" where there is one of each."""
    parts = {cell: (model, device) for cell in cells for device, _, model, *_ in [cell.split("/")]}
    models, devices = ({place[i] for place in parts.values()} for i in range(2))
    return {
        cell: " on ".join([*([model] if len(models) > 1 else []), *([device] if len(devices) > 1 else [])])
        for cell, (model, device) in parts.items()
    }


def _claim(claim: str, same: Sequence[Finding], panels: Mapping[str, str]) -> str:
    parts = []
    for status, words in STATUSES.items():
        subjects = dict.fromkeys(subject_of(finding, panels) for finding in same if finding.status == status)
        parts += [f"{words} {text.cut(subjects, SUBJECTS_SHOWN)}"] if subjects else []
    return f"{claim}: {parts[0]}." if len(parts) == 1 else "\n  - ".join([f"{claim}:", *parts])


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


def conclusions(findings: Sequence[Finding], common: Mapping[tuple[str, str], Shape]) -> str:
    """The findings with claim, status and links to the cells that they rest on.

    Of a long list under one claim only the first are shown, those at the common shape of their panel before others.
    """
    if not findings:
        return ""
    lines = ["## What the data say"]
    for number, question in QUESTIONS.items():
        members = [finding for finding in findings if finding.question == number and finding.has_evidence]
        if members:
            lines.append(f"### {number}. {question}")
            for claim, same in group_by(members, lambda finding: finding.claim).items():
                if claim:
                    lines.append(f"*{claim}?*")
                lines.append(_listed(same, common))
    rest = [finding for finding in findings if finding.question is None and finding.topic != "Fastest"]
    for topic, same in group_by(rest, lambda finding: finding.topic).items():
        lines.append(f"### {topic}\n\n{_listed(same, common)}")
    return "\n\n".join([*lines, *undecided(findings)])


def _listed(same: Sequence[Finding], common: Mapping[tuple[str, str], Shape]) -> str:
    first = sorted(same, key=lambda finding: not any(_at(name, common) for name in finding.cells))[:FINDINGS_SHOWN]
    lines = [f"- {stated(finding)}" for finding in first]
    if len(same) > len(first):
        counts = Counter(finding.status for finding in same if finding.status)
        sentence = (
            f" (of all {len(same)}: {text.listed(f'{n} {status}' for status, n in counts.items())})" if counts else ""
        )
        lines.append(f"- {len(same) - len(first)} more{sentence}: `snakemake --cores 1 {OBSERVATIONS}` lists all.")
    return "\n".join(lines)


def _at(name: str, common: Mapping[tuple[str, str], Shape]) -> bool:
    """Whether a cell of this name is at the common shape of its panel."""
    device, _, model, _, shape = name.split("/")
    return shape == str(common.get((device, model)))


def stated(finding: Finding) -> str:
    """One finding: status, text, evidence."""
    status = f"**{finding.status.capitalize()}**: " if finding.status else ""
    return f"{status}{finding.text}{evidence_links(finding)}"


def evidence_links(finding: Finding) -> str:
    """Links from the results folder to the first run record of each cell and to the other records."""
    cells, runs = finding.cells, [f"benchmarks/{name}/run1.json" for name in finding.cells]
    paths = [*(runs if len(cells) <= EVIDENCE_SHOWN else ()), *finding.records]
    links = [f"[{text.plural(len(cells), 'cell')}](tables/cells.csv)"] if len(cells) > EVIDENCE_SHOWN else []
    links += [f"[{i}]({path})" for i, path in enumerate(paths, 1)]
    return f" [{', '.join(links)}]" if links else ""


def undecided(findings: Sequence[Finding]) -> list[str]:
    """What would decide the claims that nothing here does, as entries of a study."""
    panels = panels_of([cell for finding in findings for cell in finding.cells])
    open_ = [finding for finding in findings if finding.status == "not decidable" and finding.missing]
    rows = [
        [
            same[0].question or "",
            same[0].claim,
            text.cut(dict.fromkeys(subject_of(finding, panels) or finding.text for finding in same), SUBJECTS_SHOWN),
            "; ".join(f"`{entry}`" for entry in same[0].missing),
        ]
        for same in group_by(open_, lambda finding: (finding.question, finding.claim, finding.missing)).values()
    ]
    if not rows:
        return []
    return [
        "### Not decidable with what was measured",
        "Entries of a study that would decide: a sweep in braces, or a section (see docs/study.md). Of cells that the "
        "study asks for already, the section on what was not run says what keeps them from running.",
        text.table(rows, ["question", "claim", "of what", "would decide"], "rlll"),
    ]


def claims_of_others(measured: Measured, evidence: Evidence) -> str:
    """Claims of earlier studies beside our reading."""
    if not measured.cells:
        return ""
    rows = []
    for hypothesis, ours in judged(measured, evidence):
        wanted = "; ".join(f"`{entry}`" if "{" in entry or "[" in entry else entry for entry in ours.missing)
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
            "Each is somebody's reading on one machine; ours is of the cells above.",
            text.table(rows, ["", "claim", "theirs", "ours", "here"], "rllll"),
        ]
    )
