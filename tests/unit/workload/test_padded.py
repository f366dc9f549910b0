"""Requests padded up to their buckets."""

import doctest

import pytest

from ceilings import records
from ceilings.errors import CellFailure
from ceilings.workload import padded, shape_order
from ceilings.workload.padded import choice_record
from ceilings.workload.shape import Shape
from ceilings.workload.shape_order import Requests

ORDER = ("b1-s8", "b1-s32", "b1-s8", "b2-s16", "b1-s16", "b2-s32")
"""Shapes in the order of their first appearance: b1-s8, b1-s32, b2-s16, b1-s16, b2-s32."""

LATENCY = [1.0, 4.0, 3.0, 2.0, 6.0]
CELL = {"device": "cpu-here", "runtime": "r", "model": "m", "precision": "fp32", "sequence": "s"}


def requests():
    return Requests.of(map(Shape.parse, ORDER)).to_json()


def limits(most, memory_mb=None, axis="sequence"):
    return {"axis": axis, "most": most, "memory_mb": memory_mb}


def chosen(*arguments, memory=(0.0, 10e6, 20e6, 10e6, 20e6), **named):
    of = limits(*arguments, **named)
    content = choice_record(requests(), LATENCY, list(memory), of)
    return records.sealed("buckets", {"cell": CELL, "limits": of, "status": "ok", **content})


def again(record):
    return Requests.from_json(requests()).padded(record["runs_at"]).to_json()


@pytest.mark.parametrize("module", [padded, shape_order])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_a_bucket_for_each_shape_is_the_sequence_as_it_is():
    record = chosen(5)
    assert record["runs_at"] == {name: name for name in requests()["shapes"]}
    assert record["predicted_ms"] == record["unpadded_ms"] == pytest.approx(17 / 6)
    assert again(record) == requests()


def test_three_buckets_go_where_they_save_most():
    record = chosen(3)
    assert record["buckets"] == ["b1-s8", "b1-s32", "b2-s32"]
    assert record["predicted_ms"] == pytest.approx((1 + 4 + 1 + 6 + 4 + 6) / 6)
    assert [one["buckets"] for one in record["curve"]] == [2, 3]
    padded_order = again(record)
    names = [padded_order["shapes"][index] for index in padded_order["order"]]
    assert names == ["b1-s8", "b1-s32", "b1-s8", "b2-s32", "b1-s32", "b2-s32"]


def test_batches_are_padded_as_lengths_are():
    """A request of one input runs at batch 2 where that saves a bucket; shapes of other lengths stay apart."""
    record = chosen(3, axis="batch")
    assert record["runs_at"] == {
        **{"b1-s8": "b1-s8", "b1-s32": "b2-s32", "b2-s32": "b2-s32"},
        **{"b1-s16": "b2-s16", "b2-s16": "b2-s16"},
    }
    assert record["predicted_ms"] == pytest.approx((1 + 6 + 1 + 3 + 3 + 6) / 6)
    assert padded.padding_share(record) == pytest.approx(1 - 8 / 10)


def test_a_memory_limit_leaves_fewer_buckets():
    assert chosen(5, 35).get("buckets") == ["b1-s8", "b1-s32", "b2-s32"]
    assert chosen(5, 35)["memory_bytes"] == 30e6


def test_limits_that_no_choice_keeps_are_the_cells_failure():
    with pytest.raises(CellFailure, match="each of 2 groups of shapes needs one"):
        chosen(1)
    with pytest.raises(CellFailure, match="no choice keeps 5 buckets and 5 MB"):
        chosen(5, 5)
    with pytest.raises(CellFailure, match="b1-s8 has no axis image"):
        chosen(5, axis="image")
