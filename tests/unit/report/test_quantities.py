"""Quantities: declared once, and shown wherever a table, a page or the docs speak of cells."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ceilings.measure.catalogue import STAGES
from ceilings.quantity import Quantity
from ceilings.report.render.notes import summary_table
from ceilings.report.render.page import page
from ceilings.report.render.summary import summary
from ceilings.report.tables import quantities
from ceilings.report.tables.collect import RUN_COLUMNS, collect
from ceilings.report.tables.evidence import Evidence

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

ROOT = Path(__file__).parents[3]
REPORT = ROOT / "workflow_scripts/ceilings/report"


def quantity(form="number", unit="ms", **changes):
    return Quantity("x_ms", "x", unit, form, "Something.", "Latency", **changes)


def test_no_column_is_declared_twice():
    columns = [*quantities.CELL_COLUMNS, *(one.column for one in (*quantities.FLOORS, quantities.VERDICT))]
    assert len(columns) == len(set(columns))
    assert {f"{stage}_ms" for stage in STAGES} <= set(columns)


def test_the_docs_are_what_the_declarations_say():
    """Make them anew with the command that they name."""
    assert (ROOT / "docs/quantities.md").read_text(encoding="utf-8") == quantities.documentation()


@pytest.mark.parametrize(
    ("one", "value", "alone", "with_unit"),
    [
        (quantity(), 1.2345, "1.23", "1.23 ms"),
        (quantity(unit=""), 0.9999981, "0.999998", "0.999998"),
        (quantity(unit=""), 0.25, "0.250", "0.250"),
        (quantity("percent", ""), 0.25, "25%", "25%"),
        (quantity("powers", ""), 0.00123, "1.2e-03", "1.2e-03"),
        (quantity("count", ""), 1200, "1,200", "1,200"),
        (quantity("text", ""), "as it is", "as it is", "as it is"),
        (quantity(), None, "n/a", "n/a"),
        (quantity("text", ""), None, "", ""),
    ],
)
def test_a_value_is_shown_by_its_form(one, value, alone, with_unit):
    row = {"x_ms": value}
    assert (quantities.show(one, row), quantities.show(one, row, unit=True)) == (alone, with_unit)


def test_an_interval_is_shown_where_its_ends_are_known():
    one = quantity(interval=True)
    assert quantities.ends(one) == ("x_low_ms", "x_high_ms")
    assert quantities.ends(quantities.BY_COLUMN["saturated_per_s"]) == ("saturated_low_per_s", "saturated_high_per_s")
    assert quantities.show_interval(one, {"x_ms": 2.0, "x_low_ms": 1.0, "x_high_ms": 3.0}) == "2.00 [1.00, 3.00]"
    assert "one process" in quantities.show_interval(one, {"x_ms": 2.0, "x_low_ms": None, "x_high_ms": None})
    assert quantities.show_interval(quantity(), {"x_ms": 2.0}, unit=True) == "2.00 ms"


@pytest.mark.parametrize(
    ("one", "found", "expected"),
    [
        (quantity(source="a.b", scale=1e-6), [4e6, 1e6, 9e6], 4.0),
        (quantity(source="a.b"), [[1, 4, 5], [9, 9], [16]], 9.0),
        (quantity(source="a.b"), [4.0, 9.0], 6.0),  # the median in logarithms
        (quantity(source="a.b", over="max"), [4.0, 9.0], 9.0),
        (quantity(source="a.b"), [4.0, None], None),
        (quantity(source="a.b"), [[], [1.0]], None),
    ],
)
def test_a_quantity_is_read_from_its_place_in_the_records(one, found, expected):
    records = [{"a": {"b": value} if value is not None else None} for value in found]
    assert quantities.of_cell(one, records)["x_ms"] == (None if expected is None else pytest.approx(expected))


def test_what_is_collected_is_what_is_declared(tmp_path):
    maker = planted.StudyMaker(tmp_path).measure(planted.GPU, [("onnxruntime-cuda", "fp32")], [(1, 128)])
    tables = collect(maker.plan())
    row, runs = tables.cells.iloc[0], tables.runs
    for name in ("gpu_p50_ms", "e2e_p50_ms", "load_ms", "peak_device_mb", "energy_j"):
        assert row[name] == pytest.approx(runs[name].median()), name
    assert set(RUN_COLUMNS) <= set(runs.columns)
    assert row["power_w"] == 300.0


def test_padding_is_told_by_its_share(tmp_path):
    maker = planted.StudyMaker(tmp_path)
    maker.add(planted.CPU, "torch-eager", "fp32", 1, 128, lengths="half", inputs={"real_share": 0.5})
    tables = collect(maker.plan())
    assert tables.cells.iloc[0][["shape", "lengths", "batch", "real_share"]].to_list() == [
        "b1-s128.half",
        "half",
        1,
        0.5,
    ]
    html = page(maker.plan(), tables, Evidence())
    assert "share of real tokens" in html and "batch 1, sequence 128, lengths half" in html
    assert "| torch-eager fp32" in summary(maker.plan(), tables, Evidence(), "plots")


PLUGIN = """
from ceilings.measure.catalogue import Measurement
from ceilings.quantity import Quantity

