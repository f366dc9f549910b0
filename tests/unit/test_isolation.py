"""What a crash of a library leaves: an artifact that could not be made, and a program that ends well."""

import doctest
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ceilings import isolation, records

SCRIPTS = Path(__file__).parents[2] / "workflow_scripts"

PROGRAM = """
import argparse, ctypes, os, signal, sys, time
from pathlib import Path
from ceilings import artifacts
from ceilings.program import main

def work(arguments):
    with artifacts.made("graph.json", ["graph.onnx"], "graph", step="fuse"):
        {body}

main(work, argparse.ArgumentParser(), isolated=True)
"""


def start(folder, body):
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    return subprocess.Popen(
        command, cwd=folder, env={"PYTHONPATH": str(SCRIPTS), "PATH": ""}, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ctypes.string_at(0)", "ended by SIGSEGV"),
        ("os.abort()", "ended by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL; the system may have run out of memory"),
    ],
)
def test_a_crash_is_a_failure_of_the_artifact(tmp_path, body, message):
    program = start(tmp_path, body)
    assert program.communicate()[0] and program.returncode == 0
    assert (tmp_path / "graph.onnx").read_bytes() == b""
    record = records.read(tmp_path / "graph.json", "graph")
    assert (record["status"], record["step"]) == ("failed", "fuse")
    assert record["failure"] == {"kind": "crashed", "message": message}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("Path('graph.onnx').touch()", 0),
        ("sys.exit(3)", 3),
        ("1 / 0", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143),
    ],
)
def test_any_other_end_is_passed_on(tmp_path, body, status):
    program = start(tmp_path, body)
    program.communicate()
    assert program.returncode == status
    assert not (tmp_path / "graph.json").exists()


def test_the_work_ends_with_its_program(tmp_path):
    program = start(tmp_path, "Path('started').touch(); time.sleep(60)")
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    (child,) = psutil.Process(program.pid).children()
    program.send_signal(signal.SIGKILL)
    program.communicate()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_documented_examples_hold():
    assert doctest.testmod(isolation).attempted and not doctest.testmod(isolation).failed
