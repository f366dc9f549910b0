"""The picture beside the Markdown page: the bars of an iteration, and below them one iteration in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ceilings import foreign
from ceilings.report.render.explained import answer, bars, bars_picture, path_timeline, svg

Record = Mapping[str, Any]


def picture(record: Record) -> str:
    """The file; with a sentence instead where there is nothing to draw."""
    marked: Record = foreign.marked(record)
    group = None if "failure" in marked else answer.main_group(marked)
    parts, bottom = bars_picture.drawn(bars.bars(group), 10) if group else ([], 10)
    if group and group["timeline"]:
        parts.append(svg.text(0, bottom + 12, TIMELINE, class_="b"))
        below, bottom = path_timeline.drawn(group["timeline"], bottom + 26)
        parts += below
    if not parts:
        parts, bottom = [svg.text(0, 26, "Nothing to draw: this file does not say what an iteration consists of.")], 40
    ground = svg.rectangle(0, 0, svg.WIDTH, bottom, "#fff", class_="page")
    return foreign.html(str(svg.picture([ground, *parts], bottom, "Where the time of an iteration goes")))


TIMELINE = (
    "One iteration: a strip marks the critical path, what is beside it is pale; a line joins a launch and its work"
)
