"""Templates of HTML pages, all under one set of rules: text is escaped, and a name without a value is an error."""

from __future__ import annotations

from pathlib import Path

import jinja2

from ceilings.report.render.markdown import inline


def template(path: Path) -> jinja2.Template:
    """The template of a file; its filter ``markdown`` makes HTML of one line of our Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = inline
    return environment.get_template(path.name)
