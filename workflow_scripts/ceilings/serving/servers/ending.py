"""The end of what a server started: with the server, wherever it is then. Standard library only.

Triton starts a Python for each instance. If the server is killed, such a Python may wait for its next words for good,
also before it has read a line of a model. So this runs when its interpreter starts
(:mod:`ceilings.serving.server_python`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from pathlib import Path

from ceilings.lifetime import SHARED_MEMORY

SHM_PREFIX = "CEILINGS_SHM_PREFIX"
"""Environment variable with what the names of the server's shared memory begin with; set for Triton's Pythons."""


LOOKED_SECONDS = 0.5
"""So often a server is looked for where the kernel does not say when it ends."""


def clean_shared_memory(prefix: str) -> int:
    """Remove the shared memory whose name begins so; how many there were. Triton's Python backend leaves some."""
    removed = 0
    for path in Path(SHARED_MEMORY).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    return removed


def watch() -> None:
    """Have a thread end this process when the server has ended, whose number is that of the process group.

    Not the kernel's signal of a parent's death: that comes when the thread ends which started this process, and Triton
    starts its Pythons from threads that load a model. Not the parent's number: it may have ended already.
    """
    prefix, server = os.environ.get(SHM_PREFIX, ""), os.getpgrp()
    if not prefix or server == os.getpid():
        return
    watched: int | None = None
    try:
        watched = os.pidfd_open(server)
    except ProcessLookupError:
        _end(prefix)
    except OSError:
        pass  # a kernel without the call, such as that of some sandboxes: then it is looked for

    def wait() -> None:
        if watched is not None:
            select.select([watched], [], [])
        else:
            while _is_there(server):
                time.sleep(LOOKED_SECONDS)
        _end(prefix)

    threading.Thread(target=wait, daemon=True).start()


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _end(prefix: str) -> None:
    clean_shared_memory(prefix)
    os._exit(128 + signal.SIGKILL)
