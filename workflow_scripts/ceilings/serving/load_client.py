"""Starts the client process of a serving run, on cores of its own, and hands it commands."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ceilings import environment
from ceilings.files import write_task
from ceilings.isolation import ended_by, last_error, signal_name
from ceilings.lifetime import temporary_folder, tied
from ceilings.serving.kserve import TransportError
from ceilings.serving.transports import TIMEOUT_SECONDS

START_SECONDS = 60.0
"""What the first command may take on top: the process starts and imports."""

SPARE_SECONDS = 30.0
"""What a command may take on top of what it takes by its nature."""


class LoadClient:
    """A client process; context manager.

    Args:
        kind: ``http`` or ``grpc``.
        address: ``HOST:PORT`` of the server, as the client reaches it.
        cores: What it may run on; empty: all.
        timeout: Seconds until a request without an answer has failed.
        packages: Folders whose packages it sees after this project's: gRPC and the protocol's messages.
        namespace: Path of the network namespace that it works in; of a :class:`~ceilings.serving.relay.Relay`.
        python: What runs it.
        limit: Seconds after which it ends in any case.
    """

    def __init__(
        self,
        kind: str,
        address: str,
        *,
        cores: Sequence[int] = (),
        timeout: float = TIMEOUT_SECONDS,
        packages: Sequence[Path | str] = (),
        namespace: str | None = None,
        python: str = sys.executable,
        limit: float = 3600,
    ) -> None:
        self._timeout = timeout
        self._task = {
            "kind": kind,
            "address": address,
            "timeout": timeout,
            "cores": sorted(cores),
            "namespace": namespace,
        }
        self._packages, self._python, self._limit = packages, python, limit
        self._first = True

    def __enter__(self) -> LoadClient:
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(temporary_folder())
            write_task(f"{self._folder}/task.json", self._task)
            variables = environment.executing(1)
            variables["PYTHONPATH"] = os.pathsep.join([variables["PYTHONPATH"], *map(str, self._packages)])
            variables["GRPC_VERBOSITY"] = "NONE"  # failures are counted, not printed
            self._errors = stack.enter_context(open(f"{self._folder}/errors", "w+b"))
            self._process = subprocess.Popen(
                [self._python, "-m", "ceilings.serving.load_worker", f"{self._folder}/task.json"],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
                preexec_fn=tied(self._limit),  # noqa: PLW1509 - this process has no thread that matters
            )
            stack.callback(self._stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def prepare(
        self,
        cell: str,
        model: str,
        inputs: Path | str,
        *,
        shared: str = "none",
        outputs: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Prepare the requests of a cell.

        Args:
            cell: Its name; windows name it.
            model: ``NAME`` or ``NAME/VERSION`` in the server.
            inputs: An input pool.
            shared: ``none``, or the kind of shared memory in which the tensors lie.
            outputs: The outputs that are asked for with their bytes; None: all of them, and never in shared memory.

        Returns:
            ``elements`` and ``request_bytes``, one number for each element.
        """
        asked = {"do": "prepare", "cell": cell, "model": model, "inputs": str(inputs)}
        return self._do({**asked, "shared_memory": shared, "outputs": outputs}, 4 * self._timeout)

    def ask(self, cell: str, answers: Path | str) -> dict[str, Any]:
        """Send each element once; ``latency_ns``. The outputs are in the ``.npz`` ``answers``, as ``INDEX/NAME``.

        Raises:
            TransportError: One was not answered.
        """
        return self._do({"do": "ask", "cell": cell, "answers": str(answers)}, 64 * self._timeout)

    def closed(self, cell: str, concurrency: int, seconds: float, answers: Path | str | None = None) -> dict[str, Any]:
        """A window of closed loops.

        Of each element the answer that is farthest from that of :meth:`ask` goes to ``answers``, in the same form. One
        that cannot be read has failed.
        """
        asked = {"do": "closed", "cell": cell, "concurrency": concurrency, "seconds": seconds}
        return self._do(asked | _kept(answers), seconds + self._timeout)

    def open(
        self,
        cell: str,
        rate: float,
        seconds: float,
        *,
        seed: int,
        connections: int = 256,
        answers: Path | str | None = None,
    ) -> dict[str, Any]:
        """A window of Poisson arrivals, of which so many may be in flight; ``answers`` as by :meth:`closed`."""
        asked = {"do": "open", "cell": cell, "rate": rate, "seconds": seconds, "seed": seed}
        return self._do(asked | {"connections": connections} | _kept(answers), seconds + 2 * self._timeout)

    def round_trips(self, address: str, times: int = 100) -> list[int]:
        """Times in ns from sending a byte to its echo, from where the client is."""
        taken: list[int] = self._do({"do": "round_trip", "address": address, "times": times}, 60)["round_trip_ns"]
        return taken

    def _do(self, asked: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds + SPARE_SECONDS + (START_SECONDS if self._first else 0)
        self._first = False
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise TransportError(self._ended()) from None
        line = b""
        output = self._process.stdout.fileno()
        while not line.endswith(b"\n"):
            if not select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TransportError(f"the client did not end {asked['do']!r} in time")
            piece = os.read(output, 1 << 20)
            if not piece:
                raise TransportError(self._ended())
            line += piece
        reply = json.loads(line)
        if "error" in reply:
            raise TransportError(reply["error"])
        done: dict[str, Any] = reply["ok"]
        return done

    def _ended(self) -> str:
        """Why the process has ended."""
        code = self._process.wait()
        self._errors.seek(0)
        printed = self._errors.read().decode(errors="replace")
        if code < 0:
            return f"the client process {ended_by(signal_name(-code))}"
        return f"the client process ended: {last_error(printed) or f'exit status {code}'}"

    def _stop(self) -> None:
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # it gives its memory back
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._errors.seek(0)
        sys.stderr.write(self._errors.read().decode(errors="replace"))


def _kept(answers: Path | str | None) -> dict[str, str]:
    return {} if answers is None else {"answers": str(answers)}
