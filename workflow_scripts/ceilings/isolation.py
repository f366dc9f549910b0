"""Crashes of libraries, survived: the work runs in a child process, and its parent records how a signal ended it.

The parent also ends everything below it when the pipeline ends (:mod:`ceilings.lifetime`). Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ceilings import lifetime, records
from ceilings.files import write_text

CRASH = "<how the process ended>"
"""Stands in the files of :func:`leave_on_crash` for a clause such as "ended by SIGSEGV"."""

CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGKILL")
"""Signals by which a library or the kernel ends a process; SIGINT, SIGTERM and SIGHUP are the user's."""

_pipes: list[int] = []


def isolate(survive: bool = True) -> None:
    """Return in a child process; this process waits for it, ends what it leaves running, and exits as it does.

    Call it before any library starts threads or a CUDA context. The child ends with its parent, and both with the
    pipeline.

    Args:
        survive: Whether a crash of the child is recorded as :func:`leave_on_crash` says, and then counts as success.
    """
    watched = lifetime.above()
    lifetime.adopt()
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reader)
        lifetime.die_with(parent)
        if survive:
            _pipes.append(writer)
        return
    os.close(writer)
    status, written = lifetime.outlive(child, watched, reader)
    lines = written.decode().splitlines()
    if status < 0 and (name := signal_name(-status)) in CRASHES and lines:
        left = json.loads(lines[-1].replace(CRASH, ended_by(name)))
        for path, content in left.items():
            if isinstance(content, str):
                write_text(path, content)
            else:
                records.write(path, content["kind"], content)
        print(f"{', '.join(left)}: {ended_by(name)}", flush=True)
        status = 0
    os._exit(status if status >= 0 else 128 - status)


def leave_on_crash(files: Mapping[Path | str, str | dict[str, Any]]) -> None:
    """Say what the parent writes if a signal ends this process: text, or a record with its ``kind``; the last counts.

    Without :func:`isolate` before it, it does nothing.
    """
    left = json.dumps({str(path): content for path, content in files.items()})
    for pipe in _pipes:
        os.write(pipe, f"{left}\n".encode())


def ended_by(name: str) -> str:
    """A clause that says which signal ended a process.

    >>> ended_by("SIGSEGV")
    'ended by SIGSEGV'
    >>> ended_by("SIGKILL")
    'ended by SIGKILL; the system may have run out of memory'
    """
    return f"ended by {name}" + ("; the system may have run out of memory" if name == "SIGKILL" else "")


def last_error(printed: str) -> str:
    """The line that says why a program ended: of a traceback the exception's first, else the last.

    >>> last_error("Traceback (most recent call last):\\n  File x\\nValueError: no kernel\\nfor this type")
    'ValueError: no kernel'
    """
    lines = printed.strip().splitlines()
    _, traceback, after = printed.rpartition("Traceback (most recent call last):\n")
    if traceback and not (lines and lines[-1].startswith("error: ")):
        lines = [line for line in after.splitlines() if line and not line[0].isspace()][:1] or lines
    return lines[-1] if lines else ""


def signal_name(number: int) -> str:
    """Name of a signal; of one without a name, its number.

    >>> signal_name(11), signal_name(36)
    ('SIGSEGV', 'signal 36')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
