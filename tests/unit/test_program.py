"""What every program does when the user must act: one message, exit status 1, no traceback, nothing half-written."""

import json
import resource
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "workflow_scripts"


def make_inputs(folder, **options):
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights/config.json").write_text(
        '{"model_type": "distilbert", "vocab_size": 100, "max_position_embeddings": 64}'
    )
    wanted = {"batch": 64, "sequence": 64, "ring": 8, "seed": 0}
    command = [sys.executable, SCRIPTS / "make_inputs.py", "--weights-dir", folder / "weights"]
    command += ["--inputs", json.dumps(wanted), "--output", folder / "inputs.npz"]
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


def test_arguments_that_are_no_json(tmp_path):
    command = [sys.executable, SCRIPTS / "make_inputs.py", "--weights-dir", tmp_path, "--inputs", "{", "--output", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "not JSON" in done.stderr
