"""Rows of models that read no labelled text: what they are made of, and what is refused."""

import json

import numpy as np
import pytest
from unit import planted_records

from ceilings.errors import CellFailure, UserError
from ceilings.models.dataset_rows import Wanted, make
from ceilings.workload.shape import Shape
from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

IDS = TensorSpec("ids", "int64", ("batch", "sequence"), "tokens", 0, 99)
MASK = TensorSpec("mask", "int64", ("batch", "sequence"), "mask")
PIXELS = TensorSpec("pixels", "float32", ("batch", 3, "image", "image"), "pixels")


def folder(path, task, inputs, *, limits=None, tokenizer=False):
    output = TensorSpec("vector", "float32", ("batch", 4))
    Workload(TASKS[task], inputs, (output,)).write(path)
    (path / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    planted_records.weights(path, limits=limits or {})
    if tokenizer:
        from tokenizers import Tokenizer, models, pre_tokenizers

        words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "film": 2}, unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        words.save(str(path / "tokenizer.json"))
    return path


def test_a_model_without_a_tokenizer_gets_seeded_ids_whatever_the_batch(tmp_path):
    weights = folder(tmp_path, "sentence-embedding", (IDS, MASK))
    rows = make(weights, Wanted(limit=21), Shape.parse("b8-s16"))
    assert rows.inputs["ids"].shape == rows.inputs["mask"].shape == (21, 16)
    assert (rows.facts["source"], rows.facts["weights"], rows.labels) == ("random", "random", None)
    assert rows.sha256 == make(weights, Wanted(limit=21), Shape.parse("b8-s16")).sha256
    assert rows.sha256 != make(weights, Wanted(limit=21, seed=1), Shape.parse("b8-s16")).sha256


def test_a_model_of_images_gets_images(tmp_path):
    rows = make(folder(tmp_path, "image-embedding", (PIXELS,)), Wanted(limit=5), Shape.parse("b2-i8"))
    assert rows.inputs["pixels"].shape == (5, 3, 8, 8) and rows.facts["source"] == "spectrum"
    assert len(np.unique(rows.inputs["pixels"].reshape(5, -1), axis=0)) == 5


def test_texts_are_cut_padded_and_counted(tmp_path):
    weights = folder(tmp_path, "sentence-embedding", (IDS, MASK), tokenizer=True)
    (tmp_path / "a.csv").write_text("text,label\nfilm film,1\nfilm film film film film,0\n")
    rows = make(weights, Wanted(file=str(tmp_path / "a.csv")), Shape.parse("b8-s4"))
    assert rows.inputs["ids"].tolist() == [[2, 2, 0, 0], [2, 2, 2, 2]]
    assert rows.inputs["mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert rows.truncated.tolist() == [False, True]
    assert rows.labels is None  # a vector has no label


def test_rows_without_labels_count_once(tmp_path):
    """Texts that are the same to the model are one answer."""
    weights = folder(tmp_path, "sentence-embedding", (IDS, MASK), tokenizer=True)
    (tmp_path / "a.csv").write_text("text\nfilm film\nfilm film film\nfilm\nfilm film film film\n")
    rows = make(weights, Wanted(file=str(tmp_path / "a.csv")), Shape.parse("b8-s2"))
    assert rows.inputs["ids"].tolist() == [[2, 2], [2, 0]] and rows.facts["available"] == 4
    assert rows.truncated.tolist() == [False, False] and len(rows) == 2


@pytest.mark.parametrize(
    ("changes", "wanted", "message"),
    [
        ({}, {"file": "a.csv"}, r"has no tokenizer\.json, so the texts of a\.csv cannot be read by it"),
        (
            {"tokenizer": True},
            {"file": "a.csv", "label": "label"},
            "labels are of use to sequence classification",
        ),
        ({"tokenizer": True, "limits": {"sequence": [1, 8]}}, {}, "sequence 16 is longer than the 8 positions"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_with_a_remedy(tmp_path, changes, wanted, message):
    weights = folder(tmp_path, "sentence-embedding", (IDS, MASK), **changes)
    with pytest.raises(UserError, match=message):
        make(weights, Wanted(**wanted), Shape.parse("b8-s16"))


def test_texts_are_of_no_use_to_a_model_of_images(tmp_path):
    weights = folder(tmp_path, "image-embedding", (PIXELS,), tokenizer=True)
    with pytest.raises(UserError, match="takes other inputs than texts"):
        make(weights, Wanted(file="a.csv"), Shape.parse("b2-i8"))


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    small = TensorSpec("ids", "int64", ("batch", "sequence"), "tokens", 0, 1)
    weights = folder(tmp_path, "sentence-embedding", (small, MASK), tokenizer=True)
    (tmp_path / "a.csv").write_text("text\nfilm\n")
    with pytest.raises(CellFailure, match="gives the id 2, but the model's largest is 1"):
        make(weights, Wanted(file=str(tmp_path / "a.csv")), Shape.parse("b8-s4"))
