"""What every program does when the user must act: one message, exit status 1, no traceback, nothing half-written."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from unit import planted_records

from ceilings.workload.task import TASKS
from ceilings.workload.tensors import TensorSpec
from ceilings.workload.workload import Workload

SCRIPTS = Path(__file__).parents[2] / "workflow_scripts"


INTERFACE = Workload(
    TASKS["tensors"],
    (TensorSpec("features", "float32", ("batch", 64), "reals"),),
    (TensorSpec("answer", "float32", ("batch", 64)),),
)


def make_inputs(folder, **options):
    INTERFACE.write(folder / "weights")
    planted_records.weights(folder / "weights")
    command = [sys.executable, SCRIPTS / "make_inputs.py", "--weights-dir", folder / "weights", "--shape", "b64"]
    command += ["--inputs", '{"pool": 8, "seed": 0}', "--output", folder / "inputs.npz"]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_no_room_for_a_file(tmp_path):
    """A file size limit stands in for a full disk: the write fails half-way in the same place."""
    assert make_inputs(tmp_path).returncode == 0
    (tmp_path / "inputs.npz").unlink()
    limit = (4096, 4096)
    done = make_inputs(tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot write" in done.stderr and "File too large" in done.stderr and "what is finished stays" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def program_of(folder, code):
    """A program whose own answer is 1, as trend_results.py: what it cannot do is 2."""
    script = folder / "program.py"
    script.write_text(
        f"import argparse, sys\nsys.path.insert(0, {str(SCRIPTS)!r})\nfrom ceilings.files import write_text\n"
        f"from ceilings.program import main\nmain(lambda a: {code}, argparse.ArgumentParser(), failed=2)\n"
    )
    return subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("file/x/y.md", "file/x cannot be made, since file is no folder; name another path"),
        ("link/y.md", "link is no folder; name another path"),
        ("a folder", "a folder is a folder, and a file should go there; name a file"),
    ],
)
def test_an_output_that_has_no_place_is_one_line(tmp_path, output, message):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "a folder").mkdir()
    done = program_of(tmp_path, f"write_text({output!r}, 'x')")
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a folder", "file", "link", "program.py"]
    assert (tmp_path / "file").read_text() == "kept" and not list((tmp_path / "a folder").iterdir())


def test_a_bug_never_ends_as_an_answer_does(tmp_path):
    done = program_of(tmp_path, "open('nowhere')")
    assert done.returncode == 2 and "Traceback" in done.stderr and "nowhere" in done.stderr


def test_arguments_that_are_no_json(tmp_path):
    command = [sys.executable, SCRIPTS / "make_inputs.py", "--weights-dir", tmp_path, "--shape", "b1"]
    command += ["--inputs", "{", "--output", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "not JSON" in done.stderr


def test_a_reader_that_ends_is_no_error(tmp_path):
    """As of ``| head``: the program ends quietly, as one that SIGPIPE ends, wherever it prints."""
    for words, statuses in (("--help", (0, 141)), ("print('x' * 100000)", (141,)), ("print('x')", (141,))):
        script = tmp_path / "program.py"
        script.write_text(
            f"import argparse, sys\nsys.path.insert(0, {str(SCRIPTS)!r})\nfrom ceilings.program import main\n"
            "parser = argparse.ArgumentParser()\nparser.add_argument('code')\nmain(lambda a: exec(a.code), parser)\n"
        )
        program = subprocess.Popen([sys.executable, script, words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        program.stdout.close()
        assert program.stderr.read() == b"" and program.wait() in statuses, words
        program.stderr.close()


def test_what_can_be_written_is_written_before_the_error(tmp_path):
    """A file without calls and kernels has pages, and nothing for Perfetto."""
    (tmp_path / "times.json").write_text(
        json.dumps([{"name": "gemm", "timeMs": 30, "averageMs": 3, "percentage": 100}])
    )
    program = [sys.executable, SCRIPTS / "explain_capture.py", "times.json", "--perfetto", "a.json"]

    def run(*words):
        return subprocess.run([*program, *words], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("--markdown", "a.md", "--html", "a.html", "--output", "record.json")
    assert done.returncode == 1 and done.stderr.startswith("error: times.json has no calls"), done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"times.json", "a.md", "a.svg", "a.html", "record.json"}
    assert run("--record-failure").returncode == 0
    empty = json.loads((tmp_path / "a.json").read_text())
    assert empty["traceEvents"] == [] and "Perfetto has nothing to show" in empty["otherData"]["failure"]


def test_a_package_that_is_not_there_is_one_line(tmp_path):
    """``-S`` hides the packages of the environment, whether a program imports them at its begin or later."""
    (tmp_path / "trace.json").write_text("{}")
    for program, *words in (
        ("explain_capture.py", "trace.json"),
        ("compare_explained.py", "trace.json", "trace.json"),
        ("write_next.py", "--help"),
    ):
        command = [sys.executable, "-S", SCRIPTS / program, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={})
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "is not installed here; run `make venv` in the project" in done.stderr
