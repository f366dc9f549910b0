"""Metrics of planted answers, by other code than the one that is tested."""

import json
import math

import numpy as np
import pytest

from ceilings.errors import CellFailure
from ceilings.measure.evaluation import evaluate
from ceilings.models.dataset import Dataset
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

IDS = TensorSpec("ids", "int64", ("batch", "sequence"), "tokens", 1, 99)
MASK = TensorSpec("mask", "int64", ("batch", "sequence"), "mask")
RANDOM = np.random.default_rng


def workload(task, *outputs):
    specs = tuple(TensorSpec(name, "float32", dims) for name, dims in outputs)
    return Workload(TASKS[task], (IDS, MASK), specs)


def rows(count, labels=None, sequence=6):
    lengths = RANDOM(3).integers(1, sequence + 1, count)
    mask = (np.arange(sequence) < lengths[:, None]).astype(np.int64)
    return Dataset({"ids": mask + 1, "mask": mask}, labels, np.zeros(count, bool), {"source": "file"})


def logits_of(answers, classes):
    return np.eye(classes, dtype=np.float32)[answers] + RANDOM(5).uniform(0, 0.4, (len(answers), classes)).astype("f4")


CLASSIFIER = workload("sequence-classification", ("logits", ("batch", 3)))


def test_accuracy_is_paired_with_fp32s():
    labels = RANDOM(0).integers(0, 3, 200)
    fp32, cell = labels.copy(), labels.copy()
    fp32[:20] = (fp32[:20] + 1) % 3  # wrong on rows 0 to 19
    cell[15:45] = (cell[15:45] + 1) % 3  # wrong on rows 15 to 44: 25 alone, and 15 alone right
    metrics = evaluate(CLASSIFIER, rows(200, labels), {"logits": logits_of(cell, 3)}, {"logits": logits_of(fp32, 3)})
    assert (metrics["metric"], metrics["value"], metrics["reference_value"]) == ("accuracy", 170 / 200, 180 / 200)
    assert metrics["low"] < 0.85 < metrics["high"]
    assert (metrics["only_cell_right"], metrics["only_reference_right"]) == (15, 25)
    assert metrics["difference"] == pytest.approx(-0.05)
    assert metrics["difference_low"] < -0.05 < metrics["difference_high"]
    assert metrics["p_value"] == pytest.approx(2 * sum(math.comb(40, k) for k in range(16)) / 2**40)
    assert metrics["agreement"] == 1 - 40 / 200
    assert metrics["predictions"] == cell.tolist()
    json.dumps(metrics, allow_nan=False)


def test_without_labels_nothing_is_called_accuracy():
    answers = RANDOM(0).integers(0, 3, 50)
    metrics = evaluate(CLASSIFIER, rows(50), {"logits": logits_of(answers, 3)}, {"logits": logits_of(answers, 3)})
    assert (metrics["metric"], metrics["value"], metrics["high"]) == ("agreement", 1.0, 1.0)
    assert metrics["low"] == pytest.approx(50 / (50 + 1.959964**2))
    assert metrics["answers"] == 3
    alike = {"logits": logits_of(np.zeros(50, int), 3)}
    assert evaluate(CLASSIFIER, rows(50), alike, alike)["answers"] == 1
    assert not {"accuracy", "reference_value", "difference", "p_value"} & set(metrics)


