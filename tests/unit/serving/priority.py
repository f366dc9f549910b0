"""Times that are right on a busy machine and on an idle one."""

import contextlib
import os
import subprocess
import sys

_SPIN = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while True:
    pass
"""


@contextlib.contextmanager
def first():
    """This thread and what it starts go before all other processes, where that is allowed."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def awake():
    """No processor halts: each has a process that gives way to every other one.

    A halted virtual processor takes 0.1 to 0.3 ms to run again, more the longer it was idle, and an answer that comes
    20 ms later finds three of them halted.
    """
    with contextlib.ExitStack() as stack:
        for core in os.sched_getaffinity(0):
            spinner = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", _SPIN, str(core)], stdout=subprocess.PIPE)
            )
            stack.callback(spinner.kill)
            assert spinner.stdout.readline() == b"\n"
        yield
