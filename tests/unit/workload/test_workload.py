"""Shapes, tensors and workloads."""

import doctest

import pytest
from unit import planted_records

from ceilings.errors import UserError
from ceilings.workload import shape, tensors
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload


@pytest.mark.parametrize("module", [shape, tensors])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ["b8-s128", "b1-p1024-g128", "b4-i224", "b1-frames300", "b2-s16.half", "i64"])
def test_a_name_is_printed_as_it_was_read(name):
    assert str(Shape.parse(name)) == name


@pytest.mark.parametrize(
    "name", ["", "b", "8", "b0-s1", "b01", "s128-b8", "b1-b2", "batch8", "x3", "b1-s2.", "b1-s2.A", "b1_s2", "b1-s2\n"]
)
def test_other_names_are_refused(name):
    with pytest.raises(UserError):
        Shape.parse(name)


def test_shapes_have_an_order_and_a_full_form():
    small, large = Shape.parse("b1-s16"), Shape.parse("b1-s128.half")
    assert (
        small < large
        and large.full == Shape.parse("b1-s128")
        and large.with_sizes(batch=4) == Shape.parse("b4-s128.half")
    )


def test_a_workload_survives_its_file(tmp_path):
    inputs = (
        TensorSpec("input_ids", "int64", ("batch", "sequence"), "tokens", 1, 99),
        TensorSpec("attention_mask", "int64", ("batch", "sequence"), "mask", 0, 1),
    )
    outputs = (TensorSpec("logits", "float32", ("batch", 2)),)
    workload = Workload(TASKS["sequence-classification"], inputs, outputs, "text_encoder", "bert")
    workload.write(tmp_path)
    assert Workload.read(tmp_path) == workload == Workload.read(tmp_path / "workload.json")
    assert workload.axes == ("batch", "sequence") and workload.mask == inputs[1]
    assert inputs[0].nbytes(Shape.parse("b2-s16")) == 2 * 16 * 8


def test_a_damaged_workload_names_its_file(tmp_path):
    Workload(TASKS["tensors"], (TensorSpec("x", "float32", ("batch",), "reals"),), ()).write(tmp_path)
    planted_records.edit(tmp_path / "workload.json", task="none")
    with pytest.raises(UserError, match=r"workload\.json describes no workload"):
        Workload.read(tmp_path)
