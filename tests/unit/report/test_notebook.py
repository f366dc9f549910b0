"""The notebook runs from top to bottom on a study's tables, and is kept without outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ceilings.report.tables.collect import collect

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "explore.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs(notebook):
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_it_runs(notebook, tmp_path, monkeypatch):
    maker = planted.default_study(tmp_path)
    collect(maker.plan()).write(tmp_path / "tables")
    monkeypatch.setenv("CEILINGS_TABLES", str(tmp_path / "tables"))
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = "".join(output.get("text", "") for output in outputs)
    assert "onnxruntime-cpu int8" in told and "slower" in told and "noise floor: 4.6%" in told
    assert "No floors" in told
    assert [output for output in outputs if "image/png" in output.get("data", {})]