def test_a_regression_correlates_with_labels_and_is_never_accurate():
    truth = RANDOM(0).normal(size=80)
    fp32 = truth + 0.3 * RANDOM(1).normal(size=80)
    cell = fp32 + 0.5 * RANDOM(2).normal(size=80)
    model = workload("sequence-classification", ("logits", ("batch", 1)))
    metrics = evaluate(model, rows(80, truth), {"logits": cell[:, None]}, {"logits": fp32[:, None]})
    assert metrics["metric"] == "pearson"
    assert metrics["value"] == pytest.approx(np.corrcoef(cell, truth)[0, 1])
    assert metrics["reference_value"] == pytest.approx(np.corrcoef(fp32, truth)[0, 1])
    ranks = [np.argsort(np.argsort(values)) for values in (cell, truth)]
    assert metrics["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert metrics["difference_high"] < 0 and metrics["p_value"] < 0.05
    assert metrics["correlation"] == pytest.approx(np.corrcoef(cell, fp32)[0, 1])
    alone = evaluate(model, rows(80), {"logits": cell[:, None]}, {"logits": fp32[:, None]})
    assert (alone["metric"], alone["value"]) == ("correlation", pytest.approx(metrics["correlation"]))
    constant = evaluate(model, rows(80, truth), {"logits": np.ones((80, 1))}, {"logits": fp32[:, None]})
    assert constant["value"] is None
    json.dumps([metrics, alone, constant], allow_nan=False)


def test_tokens_are_counted_where_they_are_real():
    model = workload("token-classification", ("logits", ("batch", "sequence", 4)))
    made = rows(30)
    answers = RANDOM(0).integers(0, 4, (30, 6))
    other = answers.copy()
    padding = made.inputs["mask"] == 0
    other[padding] = (other[padding] + 1) % 4  # says nothing
    other[:3, 0] = (other[:3, 0] + 1) % 4
    one_hot = np.eye(4, dtype=np.float32)
    metrics = evaluate(model, made, {"logits": one_hot[other]}, {"logits": one_hot[answers]})
    real = int(made.inputs["mask"].sum())
    assert (metrics["metric"], metrics["tokens"]) == ("agreement", real)
    assert metrics["value"] == pytest.approx(1 - 3 / real)
    assert metrics["rows_equal"] == pytest.approx(27 / 30)
    # Of 30 texts, not of some hundred tokens.
    assert metrics["high"] - metrics["low"] > 1.9 * 1.96 * math.sqrt(3 / real * (1 - 3 / real) / real)


@pytest.mark.parametrize("layout", ["two tensors", "one tensor"])
def test_an_answer_of_a_text_is_a_span_of_real_tokens(layout):
    made = rows(20)
    lengths = made.inputs["mask"].sum(axis=1)
    begin, end = np.zeros((2, 20, 6), np.float32)
    for row, length in enumerate(lengths):
        begin[row, 0], end[row, length - 1] = 2, 2
    shifted = end.copy()
    shifted[np.arange(6) >= lengths[:, None]] = 9  # louder, but padding
    moved = begin.copy()
    longer = np.flatnonzero(lengths > 1)[:4]
    moved[longer, 1] = 5
    if layout == "two tensors":
        model = workload("question-answering", ("start", ("batch", "sequence")), ("end", ("batch", "sequence")))
        cell, fp32 = {"start": moved, "end": shifted}, {"start": begin, "end": end}
    else:
        model = workload("question-answering", ("logits", ("batch", "sequence", 2)))
        cell, fp32 = {"logits": np.stack([moved, shifted], -1)}, {"logits": np.stack([begin, end], -1)}
    metrics = evaluate(model, made, cell, fp32)
    assert (metrics["metric"], metrics["value"]) == ("agreement", pytest.approx(16 / 20))


def test_embeddings_agree_in_direction_and_in_neighbours():
    model = workload("sentence-embedding", ("vector", ("batch", 16)))
    fp32 = RANDOM(0).normal(size=(60, 16)).astype(np.float32)
    cell = (fp32 + 0.2 * RANDOM(1).normal(size=fp32.shape)).astype(np.float32)
    metrics = evaluate(model, rows(60), {"vector": cell}, {"vector": fp32})
    each = [
        float(a @ b / math.sqrt((a @ a) * (b @ b))) for a, b in zip(cell.astype(float), fp32.astype(float), strict=True)
    ]
    assert metrics["metric"] == "cosine"
    assert metrics["value"] == metrics["cosine_median"] == pytest.approx(float(np.median(each)))
    assert metrics["cosine_min"] == pytest.approx(min(each))
    assert metrics["cosine_p1"] is None  # 60 rows do not carry a first percentile
    assert metrics["neighbour_overlap_low"] < metrics["neighbour_overlap"] < metrics["neighbour_overlap_high"] < 1
    assert metrics["neighbour_overlap_min"] < metrics["neighbour_overlap"]
    assert 0.5 < metrics["neighbour_rank_correlation"] < 1
    assert not [name for name in metrics if "accuracy" in name or name == "p_value"]
    many = RANDOM(0).normal(size=(700, 16))
    carried = evaluate(model, rows(700), {"vector": many * 2}, {"vector": many})
    assert carried["cosine_p1"] == pytest.approx(1) and carried["neighbour_overlap"] == 1
    few = evaluate(model, rows(10), {"vector": fp32[:10]}, {"vector": fp32[:10]})
    assert "neighbour_overlap" not in few
    json.dumps([metrics, few], allow_nan=False)


def test_of_several_tensors_the_worst_counts():
    model = workload("tensors", ("a", ("batch", 4)), ("b", ("batch", 2, 2)))
    a, b = RANDOM(0).normal(size=(12, 4)), RANDOM(1).normal(size=(12, 2, 2))
    metrics = evaluate(model, rows(12), {"a": a, "b": -b}, {"a": a, "b": b})
    assert metrics["cosine_min"] == metrics["cosine_median"] == pytest.approx(-1)


def test_outputs_that_are_no_numbers_fail_the_cell():
    answers = logits_of(np.zeros(9, int), 3)
    broken = answers.copy()
    broken[4, 1] = np.nan
    with pytest.raises(CellFailure, match="1 of 9 rows have outputs that are not finite"):
        evaluate(CLASSIFIER, rows(9), {"logits": broken}, {"logits": answers})
