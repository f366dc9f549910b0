"""The published pages of explained traces are what the code makes of the captures of the tests."""

from __future__ import annotations

import runpy
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "benchmarks/explained_pages.py"


def test_published_pages_are_those_of_this_state():
    """Where it fails: ``python benchmarks/explained_pages.py`` writes them anew; look at what changed."""
    program = runpy.run_path(str(PROGRAM))
    made = program["pages"]()
    assert {path.name for path in program["PUBLISHED"].iterdir()} == set(made)
    for name, text in made.items():
        assert (program["PUBLISHED"] / name).read_text(encoding="utf-8") == text, name
