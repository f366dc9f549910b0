"""Our Markdown as HTML; HTML inside it stays text."""

from __future__ import annotations

import functools

from markdown_it import MarkdownIt
from markupsafe import Markup

from ceilings import foreign

OPENED = '<div class="scroll" tabindex="0"><table>'


def block(text: str) -> Markup:
    """Paragraphs, lists and tables. Each table scrolls, so that a phone's page does not."""
    html = _parser().render(foreign.markdown(text))
    return Markup(html.replace("<table>", OPENED).replace("</table>", "</table></div>"))


def inline(text: str) -> Markup:
    """One line, without a paragraph around it."""
    return Markup(_parser().renderInline(foreign.markdown(text)))


@functools.cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")
