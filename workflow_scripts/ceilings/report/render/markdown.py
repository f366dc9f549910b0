"""Our Markdown as HTML; HTML inside it stays text."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from ceilings import foreign

OPENED = '<div class="scroll" tabindex="0"><table>'


def block(text: str) -> Markup:
    """Paragraphs, lists and tables. Each table scrolls, so that a phone's page does not.

    A cell has the heading of its column as ``data-heading``: a page may show a row as a card on a phone.
    """
    parser = _parser()
    tokens = parser.parse(foreign.markdown(text))
    _name_cells(tokens)
    html = parser.renderer.render(tokens, parser.options, {})
    return Markup(html.replace("<table>", OPENED).replace("</table>", "</table></div>"))


def _name_cells(tokens: Sequence[Token]) -> None:
    headings: list[str] = []
    column = 0
    for token, inside in itertools.pairwise(tokens):
        match token.type:
            case "thead_open":
                headings = []
            case "th_open":
                headings.append(inside.content)
            case "tr_open":
                column = 0
            case "td_open":
                token.attrSet("data-heading", headings[column])
                column += 1


def inline(text: str) -> Markup:
    """One line, without a paragraph around it."""
    return Markup(_parser().renderInline(foreign.markdown(text)))


@functools.cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")
