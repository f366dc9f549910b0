"""The advisor against published studies: docs/advisor.md has the table that the program makes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
DOCS = PROJECT / "docs/advisor.md"


@pytest.fixture(scope="module")
def program():
    return runpy.run_path(str(PROJECT / "benchmarks/advisor_backtest.py"))


def test_what_is_hidden_is_not_seen(program):
    """A range that saw the cell would be far narrower than one of bounds alone."""
    tables = program["published"](PROJECT / "docs/studies/cpu-amd-epyc/tables")
    every = list(program["trials"]("CPU", tables))
    for one in every:
        assert one.after not in one.forecast.cells
        if one.hidden == "device" and one.change.kind == "precision":
            assert one.forecast.ground == "bounds"
            assert all(cell.precision != one.after.precision for cell in one.forecast.cells)


def test_ranges_hold_what_was_measured(program):
    tables = program["published"](PROJECT / "docs/studies/nvidia-h100/openclip/tables")
    every = list(program["trials"]("H100", tables))
    inside = sum(one.inside for one in every) / len(every)
    assert inside >= 0.8
    assert not [one for one in every if one.forecast.ground == "budget" and one.outcome == "miss"]


def test_the_documented_table_is_what_the_program_makes(program):
    every = program["all_trials"]()
    text = DOCS.read_text(encoding="utf-8")
    for table in program["tables"](every):
        assert table in text, f"run benchmarks/advisor_backtest.py and paste\n{table}"
