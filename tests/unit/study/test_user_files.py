"""Files that a study names are looked at while planning."""

import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from ceilings import files
from ceilings.errors import UserError
from ceilings.host import Host
from ceilings.study.study import Study

LAPTOP = Host("cpu-test", "Test CPU", 4, None, "no CUDA device on this machine")
SWEEP = {"models": ["m"], "runtimes": ["onnxruntime-cpu"], "precisions": ["fp32"], "batches": [1], "sequences": [32]}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a classifier of two classes in ``m``, as far as planning reads it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    config = {"model_type": "bert", "id2label": {"0": "no", "1": "yes"}}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    (tmp_path / "m/vocab.txt").write_text("a")
    return tmp_path


def study(model=None, lengths=None, **sections):
    sweep = {**SWEEP, "lengths": ["real"]} if lengths else SWEEP
    config = {"study": "s", "models": {"m": {"path": "./m", **(model or {})}}, "sweeps": {"one": sweep}, **sections}
    return Study({**config, "inputs": {"lengths": {"real": lengths}}} if lengths else config, LAPTOP)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"does not exist; did you mean 'texts.tsv'\? \(paths start at /"),
        (lambda path: path.mkdir(), r"is a folder; name a file"),
        (lambda path: path.symlink_to("gone"), r"is a link to gone, which cannot be followed .*; mend the link"),
        (lambda path: path.symlink_to(path), r"is a link to .*, which cannot be followed"),
        (os.mkfifo, r"is no regular file; name one"),
        (lambda path: path.touch(), r"is empty; name a file with something in it"),
        (lambda path: path.write_text("\n \n"), r"holds no line of text; put one text on each line"),
        (lambda path: path.write_text(POINTER), r"is a pointer of git-lfs and not the file; run git lfs pull"),
        (lambda path: path.write_bytes(b"caf\xe9\n"), r"is not UTF-8 text \(.* at byte 3\); convert it"),
    ],
)
def test_texts_that_cannot_be_read(folder, make, message):
    (folder / "texts.tsv").touch()
    make(folder / "texts.txt")
    with pytest.raises(UserError, match=rf"inputs.lengths.real.file: texts.txt {message}"):
        study(lengths={"file": "texts.txt"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(folder):
    (folder / "texts.txt").write_text("a")
    (folder / "texts.txt").chmod(0)
    with pytest.raises(UserError, match=r"cannot be read .*; make it readable"):
        study(lengths={"file": "texts.txt"})


def test_a_letter_cut_at_the_end_of_the_head_is_fine(folder):
    text = folder / "long.txt"
    text.write_bytes(b"a" * (files.HEAD_BYTES - 1) + "é\n".encode())
    assert files.problem(text, text=True) is None
    text.write_bytes(b"a" + "é".encode()[:1])
    assert "unexpected end of data" in (files.problem(text, text=True) or "")


def test_texts_need_a_tokenizer(folder):
    (folder / "texts.txt").write_text("a text\n")
    study(lengths={"file": "texts.txt"})
    lacking = r"real.file: 'm' has no tokenizer to read texts with; give weights with one"
    with pytest.raises(UserError, match=lacking):
        study({"weights": "random"}, lengths={"file": "texts.txt"})
    (folder / "m/vocab.txt").unlink()
    with pytest.raises(UserError, match=lacking):
        study(lengths={"file": "texts.txt"})


@pytest.mark.parametrize(
    ("name", "content", "data", "message"),
    [
        (
            "d.csv",
            "words,label\na,1\n",
            {},
            r"d.csv has no column called sentence, .*; its columns are words, label: name",
        ),
        (
            "d.csv",
            "text,y\na,1\n",
            {"label": "z"},
            r"has no column 'z'; its columns are text, y: name one .* data.label",
        ),
        ("d.csv", "text,label\na,2\n", {}, r"line 2, column 'label': '2' is no class; they go from 0 to 1"),
        ("d.csv", "text,label\na,maybe\n", {}, r"'maybe' is no class of this model; its names are no, yes"),
        ("d.csv", "text,label\n", {}, r"holds no rows"),
        ("d.txt", "text\na\n", {}, r"is no labelled file: its name must end in one of .csv"),
        ("d.tsv", "text\tlabel\na\t-1\n", {}, r"-1 stands for a hidden label"),
        (
            "d.jsonl",
            '{"text": "a", "label": 1}\n',
            {"text": "texts"},
            r"has no column 'texts'; its columns are text, label",
        ),
        ("d.jsonl", "[1]\n", {}, r"line 1 is '\[1\]'; give one object a line"),
        ("d.jsonl", POINTER, {}, r"is a pointer of git-lfs"),
    ],
)
def test_labelled_files_that_do_not_fit(folder, name, content, data, message):
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"models.m.data: .*{message}"):
        study({"data": {"file": name, **data}})


def test_labelled_files_that_fit(folder):
    (folder / "d.csv").write_text("text,label\na,yes\nb,0\n")
    study({"data": "d.csv"})
    with pytest.raises(UserError, match="the task of 'm' is question-answering; leave it out"):
        study({"data": {"file": "d.csv", "label": "label"}, "task": "question-answering"})
    # How many classes there are is the checkpoint's to say.
    with pytest.raises(UserError, match=r"has num_labels = 2, but the study overrides it with 3"):
        study({"data": "d.csv", "config": {"num_labels": 3}})


def test_a_long_file_is_judged_by_its_columns(folder):
    rows = "".join(f'{{"text": "{"a" * 1000}", "label": 1}}\n' for _ in range(1100)) + "no json\n"
    (folder / "d.jsonl").write_text(rows)
    study({"data": "d.jsonl"})
    with pytest.raises(UserError, match="has no column 'y'"):
        study({"data": {"file": "d.jsonl", "label": "y"}})
    (folder / "d.csv").write_text('"a\nb",text\n' + "9,a\n" * 300000)
    study({"data": "d.csv"})


def test_parquet_is_judged_by_its_schema(folder):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "y": [1]}), folder / "d.parquet")
    study({"data": "d.parquet"})
    with pytest.raises(UserError, match="has no column 'label'; its columns are text, y"):
        study({"data": {"file": "d.parquet", "label": "label"}})
    (folder / "d.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        study({"data": "d.parquet"})


@pytest.mark.parametrize(
    ("model", "make", "message"),
    [
        ({"path": "./mm"}, None, r"models.m.path: mm does not exist; did you mean 'm'\?"),
        ({"path": "./f"}, lambda path: (path / "f").touch(), r"models.m.path: f is a file; name its folder"),
        (
            {},
            lambda path: (path / "m/model.safetensors").write_text(POINTER),
            r"m/model.safetensors is a pointer of git-lfs",
        ),
        ({}, lambda path: (path / "m/model.safetensors").touch(), r"m/model.safetensors is empty"),
        ({}, lambda path: (path / "m/tokenizer.json").symlink_to("gone"), r"m/tokenizer.json is a link to gone"),
        ({"path": None, "onnx": "m"}, None, r"models.m.onnx: m is a folder; name a file"),
        ({"path": None, "onnx": "m.onnx"}, None, r"models.m.onnx: m.onnx does not exist"),
    ],
)
def test_models_that_cannot_be_read(folder, model, make, message):
    if make:
        make(folder)
    given = {key: value for key, value in {"path": "./m", **model}.items() if value}
    sweep = {**SWEEP, "models": ["m"]}
    with pytest.raises(UserError, match=message):
        Study({"study": "s", "models": {"m": given}, "sweeps": {"one": sweep}}, LAPTOP)


def test_results_to_compare_with(folder):
    tables = folder / "earlier/tables"
    tables.mkdir(parents=True)
    for name in ("cells", "runs", "samples", "budgets"):
        (tables / f"{name}.parquet").touch()
    with pytest.raises(UserError, match=r"compare.before: earlier has no tables/floors.parquet; name"):
        study(compare={"before": "earlier"})
    (tables / "floors.parquet").touch()
    study(compare={"before": "earlier"})
    study(compare={"before": "results", "before_device": "a", "after_device": "b"})


def test_a_study_that_only_shows_needs_no_texts(folder):
    study(lengths={"file": "gone.txt"}, devices=["cpu-other"])
