"""Comparison of outputs with a reference, by hand and on graphs that give what cannot be compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ceilings.graphs import graph, parity

LOGITS = np.array([[[1.0, -1.0], [0.5, 2.0]]], np.float32)
"""(elements, batch, classes)."""


def compare(found: np.ndarray, reference: np.ndarray = LOGITS, compared: str = "classes", **mask) -> parity.Parity:
    return parity.compare({"y": found}, {"y": reference}, compared, **mask)


def test_classes() -> None:
    same = compare(LOGITS.astype(np.float64))
    assert (same.max_abs, same.top1_agreement, same.rows) == (0, 1, 2) and same.cosine == pytest.approx(1)
    other = compare(np.array([[[1.0, -1.0], [2.0, 0.5]]]))
    assert other.max_abs == 1.5 and other.max_rel == 0.75 and other.top1_agreement == 0.5
    assert other.cosine == pytest.approx(2 / 4.25)
    assert set(dataclasses.asdict(same)) == set(same.to_json())


def test_only_classes_have_a_top_one() -> None:
    assert compare(LOGITS, compared="embedding").top1_agreement is None
    assert compare(LOGITS, compared="values").top1_agreement is None
    regression = np.array([[[0.1], [-0.2]]])
    near_zero = compare(regression, np.array([[[0.1], [0.001]]]))
    assert near_zero.top1_agreement is None
    # One number a row has no direction of its own: all rows together are the vector.
    assert near_zero.cosine == pytest.approx(0.0098 / (0.05**0.5 * (0.01 + 1e-6) ** 0.5))
    whole = np.array([[3, 1]])
    assert compare(whole, whole, "values").to_json() == compare(whole[..., None], whole[..., None], "values").to_json()


def test_nothing_that_is_not_finite_passes() -> None:
    for side, whose in enumerate(("the output y has", "the FP32 reference of output y has")):
        arrays = [LOGITS.copy(), LOGITS.copy()]
        arrays[side][0, 0, 0] = (np.nan, np.inf)[side]
        broken = compare(*arrays)
        assert not broken.finite and broken.to_json()["relative_l2"] is None and broken.rows == 2
        assert broken.problem == f"{whose} a NaN or an infinity"
    assert compare(LOGITS).problem is None


def test_zeros_confirm_nothing() -> None:
    zeros = np.zeros((1, 1, 2))
    equal = compare(zeros, zeros)
    assert (equal.cosine, equal.relative_l2, equal.max_rel) == (None, None, None)
    assert equal.problem == "every output and the FP32 reference are zero"
    other = compare(zeros + 0.5, zeros)
    assert other.finite and (other.cosine, other.relative_l2, other.max_rel) == (0, None, None)
    assert other.problem == "the FP32 reference of output y is zero everywhere, and the output is not"
    unused = parity.compare({"y": LOGITS, "loss": zeros}, {"y": LOGITS, "loss": zeros}, "classes")
    assert (unused.problem, unused.relative_l2, unused.top1_agreement) == (None, 0, 1)
    wrong = parity.compare({"y": LOGITS, "loss": zeros + 1}, {"y": LOGITS, "loss": zeros}, "classes")
    assert wrong.problem and wrong.relative_l2 is None


def test_a_regression_is_compared_with_its_spread() -> None:
    reference = 3 + 0.01 * np.arange(16.0).reshape(2, 8, 1)
    constant = np.full_like(reference, reference.mean())
    same, useless = compare(reference, reference), compare(constant, reference)
    assert same.spread_l2 == 0 and same.top1_agreement is None
    assert useless.relative_l2 < 0.02 and useless.spread_l2 == pytest.approx(1)
    assert compare(constant[:1, :4], reference[:1, :4]).spread_l2 is None, "too few rows"
    assert compare(reference, constant).spread_l2 is None, "no spread"
    assert compare(LOGITS).spread_l2 is None, "two numbers a row"


def test_a_wrong_row_shows_among_many_right_ones() -> None:
    reference = np.random.default_rng(0).choice([-1.0, 1.0], size=(2, 32, 8))
    noisy = reference + 0.02 * np.random.default_rng(1).normal(size=reference.shape)
    assert compare(noisy, reference, "embedding").row_l2 < 0.1
    noisy[1, 7] = 0
    broken = compare(noisy, reference, "embedding")
    assert broken.relative_l2 < 0.25 and broken.row_l2 == 1
    small = np.array([[[100.0, 0.0], [0.1, 0.0]]])
    assert compare(small + np.array([0.1, 0.0]), small, "embedding").row_l2 < 0.01, (
        "a row near zero is held against the others"
    )


def test_the_worst_output_counts() -> None:
    good, bad = LOGITS + np.float32(0.01), LOGITS[:, ::-1]
    both = parity.compare({"a": good, "b": bad}, {"a": LOGITS, "b": LOGITS}, "classes")
    alone = compare(bad)
    assert (both.max_abs, both.relative_l2, both.cosine) == (alone.max_abs, alone.relative_l2, alone.cosine)
    assert both.top1_agreement == 0 and both.rows == 4
    assert parity.compare({"b": bad, "a": good}, {"a": LOGITS}, "classes").top1_agreement == 1, "others are ignored"


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="no output y; there are z"):
        parity.compare({"z": LOGITS}, {"y": LOGITS}, "classes")
    with pytest.raises(ValueError, match="output y has shape"):
        compare(LOGITS[:, :1])


MASK = np.array([[[1, 1, 0, 0], [1, 1, 1, 1]]])
"""(elements, batch, sequence)."""


def test_padding_is_left_out_of_tokens() -> None:
    reference = np.random.default_rng(0).normal(size=(1, 2, 4, 3))
    found = reference.copy()
    found[0, 0, 2:] = np.nan
    assert not compare(found, reference).finite
    masked = compare(found, reference, mask=MASK)
    assert (masked.finite, masked.max_abs, masked.rows) == (True, 0, 6)
    found[0, 1, 3] += 1
    assert compare(found, reference, mask=MASK).max_abs == pytest.approx(1)
    assert compare(found, reference, mask=MASK).rows == compare(found, reference, mask=MASK, masked={"y"}).rows
    assert not compare(found, reference, mask=MASK, masked=set()).finite


def test_an_answer_is_looked_for_among_the_tokens_that_count() -> None:
    """One score a token: a row is an input, and its top class is a place."""
    reference = np.array([[[1.0, 2.0, 9.0, 0.0], [4.0, 3.0, 2.0, 1.0]]])
    found = np.array([[[1.0, 2.0, 0.0, 9.0], [4.0, 3.0, 2.0, 1.0]]])
    assert compare(found, reference).top1_agreement == 0.5
    masked = compare(found, reference, mask=MASK)
    assert (masked.top1_agreement, masked.max_abs, masked.rows, masked.cosine) == (1, 0, 2, pytest.approx(1))
    negative = compare(found - 10, reference - 10, mask=MASK)
    assert negative.top1_agreement == 1, "what is left out is no zero that wins"


def test_an_embedding_as_wide_as_the_sequence_is_not_masked() -> None:
    reference = np.arange(8.0).reshape(1, 2, 4)
    found = reference.copy()
    found[0, 0, 3] = 30
    assert compare(found, reference, "embedding", mask=MASK).max_abs == 27
    assert compare(found, reference, "values", mask=MASK, masked=set()).max_abs == 27


def test_a_mask_that_leaves_nothing_passes_nothing() -> None:
    tokens = np.ones((1, 2, 4, 3))
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(tokens, tokens, mask=np.zeros_like(MASK))


def test_signal_to_noise() -> None:
    assert parity.sqnr_db(np.array([10.0]), np.array([9.0])) == pytest.approx(20)


@pytest.mark.parametrize(
    ("bias", "status", "reason"),
    [
        (np.nan, "failed", "a NaN or an infinity"),
        (np.inf, "failed", "a NaN or an infinity"),
        (0.0, "ok", None),
    ],
)
def test_what_cannot_be_compared_is_a_record(distilbert, tmp_path: Path, bias: float, status: str, reason) -> None:
    model = distilbert.model
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("classifier.bias"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(bias), tensor.name))
    graph.save(model, tmp_path / "g.onnx")
    record = distilbert.check(tmp_path / "g.onnx", "fp32")
    assert record["status"] == status and (record["finite"] is (status == "ok"))
    assert record["reason"] == reason or reason in record["reason"]


def test_another_interface_is_a_record(distilbert, tmp_path: Path) -> None:
    model = distilbert.model
    model.graph.output[0].name = "/model/classifier/other"
    renamed = next(node for node in model.graph.node if node.output[0] == "logits")
    renamed.output[0] = model.graph.output[0].name
    graph.save(model, tmp_path / "g.onnx")
    record = distilbert.check(tmp_path / "g.onnx", "fp32")
    assert (record["status"], record["reason"]) == (
        "failed",
        "there is no output logits; there are /model/classifier/other",
    )


def test_every_output_and_every_task(make_tiny) -> None:
    for name, rows in (("answers", 8), ("tokens", 2 * 2 * 32), ("clip", 4)):
        tiny = make_tiny(name)
        record = tiny.check(tiny.simplified, "fp32")
        assert record["status"] == "ok" and record["rows"] == rows and record["relative_l2"] < 1e-5
        assert (record["top1_agreement"] is None) == (name == "clip")


def test_an_input_that_a_graph_does_not_read_is_not_given(distilbert, tmp_path: Path) -> None:
    helper = onnx.helper
    graph_ = distilbert.model.graph
    table = numpy_helper.from_array(np.ones((500, 2), np.float32), "table")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["logits"], axes=[1], keepdims=0),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", graph_.input[:1], graph_.output, [table]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    graph.save(model, tmp_path / "g.onnx")
    assert distilbert.check(tmp_path / "g.onnx", "fp32")["status"] == "ok"
