"""Rows on disk, and rows in batches."""

import numpy as np
import pytest

from ceilings.errors import CellFailure, UserError
from ceilings.models import dataset
from ceilings.models.dataset import Dataset
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload


def rows(count, labels=None):
    ids = np.arange(count * 4).reshape(count, 4)
    return Dataset({"ids": ids, "mask": ids % 3}, labels, np.arange(count) == 1, {"source": "file", "available": count})


@pytest.mark.parametrize("labels", [None, np.array([0, 1, 1, 0, 1])])
def test_rows_come_back_as_they_were_written(tmp_path, labels):
    made = rows(5, labels)
    made.save(tmp_path / "data.npz")
    back = dataset.load(tmp_path / "data.npz")
    assert back.inputs["ids"].tolist() == made.inputs["ids"].tolist()
    assert set(back.inputs) == {"ids", "mask"}
    assert (back.labels is None) == (labels is None) and (labels is None or back.labels.tolist() == labels.tolist())
    assert back.truncated.tolist() == made.truncated.tolist() and back.facts == made.facts


def test_the_last_batch_is_filled_up_and_the_filling_is_not_counted():
    made = rows(7)
    batches = list(made.batches(3))
    assert [count for _, count in batches] == [3, 3, 1]
    assert all(element["ids"].shape == (3, 4) for element, _ in batches)
    counted = np.concatenate([element["ids"][:count] for element, count in batches])
    assert counted.tolist() == made.inputs["ids"].tolist()


def test_a_batch_may_be_larger_than_all_rows():
    ((element, count),) = rows(2).batches(5)
    assert count == 2 and element["ids"][:, 0].tolist() == [0, 4, 0, 4, 0]


def test_answers_belong_to_their_rows(tmp_path):
    made = rows(5)
    dataset.save_outputs(tmp_path / "out.npz", {"logits": np.ones((5, 2))}, made)
    assert dataset.load_outputs(tmp_path / "out.npz", made)["logits"].shape == (5, 2)
    with pytest.raises(UserError, match="was made of the inputs"):
        dataset.load_outputs(tmp_path / "out.npz", rows(4))


def test_files_of_another_kind_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", ids=np.ones(3))
    with pytest.raises(UserError, match="holds no rows to evaluate"):
        dataset.load(tmp_path / "data.npz")


def test_rows_are_the_first_dimension_of_all_tensors():
    ids = TensorSpec("ids", "int64", ("batch", "sequence"), "tokens", 1, 9)
    logits = TensorSpec("logits", "float32", ("batch", 2))
    shape = Shape.parse("b8-s16")
    assert dataset.rows_at_once(Workload(TASKS["tensors"], (ids,), (logits,)), shape) == 8
    pooled = TensorSpec("pooled", "float32", ("sequence", 2))
    with pytest.raises(CellFailure, match="first dimension of pooled at b8-s16 is not that of rows"):
        dataset.rows_at_once(Workload(TASKS["tensors"], (ids,), (logits, pooled)), shape)
    free = TensorSpec("boxes", "float32", ("found", 4))
    with pytest.raises(CellFailure, match="first dimension of boxes"):
        dataset.rows_at_once(Workload(TASKS["tensors"], (ids,), (logits, free)), shape)
