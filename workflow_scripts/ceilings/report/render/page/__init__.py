"""The report: the whole study as one HTML file that needs no server, no network and no second file.

Vega-Lite draws: its bundle (0.9 MB with Vega and its embedding) comes offline from a Python package, its charts are
data rather than code, and as SVG they take the page's colours and print. Plotly's bundle alone is 4.6 MB.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vl_convert
from markupsafe import Markup

from ceilings import foreign
from ceilings.report import text
from ceilings.report.analysis.advice import advise
from ceilings.report.analysis.cautions import alarms, cautions
from ceilings.report.analysis.decision import decided
from ceilings.report.analysis.findings import QUESTIONS, Finding, findings
from ceilings.report.analysis.machine import machine_of
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.analysis.ranking import most_consequential
from ceilings.report.render import (
    batch_section,
    change_cost_section,
    colocation_section,
    conditions,
    decision_table,
    kernels_section,
    overlap_section,
    quality_section,
    shapes_section,
    transfer_section,
)
from ceilings.report.render import engine_section as engines
from ceilings.report.render.conclusions import VERDICTS, claims_of_others
from ceilings.report.render.explained_section import explained
from ceilings.report.render.generation_section import generated
from ceilings.report.render.hardware_distance import distance
from ceilings.report.render.introduction import counted, introduction
from ceilings.report.render.markdown import block
from ceilings.report.render.marking import marked
from ceilings.report.render.not_run import not_run
from ceilings.report.render.page.blocks import compressed, is_large, scripted
from ceilings.report.render.page.charts import charts, curve_name
from ceilings.report.render.page.details import SHARES
from ceilings.report.render.page.rows import choices, shown_cells, shown_columns, title
from ceilings.report.render.page.served_charts import served_charts, served_panels
from ceilings.report.render.parity_section import graphs, parity
from ceilings.report.render.prediction_section import predictions
from ceilings.report.render.serving_section import served
from ceilings.report.render.sheet import SHEET
from ceilings.report.render.template import template
from ceilings.report.render.time_account import where_time_goes
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables

FOLDER = Path(__file__).parent
MOST_FINDINGS = 8
"""Cards that are open to see; the others are behind a click."""

SCRIPTS = ("cells.js", "table.js", "charts.js", "details.js", "page.js")
"""In this order: each uses what stands before it."""


def page(plan: Mapping[str, Any], tables: Tables, evidence: Evidence) -> str:
    """The report as HTML.

    Everything that a study or a runtime named is escaped, and a content security policy lets nothing run but the
    scripts of this folder and lets nothing be fetched.
    """
    plan, tables, evidence = marked(plan, tables, evidence)
    measured = Measured(tables)
    observed = findings(tables)
    cells = shown_cells(plan, tables, observed)
    axes = list(cells[0].columns) if cells else []
    shown = shown_columns(cells)
    behind = served_panels(measured)
    data = {
        **scripted(cells, shown),
        "charts": charts(measured) | (served_charts() if behind else {}),
        "served": behind,
        "axes": measured.axes,
        "curves": {axis: curve_name(axis) for axis in measured.swept_axes},
        "shapes": _shapes(measured),
        "quantiles": SHARES,
    }
    scripts = [*(Markup((FOLDER / name).read_text(encoding="utf-8")) for name in SCRIPTS)]
    after = [
        generated(measured, plan),
        predictions(plan, measured),
        explained(evidence),
        not_run(plan, tables),
        served(measured, whole=True),
        claims_of_others(measured, evidence),
        where_time_goes(plan, tables),
        kernels_section.section(plan, tables),
        distance(measured),
        shapes_section.section(measured),
        change_cost_section.section(tables),
        batch_section.section(tables),
        colocation_section.section(tables),
        overlap_section.section(tables),
        transfer_section.section(tables),
        quality_section.section(plan, tables),
        parity(plan, evidence),
        graphs(evidence),
        engines.section(evidence),
        conditions.limits(evidence),
        conditions.environment(plan, tables),
        conditions.method(plan, tables),
    ]
    cards = list(enumerate(observed))
    first = most_consequential(observed, MOST_FINDINGS)
    made, advice = decided(measured, plan), advise(measured, machine_of(plan))
    html = template(FOLDER / "page.html").render(
        study=plan["study"],
        policy=_policy([library(), *scripts]),
        style=Markup(SHEET),
        library=library(),
        scripts=scripts,
        data=_embedded(data),
        introduction=block(introduction(plan, tables, measured, evidence)),
        counted=counted(plan, tables, measured),
        decision=decision_table.rows(made, advice),
        reasons=decision_table.reasons(made, advice),
        all_failed=decision_table.all_failed(measured),
        would_decide=decision_table.would_decide(made),
        cautions=[*alarms(measured), *cautions(measured, observed, evidence)],
        first=[(index, finding) for one in first for index, finding in cards if finding is one],
        findings=group_by([card for card in cards if not card[1].undecided_by_noise], lambda card: _heading(card[1])),
        unsure=[card for card in cards if card[1].undecided_by_noise],
        chip=chip,
        verdicts=VERDICTS,
        names={cell.name: cell for cell in cells},
        cells=cells,
        large=is_large(cells),
        blocks=[Markup(block) for block in compressed(cells, _json)],
        columns=shown,
        axes=axes,
        facets=choices(cells, axes),
        title=title,
        curves=[(curve_name(axis), axis) for axis in measured.swept_axes],
        several=len({cell.panel for cell in cells}) > 1,
        panels=list(dict.fromkeys(cell.panel for cell in cells if cell.plotted)),
        budgets=not tables.budgets.empty,
        behind=behind,
        sections=[_section(section) for section in after if section],
    )
    return foreign.html(html)


def chip(finding: Finding) -> tuple[str, str]:
    """The verdict of a finding in a word, and the class that colours it; else its topic, without a colour."""
    words = {"faster": "faster", "slower": "slower", "same within noise": "same", "undecided": "undecided"}
    if finding.verdict:
        return words[finding.verdict], words[finding.verdict]
    return finding.topic, "topic"


def _shapes(measured: Measured) -> dict[str, list[dict[str, Any]]]:
    """The measured shapes of each panel, the common one marked."""
    return {
        f"{model} on {device}": [
            {"name": str(shape), "where": text.sizes(shape), "common": shape == measured.common_shapes[device, model]}
            for shape in sorted({cell.shape for cell in same})
        ]
        for (device, model), same in measured.panels.items()
    }


@functools.cache
def library() -> Markup:
    """Vega, Vega-Lite and vega-embed as one script that sets ``vegaEmbed``."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return Markup(bundle.replace("</script", "<\\/script"))


def _heading(finding: Finding) -> str:
    """The question that a finding answers, or its topic."""
    return finding.topic if finding.question is None else f"{finding.question}. {QUESTIONS[finding.question]}"


def _section(markdown: str) -> dict[str, Any]:
    """A section of the summary: its title apart, to be linked to."""
    title, _, rest = markdown.removeprefix("## ").partition("\n")
    return {"title": title, "id": title.split(",")[0].lower().replace(" ", "-"), "body": block(rest)}


def _json(value: object) -> str:
    return foreign.json_text(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")))


def _embedded(value: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    return Markup(_json(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _policy(scripts: list[Markup]) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"