PAUSE = Quantity("after_pause_ms", "after a pause", "ms", "number", "After 10 ms of rest.", "Latency",
                 interval=True, source="series.after_pause.latency_ns", scale=1e-6)
MEASUREMENTS = [Measurement("pause", "pause", ("cpu", "cuda"), (PAUSE,), "What a rest costs.")]
"""

WITH_PLUGIN = """
import json, sys
from pathlib import Path
import planted_study as planted
from ceilings.report.render.notes import summary_table
from ceilings.report.render.page import page
from ceilings.report.tables.collect import collect
from ceilings.report.tables.evidence import Evidence
from ceilings.report.tables.quantities import documentation

maker = planted.StudyMaker(Path(sys.argv[1]))
cell = maker.add(planted.CPU, "torch-eager", "fp32", 1, 128)
for run in (1, 2, 3):
    record = json.loads(Path(cell["runs"][run - 1]).read_text())
    series = record["series"] | {"after_pause": {"latency_ns": [70_000_000 + run * 1_000_000] * 9}}
    maker.change(cell, run, series=series)
plan, tables = maker.plan(), collect(maker.plan())
print(json.dumps({
    "row": tables.cells[["after_pause_ms", "after_pause_low_ms"]].iloc[0].to_list(),
    "runs": tables.runs["after_pause_ms"].to_list(),
    "series": sorted(tables.samples["series"].unique()),
    "notes": summary_table(plan, tables),
    "page": page(plan, tables, Evidence()),
    "docs": documentation(),
}))
"""


def test_what_a_plug_in_measures_appears_everywhere(tmp_path):
    """In the tables, the table of all cells, the page (its table and what opens) and the docs."""
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "catalogue.py").write_text(PLUGIN)
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "CEILINGS_PLUGINS": str(folder)}
    command = [sys.executable, "-c", WITH_PLUGIN, str(tmp_path / "study")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["row"][0] == pytest.approx(72.0) and found["row"][1] < 72.0
    assert found["runs"] == pytest.approx([71.0, 72.0, 73.0])
    assert "after_pause" in found["series"]
    for text in (found["notes"],):
        heading = next(line for line in text.splitlines() if line.startswith("|") and "after a pause" in line)
        headings = [cell.strip() for cell in heading.split("|")]
        column = headings.index("after a pause, ms")
        rows = [line.split("|") for line in text.splitlines() if "torch-eager" in line]
        assert "- after a pause, ms: After 10 ms of rest." in text.splitlines()
        assert "72.0" in [row[column].strip() for row in rows if len(row) == len(headings)]
    assert 'title="After 10 ms of rest."' in found["page"] and "after a pause, ms" in found["page"]
    data = json.loads(re.search(r'id="data">(.*?)</script>', found["page"], re.DOTALL)[1])
    latency = dict(data["cells"][0]["facts"])["Latency"]
    assert dict(latency)["after a pause"].startswith("72.0 ms [")
    assert "| `after_pause_ms`" in found["docs"]


def test_nothing_restates_a_label(tmp_path):
    """Labels of quantities stand in their declarations alone: a literal elsewhere would be a second one."""
    labels = {one.label for one in quantities.MEASURED if " " in one.label or "/" in one.label}
    allowed = {REPORT / "tables/quantities.py"}
    for path in set(REPORT.rglob("*.py")) - allowed:
        for label in labels:
            assert f'"{label}"' not in path.read_text(encoding="utf-8"), f"{path.name} restates {label!r}"


def test_tables_that_are_older_than_a_quantity_are_read(tmp_path):
    from ceilings.report.tables.frames import read_tables

    maker = planted.StudyMaker(tmp_path).measure(planted.CPU, [("torch-eager", "fp32")], [(1, 128)])
    tables = collect(maker.plan())
    tables.write(tmp_path / "tables")
    path = tmp_path / "tables/cells.parquet"
    pd.read_parquet(path).drop(columns=["energy_j"]).to_parquet(path)
    (tmp_path / "tables/tables.json").unlink()  # those that were published have none
    again = read_tables(tmp_path / "tables")
    assert again.cells["energy_j"].isna().all()
    assert "torch-eager" in summary_table(maker.plan(), again)
