"""What a change of the shape costs, in tables and the section, from a record whose costs are planted."""

from __future__ import annotations

import copy
import re

import pandas as pd
import pytest
from unit.traces import planted_changes
from unit.traces.planted_changes import CELL, CHANGES, COST_US, LOAD_US

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.render.change_cost_section import section
from ceilings.report.tables.change_cost_rows import change_tables
from ceilings.report.tables.frames import Tables


@pytest.fixture(scope="module")
def content():
    return planted_changes.content()


@pytest.fixture
def tables(tmp_path):
    def make(content):
        records.write(tmp_path / "change.json", "shape-change", content)
        made = change_tables({"changes": [{**CELL, "path": str(tmp_path / "change.json")}]})
        empty = pd.DataFrame()
        return Tables(cells=empty, runs=empty, samples=empty, **vars(made))

    return make


def test_the_parts_of_a_side_sum_to_the_request(tables, content):
    costs = tables(content).shape_changes
    whole = costs[costs["side"] == "request"].iloc[0]
    assert whole["cost_ms"] == pytest.approx(COST_US / 1e3) and whole["requests"] == CHANGES
    for side in ("host", "device"):
        assert costs.loc[costs["side"] == side, "cost_ms"].sum() == pytest.approx(whole["cost_ms"])
    loading = costs.set_index("part").loc["loading modules"]
    assert loading["cost_ms"] == pytest.approx(LOAD_US / 1e3)


def test_names_of_changes_only_have_none_again(tables, content):
    names = tables(content).shape_change_names.set_index("name")
    assert names.loc["search_a", ["what", "requests", "count", "again"]].tolist() == ["kernel", CHANGES, 1, 0]
    assert names.loc["conv_b1", "again"] > 0


def test_the_section_says_what_most_of_it_is_and_what_is_there_only(tables, content):
    page = section(tables(content))
    assert "onnxruntime-cuda fp16, vit, two: a change takes 0.224 ms, the same shape again 0.0486 ms" in page
    assert "Of the 0.175 ms more are waiting for kernels of changes only 55%, loading modules 23%" in page
    assert "Only there: kernel `search_a` in 7 of 7" in page
    assert re.search(r"\| device +\| kernels of changes only +\|", page)


def test_the_section_names_the_node_in_which_most_of_the_cost_lies(tables, content):
    searched = copy.deepcopy(content)
    node = {"what": "range", "class": None, "requests": CHANGES, "count": 1.0, "again": 1.0, "again_ns": 10e3}
    searched["changes"]["longer"] = [node | {"name": "Conv", "ns": 160e3}, node | {"name": "MatMul", "ns": 11e3}]
    page = section(tables(searched))
    assert "loading modules 23%" in page and "`Conv` takes 0.150 ms longer. Only there: kernel `search_a`" in page
    assert "MatMul" not in page


def test_a_cost_within_the_spread_is_called_none(tables, content):
    unsure = copy.deepcopy(content)
    unsure["changes"]["cost_ns"] |= {"low": -1.0, "high": 1e6}
    page = section(tables(unsure))
    assert "no cost beyond how requests differ" in page and "Of the" not in page


def test_without_captures_there_is_no_section():
    empty = pd.DataFrame()
    assert section(Tables(cells=empty, runs=empty, samples=empty)) == ""


def test_a_cell_that_failed_is_named_with_its_reason(tables, content):
    failure = {"status": "failed", "failure": {"kind": "out-of-memory", "message": "16 GB"}}
    failed = {name: content[name] for name in ("source", "tool", "cell", "provenance")} | failure
    assert "not captured: out-of-memory: 16 GB" in section(tables(failed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made["changes"]["host"][0].update(taken_ns=1.0), "the host's parts of changes add up to"),
        (lambda made: made["changes"]["cost_ns"].update(mean=5.0), "and their cost is 5 ns"),
    ],
)
def test_parts_that_do_not_add_up_are_refused(tables, content, change, message):
    broken = copy.deepcopy(content)
    change(broken)
    with pytest.raises(UserError, match=message):
        tables(broken)
