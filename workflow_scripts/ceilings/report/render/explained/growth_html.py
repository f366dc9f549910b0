"""Two explained traces side by side as one HTML file that works offline: no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ceilings import foreign
from ceilings.report.render.explained.growth_page import page
from ceilings.report.render.markdown import block
from ceilings.report.render.sheet import SHEET

Record = Mapping[str, Any]
STYLE = SHEET + Path(__file__).with_name("explanation.css").read_text(encoding="utf-8")

_PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<section>
{body}
</section>
</main>
</body>
</html>
""")


def html(before: Record, after: Record) -> str:
    """The page: that of Markdown, with every text of the traces escaped.

    Args:
        before, after: Records of kind ``explanation``.
    """
    names = foreign.marked([after["name"], before["name"]])
    title = f"{names[0]} against {names[1]}: what grew"
    return foreign.html(_PAGE.format(title=title, style=Markup(STYLE), body=block(page(before, after))))
