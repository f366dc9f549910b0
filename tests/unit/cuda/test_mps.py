"""MPS for the length of a block, against a double of its control program.

The double knows the options and commands of NVIDIA's manual page (``-f``, ``get_server_list``, ``get_client_list PID``,
``quit``) and computes nothing. The real one is started on a GPU's host: tests/gpu/test_colocation_gpu.py.
"""

import os
import stat
import sys
from pathlib import Path

import pytest

from ceilings.cuda import mps
from ceilings.errors import CellFailure

DOUBLE = f"""#!{sys.executable}
import os, pathlib, sys, time
pipe = pathlib.Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
log = pathlib.Path(os.environ["CUDA_MPS_LOG_DIRECTORY"])
if sys.argv[1:] == ["-f"]:
    if (pipe / "broken").exists() or os.environ.get("BROKEN"):
        sys.exit("An instance of this daemon is already running")
    (log / "control.log").write_text("started by " + os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
    (pipe / "control.pid").write_text(str(os.getpid()))
    while not (pipe / "quit").exists():
        time.sleep(0.01)
    (pipe / "control.pid").unlink()
elif not (pipe / "control.pid").exists():
    sys.exit("Cannot find MPS control daemon process")
else:
    clients = sorted(path.name for path in pipe.glob("client-*"))
    for command in sys.stdin.read().split("\\n"):
        if command == "get_server_list" and clients:
            print(4242)
        if command == "get_client_list 4242":
            print("\\n".join(name.partition("-")[2] for name in clients))
        if command == "quit":
            (pipe / "quit").touch()
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / mps.PROGRAM
    path.write_text(DOUBLE)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return path


def test_the_daemon_lives_as_long_as_the_block_and_in_its_folder(program, tmp_path):
    with mps.Mps("GPU-1", tmp_path) as service:
        assert service.variables["CUDA_VISIBLE_DEVICES"] == "GPU-1"
        pipe, log = (Path(service.variables[f"CUDA_MPS_{name}_DIRECTORY"]) for name in ("PIPE", "LOG"))
        assert (pipe.parent, log.parent) == (tmp_path, tmp_path)
        pid = int((pipe / "control.pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    assert not (pipe / "control.pid").exists()  # it ended by its command, not by a signal


def test_processes_that_run_without_the_service_are_no_result_of_it(program, tmp_path):
    with mps.Mps("GPU-1", tmp_path) as service:
        assert service.clients() == 0
        (tmp_path / "pipe/client-11").touch()
        with pytest.raises(CellFailure, match=r"MPS computes for 1 of 2 processes.*started by GPU-1") as failure:
            service.refuse_without(2)
        assert failure.value.kind == "fallback"
        (tmp_path / "pipe/client-12").touch()
        service.refuse_without(2)


def test_a_daemon_that_does_not_start_is_a_failure_with_its_words(program, tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(CellFailure, match="did not start: An instance of this daemon"), mps.Mps("GPU-1", tmp_path):
        pass


def test_without_the_program_there_is_a_reason_and_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    reason, remedy = mps.problem()
    assert mps.PROGRAM in reason and "leave mps out" in remedy
    with pytest.raises(CellFailure, match="leave mps out"), mps.Mps("GPU-1", tmp_path):
        pass


def test_a_folder_that_is_too_long_for_sockets_is_refused(tmp_path):
    with pytest.raises(CellFailure, match="set TMPDIR"):
        mps.Mps("GPU-1", tmp_path / ("x" * mps.LONGEST_SOCKET))
