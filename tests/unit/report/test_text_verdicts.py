"""A process that generated text has a speed number where the verdict on its texts says that they are right."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.render.not_run import not_run
from ceilings.report.tables.collect import collect
from ceilings.report.tables.text_verdicts import judged

sys.path.insert(0, str(Path(__file__).parent))
import planted_study as planted

TEXTS = {"weights": "ab" * 32, "inputs": "cd" * 32, "tokens": [[1, 2, 3, 4]], "places": [[0, 1]]}
PARITY = {
    **{"prefill_l2": 0.0005, "decode_l2": 0.0005, "token_agreement": 0.9, "rows_equal": 0.5, "first_difference": 2},
    **{"generated": 4, "logit_error": 0.01, "relative_l2": 0.0005, "row_l2": 0.001, "sensitivity": None},
    **dict.fromkeys(("texts", "largest_margin", "top1_agreement", "rounding_l2")),
}


@pytest.fixture
def study(tmp_path):
    """Two processes of a cell whose texts are still to be read."""
    maker = planted.StudyMaker(tmp_path, lambda *_: 2.0, runs=2)
    cell = maker.add(planted.GPU, "torch-cuda-eager", "fp16", 2, (8, 4), model=planted.DECODER)
    for number, path in enumerate(cell["runs"], 1):
        maker.change(cell, number, texts=TEXTS, parity=records.read(path, "run")["parity"] | PARITY)
    cell["texts"] = str(Path(cell["runs"][0]).with_name("texts.json"))
    return maker


def read(study, *, gap=0.05, **changes):
    """Write the verdict: by how many logits the reference prefers another token in both processes."""
    (cell,) = study.cells
    found = {"texts": 1, "chosen": 0.75, "largest_gap": gap}
    runs = {
        str(number): {"digest": records.read(path, "run")["digest"], **found}
        for number, path in enumerate(cell["runs"], 1)
    }
    of = {name: cell[name] for name in ("device", "runtime", "model", "precision", "shape")}
    content = {"cell": of, "log": None, "status": "ok", "failure": None, "read": 1, "runs": runs}
    content |= {"device": "cpu", "seconds": 3.0, "provenance": None} | changes
    records.write(cell["texts"], "text-verdict", content)


def row_of(study):
    return collect(study.plan()).cells.iloc[0]


def test_right_texts_leave_the_number(study):
    read(study)
    row = row_of(study)
    assert (row["status"], row["p50_ms"] > 0, row["top1_agreement"]) == ("ok", True, 0.75)
    assert row["largest_margin_sigma"] == pytest.approx(5)


def test_wrong_texts_take_it(study):
    read(study, gap=0.09)
    row = row_of(study)
    assert (row["status"], row["failure_kind"]) == ("failed", "parity") and not row["p50_ms"] > 0
    assert "prefers another token by up to 9 rms errors" in row["reason"]


def test_texts_that_nobody_read_take_it_and_the_row_says_how_to_read_them(study):
    row = row_of(study)
    assert (row["status"], row["failure_kind"]) == ("failed", "unread") and not row["p50_ms"] > 0
    assert row["reason"] == "unread: the FP32 reference has not read its texts"
    path = study.cells[0]["texts"]
    assert row["remedy"].endswith(f": `rm -f {path}` and run again, where its weights and prompts are")


def test_a_verdict_on_one_process_says_nothing_of_another(study):
    read(study)
    study.change(study.cells[0], 2, flags=["measured anew"])
    row = row_of(study)
    assert (row["status"], row["failure_kind"]) == ("failed", "unread")
    assert row["reason"].startswith("1 of 2 processes failed")
    assert row["reason"].endswith("the FP32 reference read what an earlier process of this number wrote")


def test_a_reading_that_failed_says_why(study):
    read(study, status="failed", failure={"kind": "timed-out", "message": "no result after 600 s"}, runs={})
    assert row_of(study)["reason"].endswith("did not read its texts: no result after 600 s")


def test_the_log_is_that_of_the_reading_where_the_reading_is_why(study):
    read(study, log="results/logs/read_texts/x.log")
    for path in study.cells[0]["runs"]:
        record = records.read(path, "run")
        assert judged(record, study.cells[0])["log"] == record["log"]
    read(study, log="results/logs/read_texts/x.log", gap=0.09)
    assert row_of(study)["log"] == "results/logs/read_texts/x.log"


def test_the_summary_names_what_gets_unread_texts_read(study):
    failure = {"kind": "timed-out", "message": "no result after 600 s"}
    read(study, log="results/logs/read_texts/x.log", status="failed", failure=failure, runs={})
    shown = not_run(study.plan(), collect(study.plan()), most=10)
    path = study.cells[0]["texts"]
    assert f"see `results/logs/read_texts/x.log`, then `rm -f {path}` and run again" in shown


def test_a_verdict_of_another_cell_is_refused(study):
    cell = study.cells[0]
    read(study, cell={name: cell[name] for name in ("device", "runtime", "model", "shape")} | {"precision": "bf16"})
    with pytest.raises(UserError, match=re.escape(f"{cell['texts']} is the verdict on another cell")):
        collect(study.plan())


def test_a_record_that_an_earlier_version_judged_needs_no_verdict(study):
    """Its parity has what the reference found."""
    for number, path in enumerate(study.cells[0]["runs"], 1):
        record = records.read(path, "run")
        parity = record["parity"] | {"texts": 1, "largest_margin": 5.0, "top1_agreement": 0.75}
        records.write(path, "run", {name: value for name, value in record.items() if name != "texts"})
        study.change(study.cells[0], number, parity=parity)
    assert row_of(study)["status"] == "ok"
