"""What a server started ends with it, whatever the kernel can say of its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ceilings.environment import SCRIPTS
from ceilings.serving.servers.ending import SHM_PREFIX

MEMBER = """
import errno, os, sys, time
import ceilings.serving.servers.ending as ending
def refused(process):
    raise OSError(errno.ENOSYS, "no such call here")
if sys.argv[1] == "old":
    os.pidfd_open, ending.LOOKED_SECONDS = refused, 0.02
ending.watch()
print("watches", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kernel", ["new", "old"])
def test_a_python_of_a_server_lives_as_long_as_it(kernel):
    server = subprocess.Popen(["sleep", "60"], process_group=0)
    variables = {**os.environ, "PYTHONPATH": str(SCRIPTS), SHM_PREFIX: f"ceilings-none-{os.getpid()}"}
    program = [sys.executable, "-c", MEMBER, kernel]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, env=variables, process_group=server.pid
    ) as member:
        try:
            assert member.stdout.readline() == "watches\n" and member.poll() is None
            server.kill()
            server.wait()
            assert member.wait(10) == 128 + signal.SIGKILL
        finally:
            member.kill()
            server.kill()
