"""Tables of the earlier schema are read as today's, and so say the same."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pandas as pd
import pytest

from ceilings.report.analysis.comparison import compare
from ceilings.report.analysis.findings import findings
from ceilings.report.analysis.measured import Measured
from ceilings.report.tables.collect import collect
from ceilings.report.tables.frames import KEYS, read_tables
from ceilings.report.tables.keys import KEY
from ceilings.report.tables.served_columns import SERVED
from ceilings.runtimes.catalogue import GRAPH, IO_BINDING, RUNTIMES, STATIC
from ceilings.workload.shape import Shape

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

GPU = planted.GPU
PUBLISHED = Path(__file__).parents[3] / "docs/studies"
ADDED = ["lengths", "stack", "levers", "artifact", "real_share", "energy_j", "power_w"]


def as_earlier(frame):
    """A table as it was written before shapes had names."""
    shapes = frame["shape"].astype(str).map(Shape.parse)
    at = list(frame.columns).index("shape")
    earlier = frame.drop(columns=["shape", "batch", "sequence", *ADDED], errors="ignore")
    earlier.insert(at, "batch", [shape["batch"] for shape in shapes])
    earlier.insert(at + 1, "sequence", [shape["sequence"] for shape in shapes])
    earlier["runtime"] = earlier["runtime"].astype(str).str.replace(r"\.aa$", ".twin", regex=True)
    return earlier.rename(columns={"aa_of": "twin_of", "idle_host_ms": "idle_starved_ms"})


@pytest.fixture
def tables(tmp_path):
    maker = planted.StudyMaker(tmp_path, runs=3)
    maker.measure(GPU, planted.GPU_CONFIGURATIONS, [(1, 128), (8, 128), (1, 512)])
    maker.repeat(GPU, "onnxruntime-cuda", "fp32", 1, 128)
    for cell in maker.cells:
        maker.bound(cell, 0.01)
    made = collect(maker.plan())
    budget = dict.fromkeys(made.budgets.columns) | dict(zip(KEY, made.cells.iloc[0][KEY], strict=True))
    budgets = pd.DataFrame([budget | {"idle_host_ms": 0.25, "gpu_busy_ms": 0.3, "verdict": "host-bound"}])
    return dataclasses.replace(made, budgets=budgets)


def test_earlier_tables_say_what_today_s_say(tables, tmp_path):
    names = [field.name for field in dataclasses.fields(tables) if field.name not in KEYS]
    earlier = dataclasses.replace(tables, **{name: as_earlier(getattr(tables, name)) for name in names})
    assert "twin_of" in earlier.cells and not {"shape", "stack"} & set(earlier.cells)
    earlier.write(tmp_path / "earlier")
    tables.write(tmp_path / "today")
    old, new = read_tables(tmp_path / "earlier"), read_tables(tmp_path / "today")
    for name in names:
        same = [column for column in getattr(new, name).columns if column not in {"energy_j", "power_w", "real_share"}]
        pd.testing.assert_frame_equal(
            getattr(old, name)[same], getattr(new, name)[same], check_dtype=False, check_categorical=False
        )
    assert findings(old) == findings(new)
    assert [pair.second.name for pair in Measured(old).aa_pairs] == [
        f"{GPU}/onnxruntime-cuda.aa/distilbert/fp32/b1-s128"
    ]
    assert not compare(Measured(old), Measured(new), margin=0.05).worse


def test_levers_come_from_the_catalogue_and_strangers_are_their_own_stack(tables, tmp_path):
    names = ("cells", "runs", "samples", "budgets", "kernels", "floors")
    earlier = {name: as_earlier(getattr(tables, name)) for name in names}
    other = {"tensorrt": "onnxruntime-cuda-graph", "torch-cuda-eager": "gone"}
    for name in ("cells", "runs", "samples"):
        earlier[name]["runtime"] = earlier[name]["runtime"].astype(object).replace(other)
    dataclasses.replace(tables, **earlier).write(tmp_path)
    upgraded = read_tables(tmp_path).cells.set_index("runtime")
    graph = upgraded.loc["onnxruntime-cuda-graph"].iloc[0]
    assert graph["levers"] == ";".join(sorted({GRAPH, IO_BINDING, STATIC})) and graph["artifact"] == "plain"
    assert upgraded.loc["gone"].iloc[0][["stack", "levers", "artifact"]].to_list() == ["gone", "", ""]
    assert upgraded.loc["onnxruntime-cuda.aa"]["stack"] == RUNTIMES["onnxruntime-cuda"].stack


@pytest.mark.parametrize("path", sorted(PUBLISHED.rglob("tables/*.parquet")), ids=lambda path: path.stem)
def test_published_tables_are_in_today_s_schema(path):
    columns = list(pd.read_parquet(path).columns)
    key = SERVED if path.stem.startswith("serving") else KEYS.get(path.stem, KEY)
    assert columns[:2] == key[:2] and set(key) <= set(columns)
    assert not {"twin_of", "idle_starved_ms"} & set(columns)


def test_the_published_study_is_read(tmp_path):
    tables = read_tables(PUBLISHED / "nvidia-h200/tables")
    assert len(Measured(tables).cells) == (tables.cells["aa_of"].isna() & (tables.cells["status"] == "ok")).sum()
    assert len(findings(tables)) > 90
