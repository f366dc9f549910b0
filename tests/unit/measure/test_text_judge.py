"""A text that is not the reference's is read by it, in a separate process, before its times count."""

from __future__ import annotations

import numpy as np
import pytest

from ceilings.graphs import token_parity
from ceilings.measure import text_judge
from ceilings.models import definition, pool, reference, weights
from ceilings.models.inputs import Wanted, make_inputs
from ceilings.workload.generation import TOP
from ceilings.workload.shape import Shape

SHAPE = Shape.parse("b2-p12-g60")
CONFIG = {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 300, "n_positions": 128}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A worker's task of a tiny GPT-2 in FP32, with its files."""
    folder = tmp_path_factory.mktemp("judged")
    made = {"architecture": "gpt2", "weights": "random", "seed": 0, "config": CONFIG}
    weights.fetch(definition.read("tiny", made), folder / "w")
    make_inputs(folder / "w", SHAPE, Wanted(2, 0), folder / "inputs.npz")
    reference.compute(folder / "w", folder / "inputs.npz", 1, folder / "reference.npz", shape=SHAPE)
    return {
        "spec": {"threads": 1, "tolerance": 1e-3, "protocol": {"time_limit_seconds": 1}},
        **{name: str(folder / f"{name}.npz") for name in ("inputs", "reference")},
        "workload": str(folder / "w" / "workload.json"),
    }


def measured(task, after):
    """What a worker hands over whose logits and first texts are right, and whose texts after the timed part are."""
    given = pool.load_outputs(task["reference"], pool.digest(pool.load_pool(task["inputs"])))
    ids = np.argsort(-given["logits"], -1, kind="stable")[..., :TOP]
    rounding = np.random.default_rng(0).normal(0, 1e-5, ids.shape)
    outputs = {"tokens": given["tokens"], "ids": ids, "logits": np.take_along_axis(given["logits"], ids, -1) + rounding}
    texts, places = token_parity.other_texts([given["tokens"], after(given["tokens"].copy())], given["tokens"])
    return {
        "status": "ok",
        "failure": None,
        "series": {"latency": {}},
        "parity": {**token_parity.compare(outputs, given), "tolerance": 1e-3},
        "texts": {"tokens": texts.tolist(), "places": places.tolist()},
    }


def wrong_after_step_40(tokens):
    tokens[1, 0, 40:] = tokens[0, 1, 40:]
    return tokens


@pytest.mark.slow
def test_a_text_that_goes_wrong_after_step_40_gets_no_number(task):
    record = text_judge.judge(measured(task, wrong_after_step_40), task)
    assert (record["status"], record["series"], record["failure"]["kind"]) == ("failed", {}, "parity")
    assert "the FP32 reference, given the same text, prefers another token" in record["failure"]["message"]
    assert record["parity"]["texts"] == 1 and "texts" not in record
    assert 2 / 3 <= record["parity"]["top1_agreement"] < 1  # it is right up to step 40


def test_the_reference_s_text_is_not_read_again(task, monkeypatch):
    monkeypatch.setattr(text_judge, "supervise", None)
    record = text_judge.judge(measured(task, lambda tokens: tokens), task)
    assert record["status"] == "ok" and record["parity"]["texts"] == 0
    failed = {"status": "failed", "failure": {"kind": "crashed", "message": ""}}
    assert text_judge.judge(dict(failed), task) == failed
    assert text_judge.judge({"status": "ok"}, task) == {"status": "ok"}  # what generates nothing


@pytest.mark.slow
def test_a_reader_that_fails_leaves_no_number(task, monkeypatch):
    monkeypatch.setattr(text_judge, "READING_SECONDS", 0.2)
    record = text_judge.judge(measured(task, wrong_after_step_40), task)
    assert (record["status"], record["series"], record["failure"]["kind"]) == ("failed", {}, "timed-out")
    assert record["failure"]["message"] == "the FP32 reference did not read the text: no result after 0.2 s"
