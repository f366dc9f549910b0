"""An explanation as one HTML file that works offline: no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ceilings import foreign
from ceilings.report.render.explained import account_tables as tables
from ceilings.report.render.explained import answer, bars, path_timeline, phrases, svg
from ceilings.report.render.explained import explanation_page as pages
from ceilings.report.render.explained.account_tables import Table
from ceilings.report.render.explained.explanation_picture import TIMELINE
from ceilings.report.render.markdown import block
from ceilings.report.render.sheet import SHEET
from ceilings.report.render.template import template

FOLDER = Path(__file__).parent
Record = Mapping[str, Any]


def html(record: Record) -> str:
    """The page. Every text of the trace is escaped, and a content security policy lets nothing run or be fetched."""
    marked: Record = foreign.marked(record)
    failed = "failure" in marked
    group = None if failed else answer.main_group(marked)
    drawn = bars.bars(group) if group else []
    shown = template(FOLDER / "explanation.html").render(
        record=marked,
        failure=marked.get("failure"),
        style=Markup(SHEET + (FOLDER / "explanation.css").read_text(encoding="utf-8")),
        answer=answer,
        phrases=phrases,
        group=group,
        bars=drawn,
        widest=max([1.0, *(bar.total for bar in drawn)]),
        hidden=bars.hidden(group) if group else "",
        timeline=_timeline(group) if group and group["timeline"] else "",
        timeline_caption=TIMELINE,
        what_if=_body(tables.what_if(group)) if group and group["what_if"] else "",
        sections=[] if failed else _sections(marked),
        others=[]
        if failed
        else [(one, _shown(pages.group_tables(one, pages.MOST_OF_OTHERS))) for one in pages.other_groups(marked)],
    )
    return foreign.html(shown)


def _sections(record: Record) -> list[tuple[str, Markup]]:
    """Title and body of each section below the answer, which has the replays."""
    below = [table for table in pages.main_tables(record) if table.title != tables.WHAT_IF]
    return [*_shown(below), ("What was read", block("\n\n".join(pages.reading(record))))]


def _shown(sections: list[Table]) -> list[tuple[str, Markup]]:
    return [(table.title, _body(table)) for table in sections]


def _body(table: Table) -> Markup:
    """Note and rows, without the title."""
    return block(table.markdown().partition("\n")[2])


def _timeline(group: Mapping[str, Any]) -> Markup:
    parts, bottom = path_timeline.drawn(group["timeline"], 4)
    return svg.picture(parts, bottom, "One iteration in time")
