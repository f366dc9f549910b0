"""What identifies a person or a machine does not get into a record; everything else stays."""

import json

import pytest

from ceilings import artifacts, files, private, records
from ceilings.errors import CellFailure


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A user alice of the machine buildbox7, at work in a folder of hers."""
    for name, value in {"HOME": "/home/alice", "USER": "alice", "HOSTNAME": "buildbox7.corp.example"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "a client" / "very private" / "bert").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    private._homes.cache_clear()
    private._names.cache_clear()
    yield
    private._homes.cache_clear()
    private._names.cache_clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/alice/models/bert is damaged", "bert is damaged"),
        ("/home/alice", "~"),
        ("(see /home/alice)", "(see ~)"),
        ("~/x/y and ./mine/x", "y and mine/x"),
        ("from file:///home/alice/q.bin", "from q.bin"),
        ("from file:///mnt/client/q.bin", "from q.bin"),
        ("cc -I/home/alice/x -L/opt/client/lib", "cc -Ix -Llib"),
        ("PATH=/usr/bin:/home/alice/bin", "PATH=bin:bin"),
        ('File "/root/x.py", line 3', 'File "x.py", line 3'),
        ('{"cache": "/tmp/torchinductor_alice/ab"}', '{"cache": "ab"}'),
        ("alice@buildbox7: no", "<user>@<host>: no"),
        ("run by alice_ on buildbox7.corp.example.", "run by <user>_ on <host>."),
        # what is no path and no name of somebody
        ("/encoder/layer.0/MatMul", "/encoder/layer.0/MatMul"),
        ("node /model/x/MatMul, and/or 1/2, a / b", "node /model/x/MatMul, and/or 1/2, a / b"),
        ("https://example.com/a/b", "https://example.com/a/b"),
        ("results/onnx/x.onnx", "results/onnx/x.onnx"),
        ("hf.co/distilbert/base and s3://bucket/key", "hf.co/distilbert/base and s3://bucket/key"),
        ("alice", "alice"),
        ("it names '../x' and ../y/z", "it names '../x' and ../y/z"),
        ("malice and alice2", "malice and alice2"),
    ],
)
def test_texts(text, shown):
    assert private.anonymous(text) == shown
    assert private.anonymous(shown) == shown


def test_folders_with_blanks(tmp_path):
    folder = tmp_path / "a client" / "very private" / "bert"
    text = f"Load model from {folder}/model.onnx failed, and '{folder}' too"
    assert private.anonymous(text) == "Load model from model.onnx failed, and 'bert' too"


def test_the_working_folder_leaves_what_lies_below_it(tmp_path):
    assert private.anonymous(f"{tmp_path}/work/results/x.json is new") == "results/x.json is new"


def test_names_that_identify_nobody_stay(monkeypatch):
    monkeypatch.setenv("USER", "root")
    monkeypatch.setenv("HOSTNAME", "vm")
    private._names.cache_clear()
    assert private.anonymous("the square root of a vm") == "the square root of a vm"


def test_whole_values():
    value = {"/home/alice/a": [1, 2.5, None, True, {"b": "by alice, x"}], "n": [1, 2]}
    assert private.anonymous(value) == {"a": [1, 2.5, None, True, {"b": "by <user>, x"}], "n": [1, 2]}


def test_records_and_failures_are_anonymous_and_tasks_are_not(tmp_path):
    value = {"path": "/home/alice/x"}
    files.write_json("record.json", value)
    files.write_task("task.json", value)
    assert json.loads((tmp_path / "work/record.json").read_text()) == {"path": "x"}
    assert json.loads((tmp_path / "work/task.json").read_text()) == value


def test_a_failure_names_a_path_that_can_be_used_and_its_record_none_of_the_machine(tmp_path):
    with artifacts.made(tmp_path / "x.json", [tmp_path / "x.onnx"], "graph"):
        raise CellFailure("damaged", "/home/alice/x is damaged; rm /home/alice/x")
    assert records.read(tmp_path / "x.json", "graph")["failure"]["message"] == "x is damaged; rm x"
    assert str(CellFailure("damaged", "/home/alice/x is damaged")) == "/home/alice/x is damaged"
