"""From floor records to their table, pictures and section."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from ceilings.errors import UserError
from ceilings.report.analysis.measured import Measured
from ceilings.report.render.hardware_distance import distance
from ceilings.report.render.plots import draw, style
from ceilings.report.render.plots.launch_to_kernel_map import submitting_share
from ceilings.report.tables.collect import collect
from ceilings.report.tables.floor_rows import floor_table, read_floor
from ceilings.report.tables.frames import BUDGET_COLUMNS, FLOOR_COLUMNS, read_tables
from ceilings.report.tables.keys import KEY
from ceilings.workload.shape import Shape

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

GPU = planted.GPU
LATENCY_MS = {"torch-cuda-eager": 2.0, "onnxruntime-cuda": 0.5, "tensorrt": 0.2}
RUNTIMES = ("torch-cuda-eager", "onnxruntime-cuda")


@pytest.fixture
def maker(tmp_path):
    """Two runtimes at three shapes with floors of 0.1 ms a row, and a twin."""
    maker = planted.StudyMaker(tmp_path, lambda runtime, *_: LATENCY_MS[runtime.removesuffix(".aa")], between=0.0)
    for batch in (1, 4, 16):
        for runtime in RUNTIMES:
            cell = maker.add(GPU, runtime, "fp16", batch, 128)
            maker.bound(cell, 0.01 * batch, "l2" if batch == 1 else "compute")
    maker.bound(maker.repeat(GPU, "onnxruntime-cuda", "fp16", 1, 128), 0.01, "l2")
    return maker


def section(tables):
    return distance(Measured(tables))


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_each_measured_cell_stands_against_its_floor(maker, tmp_path):
    collect(maker.plan()).write(tmp_path / "tables")
    floors = read_tables(tmp_path / "tables").floors
    assert list(floors.columns) == [*KEY, "batch", "sequence", *FLOOR_COLUMNS[len(KEY) :]]
    assert len(floors) == 6  # the twin has none
    row = floors.query("runtime == 'onnxruntime-cuda' and batch == 16").iloc[0]
    assert row["gap"] == pytest.approx(0.5 / 0.16, rel=0.02)
    assert row["mfu"] == pytest.approx(0.16 / 0.5, rel=0.02)
    first = floors.query("runtime == 'onnxruntime-cuda' and batch == 1").iloc[0]
    assert first["mfu"] == pytest.approx(0.005 / 0.5, rel=0.02)  # the products' time, not the floor


def test_failed_cells_and_unavailable_floors_have_no_row(maker):
    maker.fail(maker.cells[0], 1)
    maker.bound(maker.cells[1], 0.01, status="unavailable", reason="not measured on nvidia-h200: L2 bandwidth")
    tables = collect(maker.plan())
    assert len(tables.floors) == 4
    assert "No floor: onnxruntime-cuda fp16 b1-s128." in section(tables)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shape": "b8-s128"}, "is the floor of another cell \\(shape 'b8-s128' instead of 'b1-s128'\\)"),
        ({"floor": {"floor_ms": 0}}, "is damaged \\(floor has no compute_floor_ms"),
        ({"floor": {}}, "is damaged \\(floor has no"),
        ({"schema_version": 0}, "schema version 0"),
    ],
)
def test_a_bad_floor_is_named_with_the_remedy(maker, changes, told):
    path = maker.bound(maker.cells[0], 0.01, **changes)
    with pytest.raises(UserError, match=told) as caught:
        collect(maker.plan())
    assert f"snakemake --cores 1 {path}" in str(caught.value)


def test_the_library_is_shown_where_it_was_measured(maker):
    maker.bound(maker.cells[0], 0.01, library_products={"ms": 0.03, "flops_share": 0.5})
    column = floor_table(maker.cells, collect(maker.plan()).cells.to_dict("records"))["gemm_library_ms"]
    assert column.isna().sum() == 2  # both runtimes' cells at that shape
    assert column.dropna().tolist() == pytest.approx([0.12, 0.12, 0.48, 0.48])


def test_the_section_says_who_is_nearest_and_what_limits(maker):
    told = section(collect(maker.plan()))
    assert "**onnxruntime-cuda fp16** at batch 16, sequence 128 has the smallest gap" in told
    assert "the floor of 0.160 ms (set by the matrix rate)" in told
    assert "fp16 at b1-s128 0.0300 ms, of 0.50" in told
    (row,) = [line for line in told.splitlines() if line.startswith("| onnxruntime-cuda fp16")]
    assert row.split("|")[-2].strip() == "l2"
    assert "nan" not in told


def test_a_floor_that_was_beaten_is_an_alarm(maker):
    assert "Below its floor" not in section(collect(maker.plan()))
    maker.bound(maker.cells[-2], 0.6)
    told = section(collect(maker.plan()))
    assert "**Below its floor: onnxruntime-cuda fp16 b16-s128 (0.8" in told


def captured(tables, *changes):
    """The tables with budgets of the first cells, their kernel times in ms by class as given."""
    cells = tables.cells[KEY].to_dict("records")
    rows = [
        dict.fromkeys(BUDGET_COLUMNS, 0.0) | cell | {f"gpu_{kind}_ms": took for kind, took in times.items()}
        for cell, times in zip(cells, changes, strict=False)
    ]
    return dataclasses.replace(tables, budgets=pd.DataFrame(rows))


def entries(line):
    return [entry.strip() for entry in line.strip("|").split("|")]


def test_kernels_stand_against_the_limits_where_there_is_a_capture(maker):
    bounded = collect(maker.plan())
    floors = bounded.floors.assign(elementwise_unfused_ms=0.05, other_unfused_ms=0.0)
    bounded = dataclasses.replace(bounded, floors=floors)
    assert "Time of the kernels" not in section(bounded)
    tables = captured(
        bounded, {"gemm": 0.2, "elementwise": 0.01, "other": 0.002}, {"gemm": 0.03, "unknown": 0.004, "attention": 0.0}
    )
    told = section(tables).splitlines()
    header, _, *rows = told[next(i for i, line in enumerate(told) if line.startswith("|") and " gemm " in line) :]
    # A class without kernels has no column, one without operators (or unknown) has no factor.
    assert entries(header) == ["configuration", "batch", "sequence", "gemm", "elementwise", "other", "unknown"]
    assert [entries(row) for row in rows] == [
        ["onnxruntime-cuda fp16", "1", "128", "30.0 µs, 3.00×", "", "", "4.00 µs"],
        ["torch-cuda-eager fp16", "1", "128", "200 µs, 20.0×", "10.0 µs, 0.200×", "2.00 µs", ""],
    ]


def test_attention_in_parts_is_compared_with_the_classes_that_its_parts_are_in(maker):
    bounded = collect(maker.plan())  # gemm 0.01 ms at the limits
    floors = bounded.floors.assign(attention_unfused_ms=0.03, normalization_unfused_ms=0.02)
    times = {"gemm": 0.2, "normalization": 0.04}
    tables = captured(dataclasses.replace(bounded, floors=floors), times, times | {"attention": 0.06})
    whole, parts = [entries(line)[3:] for line in section(tables).splitlines() if " µs" in line]
    assert whole == ["200 µs, 20.0×", "60.0 µs, 2.00×", "40.0 µs, 2.00×"]
    assert parts == ["200 µs", "← together 4.00× →", "40.0 µs"]


def test_of_many_captured_cells_the_common_shape_is_shown(maker, monkeypatch):
    monkeypatch.setattr("ceilings.report.render.hardware_distance.MOST_ROWS", 3)
    tables = collect(maker.plan())
    assert len([line for line in section(tables).splitlines() if "fp16 " in line and line.startswith("|")]) == 2
    told = section(captured(tables, *[{"gemm": 0.2}] * 3))
    assert "captured are in `tables/budgets.csv`" not in told
    told = section(captured(tables, *[{"gemm": 0.2}] * 4))
    assert "The common shape only; all 4 captured are in `tables/budgets.csv`" in told
    assert len([line for line in told.splitlines() if "µs, " in line]) == 2


def test_a_verdict_stands_in_the_tile_of_its_cell_where_it_fits(maker, monkeypatch):
    tables = captured(collect(maker.plan()), {"gemm": 0.2})
    tables = dataclasses.replace(tables, budgets=tables.budgets.assign(verdict="launch-bound"))
    (text,) = [text for text in texts(draw("launch_to_kernel_map", tables)) if "launch-bound" in text]
    assert text == "60%\nlaunch-bound"
    monkeypatch.setattr("ceilings.report.render.plots.launch_to_kernel_map.MOST_WORDS", 2)
    assert texts(draw("launch_to_kernel_map", tables)).count("60%") == 6


def test_map_shows_what_was_measured_and_nothing_else(maker):
    cell = maker.add(GPU, "onnxruntime-cuda", "fp16", 1, 256)
    for run in (1, 2, 3):  # a runtime without a boundary on the device: its call waits
        record = json.loads(Path(cell["runs"][run - 1]).read_text())
        maker.change(cell, run, series={"latency": record["series"]["latency"]})
    tables = collect(maker.plan())
    measured = Measured(tables)
    shares = {cell.shape: submitting_share(cell) for cell in measured.cells if cell.runtime == "onnxruntime-cuda"}
    assert shares[Shape.parse("b1-s256")] is None
    assert shares[Shape.parse("b1-s128")] == pytest.approx(0.6, rel=0.01)
    assert [text for text in texts(draw("launch_to_kernel_map", tables)) if "%" in text] == ["60%"] * 6


def test_roofline_has_a_dash_for_each_shape_and_a_point_for_each_cell(maker):
    (axis,) = draw("roofline", collect(maker.plan())).axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    dashes = lines["what the limits allow, L2 kept warm"]
    assert len(dashes.get_xdata()) == 3
    points = lines["onnxruntime-cuda fp16"]
    # Operations that take 0.04 ms at the roof, reached in 0.5 ms.
    assert points.get_ydata()[1] == pytest.approx(0.04e12 / 0.5 / 1e9, rel=0.02)
    assert (points.get_ydata() < dashes.get_ydata()).all()


def test_one_precision_has_the_floors_of_both_graphs(maker):
    maker.bound(maker.add(GPU, "onnxruntime-cuda", "int8", 4, 128), 0.05)
    maker.bound(maker.add(GPU, "tensorrt", "int8", 4, 128), 0.02, graph="int8.half")
    tables = collect(maker.plan())
    floors = tables.floors.query("precision == 'int8'").set_index("runtime")["floor_ms"]
    assert floors.to_dict() == {"onnxruntime-cuda": 0.05, "tensorrt": 0.02}
    (axis,) = draw("roofline", tables).axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert len(lines["what the limits allow, L2 kept warm"].get_xdata()) == 3 + 2


@pytest.mark.parametrize("name", ["roofline", "launch_to_kernel_map"])
def test_pictures_are_drawn_the_same_twice(maker, tmp_path, name):
    tables = collect(maker.plan())
    for copy in ("a", "b"):
        style.save(draw(name, tables), tmp_path / f"{copy}.svg", tmp_path / f"{copy}.png")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_padded_inputs_have_the_floor_of_full_ones(tmp_path):
    """What is computed at a shape does not depend on how long the inputs in it really are."""
    maker = planted.StudyMaker(tmp_path, lambda *_: 1.0)
    cell = maker.add(GPU, "onnxruntime-cuda", "fp16", 32, 128)
    path = maker.bound(cell, 0.1)
    planned = {name: cell[name] for name in ("device", "model", "precision")} | {"shape": "b32-s128.half"}
    assert read_floor(str(path), planned)["floor"]["floor_ms"] == 0.1
    with pytest.raises(UserError, match=r"shape 'b32-s128' instead of 'b8-s128'"):
        read_floor(str(path), planned | {"shape": "b8-s128.half"})
