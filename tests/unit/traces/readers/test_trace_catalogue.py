"""A file's form is what is in it, and a file of another form is refused in one line that says what to give."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
from unit.traces.readers.kineto_events import inference
from unit.traces.readers.test_trtexec_files import inferences, profile_text, write_times

from ceilings.errors import UserError
from ceilings.traces.readers import catalogue, read
from ceilings.traces.recording import Recording


def reader(path):
    chosen = catalogue._reader(path)
    return chosen.__module__.rpartition(".")[2], chosen.__name__


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz", "trace.sqlite", "no name"])
def test_the_name_of_a_file_says_nothing(tmp_path, name):
    path = inference().write(tmp_path / "trace.json")
    target = tmp_path / name
    text = path.read_bytes()
    target.write_bytes(gzip.compress(text) if name == "no name" else text)
    assert isinstance(read(target), Recording)


def test_forms_of_json(tmp_path):
    path = tmp_path / "x"
    events = inference().events
    meta = [{"ph": "M", "name": "process_name", "pid": 1, "args": {}}] * 3000
    path.write_text(json.dumps([*meta, {"ph": "X", "cat": "cpu_op", "name": "a", "ts": 1, "dur": 1}]))
    assert reader(path) == ("kineto", "read")
    path.write_text(
        json.dumps({"metadata": {"nodes": [1], "deep": ["x" * 3_000_000]}, "traceEvents": [events[1]]}, default=str)
    )
    assert reader(path) == ("kineto", "read")
    path.write_text(
        '[{"cat" : "Session","pid" :1,"tid" :1,"dur" :1,"ts" :1,"ph" : "X","name" :"model_run","args" : {}}]'
    )
    assert reader(path) == ("onnxruntime_profile", "read")
    path.write_text(profile_text({"a": [1.0]}))
    assert reader(path) == ("trtexec_files", "read_profile")
    write_times(path, inferences(3, 1, 1, 1, 1))
    assert reader(path) == ("trtexec_files", "read_times")
    path.write_text('\ufeff {"Layers": ["a"], "Bindings": []}', encoding="utf-8")
    assert reader(path) == ("trtexec_files", "read_layers")


def _zip(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


def _tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("trace.json"), io.BytesIO())
    return file.getvalue()


REFUSED = {
    "empty": (b"", "is empty"),
    "a page": (b"\n<!DOCTYPE html><html>", "is a page of HTML"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a pointer of git-lfs"),
    "a pickle": (pickle.dumps({"segments": []}), "is a pickle"),
    "a torch file": (_zip("archive/data.pkl"), "is a pickle"),
    "a zip": (_zip("trace.json"), "is a zip archive"),
    "a tar": (_tar(), "is a tar archive"),
    "zstd": (b"\x28\xb5\x2f\xfd1234", "is packed with zstd"),
    "gzip twice": (gzip.compress(gzip.compress(b"[]")), "is packed with gzip twice"),
    "damaged gzip": (gzip.compress(b"")[:4] + b"\xff" * 40, "is a gzip file that is damaged"),
    "UTF-16": ('{"traceEvents": []}'.encode("utf-16"), "is UTF-16 text"),
    "text": (b"nothing", "is of no form that is read"),
    "binary": (bytes(range(256)), "is of no form that is read"),
    "a browser": (
        json.dumps(
            {"traceEvents": [{"cat": "__metadata", "ph": "M"}, {"cat": "v8,devtools.timeline", "ph": "X"}]}
        ).encode(),
        "is a trace of a browser",
    ),
    "other events": (b'[{"ph": "X", "cat": "mine", "name": "x"}]', "holds no event of PyTorch's profiler or ONNX"),
    "no events": (b'{"traceEvents": []}', "holds no events"),
    "an empty list": (b"[]", "holds no events"),
    "numbers": (b"[[1, 2], [3]]", "is a list of something else"),
    "an execution trace": (b'{"schema": "1.1.1", "nodes": [{"id": 1}]}', "is an execution trace"),
    "a snapshot": (b'{"segments": [], "device_traces": []}', "is a memory snapshot"),
    "rocprof": (b'{"rocprofiler-sdk-tool": [{"a": 1}]}', "is an output of rocprofv3"),
    "a record": (b'{"schema_version": 3, "kind": "budget"}', "is a record of this project"),
    "another object": (b'{"a": {"traceEvents": [1]}}', "holds no list traceEvents"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path, kind):
    content, why = REFUSED[kind]
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read(path)
    message = str(refused.value)
    assert message.startswith(f"{path} {why}")
    assert "\n" not in message
    assert ";" in message


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trap"), "w"))

    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="never opened"):
        read(path)
    assert not (tmp_path / "trap").exists()


def test_folders_and_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="is a folder without traces"):
        read(tmp_path)
    for rank in range(7):
        inference().write(tmp_path / f"rank{rank}.pt.trace.json.gz")
    with pytest.raises(UserError, match=r"is a folder; give one .*rank0.* and 2 more"):
        read(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nothing")
    with pytest.raises(UserError, match="is no regular file"):
        read("/dev/null")


def test_a_capture_in_sqlite_goes_to_its_reader(tmp_path):
    capture = Path(__file__).parents[1] / "data/truth.nsys.sqlite"
    copy = tmp_path / "trace.json"
    copy.write_bytes(capture.read_bytes())
    assert reader(copy) == ("nsight", "read")
    assert isinstance(read(copy), Recording)
