"""What is not the reference's text is read by it, each text once, in a process after all that is timed."""

from __future__ import annotations

import numpy as np
import pytest

from ceilings import schemas
from ceilings.graphs import token_parity
from ceilings.measure import text_judge
from ceilings.models import definition, pool, reference, weights, weights_folder
from ceilings.models.inputs import Wanted, make_inputs
from ceilings.workload.shape import Shape

SHAPE = Shape.parse("b2-p12-g60")
CONFIG = {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 300, "n_positions": 128}
CELL = dict.fromkeys(("device", "runtime", "model", "precision"), "x") | {"shape": str(SHAPE)}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """What a tiny GPT-2 is read with."""
    folder = tmp_path_factory.mktemp("judged")
    made = {"architecture": "gpt2", "weights": "random", "seed": 0, "config": CONFIG}
    weights.fetch(definition.read("tiny", made), folder / "w")
    make_inputs(folder / "w", SHAPE, Wanted(2, 0), folder / "inputs.npz")
    return {
        "spec": {"threads": 1},
        "inputs": str(folder / "inputs.npz"),
        "workload": str(folder / "w" / "workload.json"),
    }


@pytest.fixture(scope="module")
def tokens(task, tmp_path_factory):
    """The reference's."""
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    folder = task["workload"].rsplit("/", 1)[0]
    reference.compute(folder, task["inputs"], 1, path, shape=SHAPE)
    return pool.load_outputs(path, pool.digest(pool.load_pool(task["inputs"])))["tokens"]


def generated(task, number, *texts):
    """The record of a process, as far as it is read here, with texts as (element, row, tokens)."""
    of = {
        "weights": weights_folder.digest(task["workload"].rsplit("/", 1)[0]),
        "inputs": pool.digest(pool.load_pool(task["inputs"])),
    }
    held = {"places": [list(place) for *place, _ in texts], "tokens": [list(map(int, one)) for *_, one in texts]}
    return {"run": number, "status": "ok", "digest": f"{number:064}", "texts": of | held}


def as_written(found):
    """The same, if it is a record."""
    assert schemas.flaw("text-verdict", {"cell": CELL, "log": None, **found}) is None
    return found


@pytest.mark.slow
def test_each_text_of_all_processes_is_read_once_and_a_wrong_one_is_seen(task, tokens):
    right, wrong = tokens[0, 1], tokens[1, 0].copy()
    wrong[40:] = tokens[0, 1, 40:]
    runs = [
        generated(task, 1, (0, 1, right)),
        generated(task, 2, (0, 1, right), (1, 0, wrong)),
        generated(task, 3),
        {"run": 4, "status": "failed"},
    ]
    found = as_written(text_judge.verdict(runs, task))
    assert (found["status"], found["read"], found["device"]) == ("ok", 2, "cpu")
    assert list(found["runs"]) == ["1", "2", "3"] and found["runs"]["2"]["digest"] == runs[1]["digest"]
    first, second, third = found["runs"].values()
    assert (first["texts"], first["chosen"], first["largest_gap"]) == (1, 1.0, 0.0)
    assert (third["texts"], third["chosen"], third["largest_gap"]) == (0, 1.0, None)
    assert second["texts"] == 2 and 2 / 3 <= second["chosen"] < 1  # it is right up to step 40
    parity = {"logit_error": 1e-5}
    assert token_parity.scored(parity, second)["largest_margin"] > token_parity.EXPLAINED
    assert token_parity.scored(parity, first)["largest_margin"] < token_parity.EXPLAINED


def test_no_process_starts_where_all_texts_are_the_reference_s(task, monkeypatch):
    monkeypatch.setattr(text_judge, "supervise", None)
    found = as_written(text_judge.verdict([generated(task, 1), {"run": 2, "status": "failed"}], task))
    assert (found["status"], found["read"], found["seconds"], list(found["runs"])) == ("ok", 0, None, ["1"])


@pytest.mark.parametrize("name", ["weights", "inputs"])
def test_texts_of_another_model_or_other_prompts_are_not_read(task, tokens, monkeypatch, name):
    monkeypatch.setattr(text_judge, "supervise", None)
    run = generated(task, 1, (0, 0, tokens[0, 0]))
    run["texts"][name] = "ab" * 32
    found = as_written(text_judge.verdict([run], task))
    assert (found["status"], found["runs"], found["failure"]["kind"]) == ("failed", {}, "damaged")
    assert "read them where they were generated" in found["failure"]["message"]


@pytest.mark.slow
def test_a_reader_that_passes_its_limit_leaves_no_verdict(task, tokens, monkeypatch):
    monkeypatch.setattr(text_judge, "reading_seconds", lambda size, count: 0.2)
    found = as_written(text_judge.verdict([generated(task, 1, (0, 0, tokens[0, 0]))], task))
    assert (found["status"], found["runs"], found["failure"]["kind"]) == ("failed", {}, "timed-out")
    assert found["failure"]["message"] == "no result after 0.2 s"


def test_the_time_limit_follows_from_the_work():
    """GPT-2 Medium in FP32: of a batch of 64 with 384 tokens a row, 16 cores took 46 s."""
    medium = 4 * 355_000_000
    assert 1.1 * text_judge.START_SECONDS < text_judge.reading_seconds(medium, 384) < 2 * text_judge.START_SECONDS
    batch = text_judge.reading_seconds(medium, 64 * 384)
    assert 46 * 20 < batch < 46 * 100
    assert text_judge.reading_seconds(medium, 128 * 384) > 1.8 * batch
    assert text_judge.reading_seconds(2 * medium, 64 * 384) > 1.8 * batch


def test_a_reference_without_numbers_explains_nothing():
    read = token_parity.reading(np.array([[0.0, np.nan]]))
    assert (read["texts"], read["largest_gap"]) == (1, None)
    assert "NaN" in token_parity.scored({"logit_error": 1.0}, read)["problem"]
