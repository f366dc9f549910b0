"""CUDA's Multi-Process Service for the length of a block: one server computes for several processes.

Its daemon and all its files belong to the block: pipes and logs lie in a separate folder, so that neither a daemon
that runs already nor other users notice. The compute mode of the card stays as it is. A process that finds no daemon
runs without MPS and does not say so; therefore the clients that the server counts are held against those there should
be. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

from ceilings.errors import CellFailure
from ceilings.lifetime import tied

PROGRAM = "nvidia-cuda-mps-control"

START_SECONDS = 20.0
ANSWER_SECONDS = 10.0

LONGEST_SOCKET = 80
"""Characters of a folder of sockets: with its names in it no more than Linux takes."""


def problem() -> tuple[str, str] | None:
    """Why MPS cannot run on this machine, and what helps; None where its program is there."""
    if shutil.which(PROGRAM) is None:
        return (
            f"{PROGRAM} is not there",
            "install the driver's compute utilities (such as nvidia-compute-utils), or leave mps out of how",
        )
    return None


class Mps:
    """Context with a daemon; its clients are the processes that get ``variables``.

    Args:
        uuid: Of the GPU. By it daemon and clients name the same card; numbers the daemon would count anew.
        folder: For pipes and logs.
    """

    def __init__(self, uuid: str, folder: str | Path) -> None:
        self._folder = Path(folder)
        if len(str(self._folder)) > LONGEST_SOCKET:
            raise CellFailure(
                "unsupported",
                "the path of the temporary folder is too long for sockets of MPS; set TMPDIR to a shorter one",
            )
        self.variables = {
            "CUDA_VISIBLE_DEVICES": uuid,
            "CUDA_MPS_PIPE_DIRECTORY": str(self._folder / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(self._folder / "log"),
        }
        """Of the environment of each client."""

    def __enter__(self) -> Mps:
        if lack := problem():
            raise CellFailure("unsupported", f"{lack[0]}; {lack[1]}")
        for name in ("pipe", "log"):
            (self._folder / name).mkdir()
        self._printed = self._folder / "printed"
        with open(self._printed, "wb") as printed:
            self._daemon = subprocess.Popen(
                [PROGRAM, "-f"],
                env={**os.environ, **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=tied(),  # noqa: PLW1509 - nothing has started a thread yet
            )
        deadline = time.monotonic() + START_SECONDS
        while self._asked("get_server_list") is None:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise CellFailure("runtime-error", f"the daemon of MPS did not start: {self._last_words()}")
            time.sleep(0.1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._asked("quit")
        self._end()

    def clients(self) -> int:
        """How many processes the servers of the daemon compute for."""
        servers = (self._asked("get_server_list") or "").split()
        return sum(len((self._asked(f"get_client_list {server}") or "").split()) for server in servers)

    def refuse_without(self, count: int) -> None:
        """Raise unless the server computes for so many processes.

        Raises:
            CellFailure: It computes for fewer: they run without MPS.
        """
        if (served := self.clients()) < count:
            raise CellFailure(
                "fallback",
                f"MPS computes for {served} of {count} processes; the others run without it: {self._last_words()}",
            )

    def _asked(self, command: str) -> str | None:
        """What the daemon answers; None where it does not."""
        try:
            done = subprocess.run(
                [PROGRAM],
                input=f"{command}\n",
                env={**os.environ, **self.variables},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ANSWER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        return None if done.returncode or "Cannot find MPS control daemon" in done.stdout + done.stderr else done.stdout

    def _end(self) -> None:
        """Wait for the daemon's end, or bring it about; its server is of its session."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._daemon.wait(ANSWER_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._daemon.pid, signal.SIGKILL)
        self._daemon.wait()

    def _last_words(self) -> str:
        """The last line that daemon or server wrote."""
        logs = [self._printed, *sorted((self._folder / "log").glob("*.log"))]
        lines = [line for log in logs if log.is_file() for line in log.read_text(errors="replace").splitlines() if line]
        return lines[-1][:300] if lines else "it wrote nothing"
