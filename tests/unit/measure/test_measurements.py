"""The registry of measurements, and each one's quantities."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from ceilings import plugins
from ceilings.errors import UserError
from ceilings.measure import catalogue
from ceilings.study.code import SCRIPTS

FOLDER = SCRIPTS / "ceilings/measure/measurements"


def test_every_module_is_registered_and_every_entry_has_one():
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert {one.module for one in catalogue.MEASUREMENTS.values()} == modules
    for module in modules:
        body = ast.parse((FOLDER / f"{module}.py").read_text()).body
        assert [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "measure"]


def test_a_study_chooses_and_the_latency_is_always_measured():
    assert [one.name for one in catalogue.chosen("cpu")] == ["closed-loop", "saturated"]
    assert [one.name for one in catalogue.chosen("cuda")] == ["closed-loop", "boundaries", "saturated", "cold-cache"]
    assert [one.name for one in catalogue.chosen("cuda", ["cold-cache"])] == ["closed-loop", "cold-cache"]
    assert catalogue.task_entries("cpu", []) == [["closed-loop", "closed_loop"]]
    with pytest.raises(UserError, match="no measurement 'warm-cache'; known: closed-loop, boundaries"):
        catalogue.chosen("cpu", ["warm-cache"])


def test_a_cell_depends_on_its_device_s_loops_and_on_what_is_measured():
    assert catalogue.modules("cpu", ["closed-loop"])[2:] == (
        "ceilings.measure.cpu_bench",
        "ceilings.measure.measurements.closed_loop",
    )
    assert not [name for name in catalogue.modules("cpu") if "cuda" in name or "cold" in name]


def test_columns_are_named_once_and_end_in_their_unit():
    columns = [one.column for one in catalogue.quantities()]
    assert len(columns) == len(set(columns))
    endings = {"ms": "_ms", "MB": "_mb", "1/s": "_per_s", "1/J": "_per_j", "J": "_j", "W": "_w", "σ": "_sigma", "": ""}
    assert all(one.column.endswith(endings[one.unit]) for one in catalogue.quantities())
    assert all(one.label and one.meaning.endswith(".") and one.group for one in catalogue.quantities())


def test_a_plug_in_takes_no_column_of_another_measurement(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "catalogue.py").write_text(
        "from ceilings.measure.catalogue import Measurement\n"
        "from ceilings.quantity import Quantity\n"
        "taken = Quantity('p50_ms', 'p50', 'ms', 'number', 'x', 'Latency', source='series.x.ns')\n"
        "MEASUREMENTS = [Measurement('mine', 'mine', ('cpu',), (taken,), 'x')]\n"
    )
    environment = {**os.environ, plugins.VARIABLE: str(folder), "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", "import ceilings.measure.catalogue"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "'mine' has the column 'p50_ms', which belongs to closed-loop; give it another name" in done.stderr
