"""Binary files are vouched for by their record, or by a digest in them."""

from __future__ import annotations

import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pytest
from unit.planted_records import ENGINE, PROVENANCE, WEIGHTS
from unit.traces import planted as captured

from ceilings import artifacts, records
from ceilings.errors import CellFailure, UserError
from ceilings.files import sha256
from ceilings.models import pool
from ceilings.traces import store

GRAPH = {
    **{"status": "ok", "opset": 17, "nodes": 3, "op_types": {"MatMul": 3}, "inputs": [], "outputs": [], "bytes": 7},
    "provenance": PROVENANCE,
}


@pytest.fixture(params=["x.onnx", "x.engine", "model.safetensors"])
def artifact(tmp_path, request) -> Path:
    """An artifact with the report that vouches for it."""
    path = tmp_path / request.param
    path.write_bytes(b"content")
    digest = sha256(path)
    kind, content = {
        ".onnx": ("graph", GRAPH | {"graph_sha256": digest}),
        ".engine": ("engine", ENGINE | {"engine_sha256": digest, "engine_bytes": 7}),
        ".safetensors": ("weights", WEIGHTS | {"sha256": digest}),
    }[path.suffix]
    records.write(artifacts.report_of(path), kind, content)
    return path


def test_what_its_report_vouches_for_is_used(artifact):
    artifacts.refuse_failed(artifact)


@pytest.mark.parametrize("content", [b"", b"conten", b"CONTENT", b"content more"])
def test_another_file_than_was_made_is_refused(artifact, content):
    artifact.write_bytes(content)
    with pytest.raises(UserError, match=r"is (not what was made|empty), by its report .*; delete it and run"):
        artifacts.refuse_failed(artifact)


@pytest.mark.parametrize("report", ["", "{}", "null", '{"sha256": "x"}'])
def test_a_damaged_report_vouches_for_nothing(artifact, report):
    artifacts.report_of(artifact).write_text(report)
    with pytest.raises(UserError, match="delete it and run `snakemake"):
        artifacts.refuse_failed(artifact)


def test_a_failure_is_passed_on(tmp_path):
    with artifacts.made(tmp_path / "x.json", [tmp_path / "x.onnx"], "graph"):
        raise CellFailure("unsupported", "no such operator")
    with pytest.raises(CellFailure, match="no such operator"):
        artifacts.refuse_failed(tmp_path / "x.onnx")


@pytest.fixture
def answers(tmp_path) -> Path:
    pool.save_outputs(tmp_path / "ref.npz", {"logits": np.ones((2, 3), np.float32)}, "ab" * 32)
    return tmp_path / "ref.npz"


def test_answers_vouch_for_themselves(answers):
    assert pool.load_outputs(answers, "ab" * 32)["logits"].shape == (2, 3)
    with pytest.raises(UserError, match="was made of the inputs abababababab, not of cdcdcdcdcdcd"):
        pool.load_outputs(answers, "cd" * 32)
    for name, value in (("output/logits", np.zeros((2, 3), np.float32)), ("inputs_sha256", np.array("cd" * 32))):
        content = pool.load(answers)
        pool.save(answers.with_name("edited.npz"), **(content | {name: value}))
        with pytest.raises(UserError, match="does not match its own sha256"):
            pool.load_outputs(answers.with_name("edited.npz"), "ab" * 32)


def test_a_damaged_npz_is_refused_in_one_line(answers):
    whole = answers.read_bytes()
    other = answers.with_name("packed.zip")
    with zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("output/logits.npy", bytes(100_000_000))
    np.save(answers.with_name("plain.npy"), np.zeros(3))
    contents = [whole[: int(len(whole) * part)] for part in (0, 0.1, 0.5, 0.9, 0.99)]
    contents += [whole[: place * 7] + b"\xff\x00" + whole[place * 7 + 2 :] for place in range(len(whole) // 7)]
    contents += [other.read_bytes(), answers.with_name("plain.npy").read_bytes(), b"{}", b"PK\x03\x04"]
    for content in contents:
        answers.write_bytes(content)
        try:
            loaded = pool.load_outputs(answers, "ab" * 32)
        except UserError as error:
            assert str(error).startswith(f"{answers} ") and "\n" not in str(error) and "snakemake" in str(error)
        else:  # a byte that nothing reads
            assert np.array_equal(loaded["logits"], np.ones((2, 3)))


@pytest.fixture
def capture(tmp_path) -> Path:
    store.write(tmp_path / "c.sqlite", captured.capture(captured.eager, 4))
    return tmp_path / "c.sqlite"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = end + 1 WHERE rowid = 5",
        "DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE rowid = 5",
        "UPDATE StringIds SET value = 'gemm' WHERE id = 1",
        "UPDATE NVTX_EVENTS SET end = end + 1 WHERE rowid = 1",
        "UPDATE CEILINGS_CAPTURE SET value = '99' WHERE name = 'iterations'",
        "UPDATE CEILINGS_CAPTURE SET value = '1' WHERE name = 'schema_version'",
        "UPDATE CEILINGS_CAPTURE SET value = '{' WHERE name = 'iterations'",
        "UPDATE CEILINGS_CAPTURE SET value = x'00' WHERE name = 'iterations'",
        "DELETE FROM CEILINGS_CAPTURE WHERE name = 'digest'",
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 'x' WHERE rowid = 5",
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 1e300 WHERE rowid = 5",
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = x'00ff' WHERE rowid = 5",
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = end + 1 WHERE rowid = 5",
        "UPDATE NVTX_EVENTS SET start = 'x' WHERE rowid = 1",
        "UPDATE StringIds SET value = x'ff' WHERE id = 1",
        "DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL",
    ],
)
def test_a_changed_capture_is_refused(capture, change):
    store.read(capture)
    with sqlite3.connect(capture) as database:
        database.execute(change)
    database.close()
    with pytest.raises(UserError) as caught:
        store.read(capture)
    assert str(caught.value).startswith(f"{capture} ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.9])
def test_a_truncated_capture_is_refused(capture, part):
    whole = capture.read_bytes()
    capture.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(UserError, match=str(capture)):
        store.read(capture)
