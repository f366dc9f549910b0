#!/usr/bin/env python3
"""Write the published pages of explained traces anew, from the captures of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

from ceilings import records
from ceilings.report.render.explained import explanation_page, explanation_picture, growth_page
from ceilings.traces.explained.explain import explain

PROJECT = Path(__file__).parents[1]
CAPTURES = PROJECT / "tests/unit/traces/data"
PUBLISHED = PROJECT / "docs/studies/nvidia-h200/explained"
BEFORE, AFTER = "torch-cuda-eager", "onnxruntime-cuda-graph"


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    before, after = (
        records.sealed("explanation", explain(CAPTURES / f"{name}.nsys.sqlite", name)) for name in (BEFORE, AFTER)
    )
    return {
        f"{BEFORE}.md": explanation_page.page(before, f"{BEFORE}.svg"),
        f"{BEFORE}.svg": explanation_picture.picture(before),
        f"{AFTER}-against-{BEFORE}.md": growth_page.page(before, after),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (PUBLISHED / name).write_text(text, encoding="utf-8")
