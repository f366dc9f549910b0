"""Timed processes take turns: real ones, started beside each other."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ceilings import turns
from ceilings.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "workflow_scripts"
HOLD = """
import sys
from ceilings import turns
gpus = sys.argv[1].split("+") if sys.argv[1] != "cpu" else None
turns.pin("allowed" in sys.argv)
with turns.turn(gpus, timed=sys.argv[2] == "timed"):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a process that asks for a turn and keeps it until it is let go."""
    monkeypatch.setenv(turns.FOLDER, str(tmp_path))
    running = []

    def start(device, how="timed", *further):
        environment = {"PYTHONPATH": str(SCRIPTS), turns.FOLDER: str(tmp_path)}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, device, how, *further], env=environment, text=True, **pipes
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("cpu",), ("cpu",)),
        (("cpu",), ("GPU-1",)),
        (("GPU-1",), ("cpu",)),
        (("GPU-1",), ("GPU-1",)),
        (("cpu",), ("cpu", "untimed")),
        (("GPU-1", "untimed"), ("GPU-1",)),
        (("GPU-1",), ("GPU-2",)),
        (("GPU-1", "timed", "allowed"), ("GPU-2",)),
        (("GPU-1", "untimed"), ("GPU-2",)),
        (("GPU-1", "timed", "allowed"), ("GPU-1", "timed", "allowed")),
        (("GPU-1+GPU-2", "timed", "allowed"), ("GPU-3", "timed", "allowed")),
    ],
)
def test_the_second_waits_and_names_the_first(start, first, second):
    holder = start(*first)
    assert holder.stdout.readline() == "in\n" and turns.taken() == [holder.pid]
    waiting = start(*second)
    assert waiting.stderr.readline() == f"waiting for a process that times on this machine (pid {holder.pid})\n"
    time.sleep(0.05)
    assert waiting.poll() is None
    holder.send_signal(signal.SIGKILL)  # the kernel drops its lock
    assert waiting.stdout.readline() == "in\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("GPU-1", "timed", "allowed"), ("GPU-2", "timed", "allowed")),
        (("GPU-1", "untimed"), ("GPU-2", "untimed")),
        (("cpu", "untimed"), ("cpu", "untimed")),
        (("cpu", "untimed"), ("GPU-1",)),
    ],
)
def test_what_disturbs_nothing_runs_beside(start, first, second):
    assert start(*first).stdout.readline() == "in\n"
    assert start(*second).stdout.readline() == "in\n"


def test_another_users_file_and_a_tidied_folder(start, tmp_path):
    lock = tmp_path / "ceilings-cpu.lock"
    lock.touch(0o444)
    holder = start("cpu")
    assert holder.stdout.readline() == "in\n" and lock.stat().st_mode & 0o777 == 0o444
    waiting = start("cpu")
    assert waiting.stderr.readline().startswith("waiting")
    lock.unlink()
    third = start("cpu")  # makes the file anew, and has it
    assert third.stdout.readline() == "in\n"
    holder.kill()
    assert waiting.stderr.readline() == f"waiting for a process that times on this machine (pid {third.pid})\n"


def test_the_folder_of_locks_is_made_or_the_flaw_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(turns.FOLDER, str(tmp_path / "a" / "b"))
    with turns.turn(None):
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv(turns.FOLDER, str(tmp_path / "file" / "b"))
    with (
        pytest.raises(UserError, match=r"cannot be opened .*name a writable folder in CEILINGS_LOCKS"),
        turns.turn(None),
    ):
        pass
