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

import jinja2
import vl_convert
from markupsafe import Markup

from ceilings.report.analysis.findings import QUESTIONS, Finding, findings
from ceilings.report.analysis.measured import Measured, group_by
from ceilings.report.render import conditions
from ceilings.report.render import engine_section as engines
from ceilings.report.render import summary as sections
from ceilings.report.render.conclusions import claims_of_others
from ceilings.report.render.hardware_distance import distance
from ceilings.report.render.page.charts import charts
from ceilings.report.render.page.details import QUANTILES
from ceilings.report.render.page.markdown import block, inline
from ceilings.report.render.page.rows import choices, shown_cells, shown_columns
from ceilings.report.render.time_account import where_time_goes
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.frames import Tables

FOLDER = Path(__file__).parent
SCRIPTS = ("table.js", "charts.js", "details.js", "page.js")
"""In this order: each uses what stands before it."""


def page(plan: Mapping[str, Any], tables: Tables, evidence: Evidence) -> str:
    """The report as HTML.

    Everything that a study or a runtime named is escaped, and a content security policy lets nothing run but the
    scripts of this folder and lets nothing be fetched.
    """
    measured = Measured(tables)
    found = findings(tables)
    cells = shown_cells(plan, tables, found)
    data = {
        "cells": [cell.data for cell in cells],
        "charts": charts(measured),
        "quantiles": QUANTILES,
    }
    scripts = [*(Markup((FOLDER / name).read_text(encoding="utf-8")) for name in SCRIPTS)]
    after = [
        claims_of_others(measured, evidence),
        where_time_goes(plan, tables),
        distance(measured),
        sections.parity(evidence),
        sections.graphs(evidence),
        engines.section(evidence),
        conditions.limits(evidence),
        conditions.environment(plan, tables),
        conditions.method(plan, tables),
    ]
    return _template().render(
        study=plan["study"],
        policy=_policy([library(), *scripts]),
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        library=library(),
        scripts=scripts,
        data=_embedded(data),
        introduction=block(sections.introduction(plan, tables, measured, evidence)),
        findings=group_by(enumerate(found), lambda item: _heading(item[1])),
        names={cell.name: cell for cell in cells},
        cells=cells,
        columns=shown_columns(cells),
        facets=choices(cells),
        several=len({cell.panel for cell in cells}) > 1,
        panels=list(dict.fromkeys(cell.panel for cell in cells if cell.plotted)),
        shapes=sorted({(cell.row["batch"], cell.row["sequence"]) for cell in cells if cell.plotted}),
        common_shape=measured.common_shape,
        budgets=not tables.budgets.empty,
        sections=[_section(text) for text in after if text],
    )


@functools.cache
def library() -> Markup:
    """Vega, Vega-Lite and vega-embed as one script that sets ``vegaEmbed``."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return Markup(bundle.replace("</script", "<\\/script"))


def _heading(finding: Finding) -> str:
    """The question that a finding answers, or its topic."""
    return finding.topic if finding.question is None else f"{finding.question}. {QUESTIONS[finding.question]}"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = inline
    return environment.get_template("page.html")


def _section(text: str) -> dict[str, Any]:
    """A section of the summary: its title apart, to be linked to."""
    title, _, rest = text.removeprefix("## ").partition("\n")
    return {"title": title, "id": title.split(",")[0].lower().replace(" ", "-"), "body": block(rest)}


def _embedded(value: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _policy(scripts: list[Markup]) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"
