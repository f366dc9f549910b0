"""What every program does when the user must act: one message, exit status 1, no traceback, nothing half-written."""

import resource
import subprocess
import sys
from pathlib import Path

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


def test_arguments_that_are_no_json(tmp_path):
    command = [sys.executable, SCRIPTS / "make_inputs.py", "--weights-dir", tmp_path, "--shape", "b1"]
    command += ["--inputs", "{", "--output", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "not JSON" in done.stderr
