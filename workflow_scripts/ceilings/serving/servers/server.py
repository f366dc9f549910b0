"""What every server offers to what measures it: start, where it answers, what it counts, stop."""

from __future__ import annotations

import abc
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ceilings import environment, foreign
from ceilings.errors import CellFailure, UserError
from ceilings.failure_kinds import FAILURE_KINDS
from ceilings.files import read_json
from ceilings.isolation import ended_by, last_error, signal_name
from ceilings.lifetime import identity, pids, tied
from ceilings.serving.servers.ending import clean_shared_memory
from ceilings.serving.servers.metrics import Counters
from ceilings.serving.servers.repository import Served

READY_SECONDS = 300.0
"""So long a server may take to be ready; engines are built meanwhile."""

STOP_SECONDS = 10.0
"""So long a server may take to stop by itself."""

PORT_TRIES = 3
"""Another process may take a port between its choice and the server's start."""

COUNTED_SECONDS = 1.0
"""So long a server may take to count a request whose answer it has sent."""

_POLL_SECONDS = 0.02
_TAKEN = re.compile(r"already in use|failed to bind|EADDRINUSE", re.IGNORECASE)
FAILURE = "ceilings-failure: "
"""Begins the line by which an executor in a server says why its model does not run."""


class Unavailable(Exception):
    """There is no such server on this machine; the message says what it lacks and how to get it."""


class Server(abc.ABC):
    """One server with its models, for a ``with`` block that starts and stops it."""

    kind: str
    addresses: dict[str, str]
    """``host:port`` by transport, ``http`` and ``grpc``; of an endpoint the one that is there."""

    @abc.abstractmethod
    def start(self) -> dict[str, int]:
        """Start it and wait until every model is ready.

        Returns:
            ns of ``repository`` (writing it), and since the process began of ``process`` (it answers at all) and
            ``ready`` (all models are; Triton answers only then). An endpoint has only the last.

        Raises:
            Unavailable: It is not on this machine.
            CellFailure: It does not start, or a model does not load.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop it; nothing of it is left. Safe to call twice."""

    @abc.abstractmethod
    def counters(self, model: str) -> Counters:
        """What it has counted of a model so far."""

    def since(self, model: str, before: Counters, requests: int) -> Counters:
        """What it has counted of a model since an earlier look, answers of our own to so many requests among it.

        Servers count a request after its answer, and a batch after its requests. So this waits until that many are
        counted and two looks are equal; in vain where it lost some, or others never stop to ask.
        """
        deadline = time.monotonic() + COUNTED_SECONDS
        last = None
        while True:
            now = self.counters(model)
            counted = now - before
            whole = counted.requests is None or counted.requests + (counted.failures or 0) >= requests
            if (whole and now == last) or time.monotonic() > deadline:
                return counted
            last = now
            time.sleep(_POLL_SECONDS / 2)

    @abc.abstractmethod
    def batch_sizes(self, model: str) -> dict[int, int] | None:
        """Executions so far by batch size, in rows; None where it does not count them."""

    def asked(self, beside: str) -> Mapping[str, int] | None:
        """Requests so far to all models but one and its parts, by name; None where nobody else can ask, or it does
        not count them."""
        return None

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """Version, backend, options, and what its numbers mean."""

    @property
    def pids(self) -> list[int]:
        """Its processes, the first the one that was started; none of an endpoint."""
        return []

    def ended(self) -> Exception | None:
        """Why it has ended by itself; None while it runs, and of an endpoint."""
        return None

    def hint(self) -> str:
        """What may be the reason where it answers no request; empty where nothing is known."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class StartedServer(Server):
    """A server that is a process of ours.

    Args:
        models: What it serves.
        folder: A folder of the caller's that nothing else uses; what the server prints lies in it as ``log``.
        cores: The processors that it may use; None: those of this process.
        threads: What CPU kernels use.
    """

    def __init__(
        self, models: Sequence[Served], folder: Path, cores: Sequence[int] | None = None, threads: int = 1
    ) -> None:
        self.models, self.folder = tuple(models), folder
        self.cores, self.threads = None if cores is None else sorted(cores), threads
        self.addresses = {}
        self.metrics_address = ""
        self.log = folder / "log"
        self.shm_prefix = f"ceilings-{identity()}-{folder.name}"
        self._process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def prepare(self) -> None:
        """Write what the server reads.

        Raises:
            Unavailable: It is not on this machine.
            CellFailure: It cannot serve a model.
        """

    @abc.abstractmethod
    def command(self, ports: Mapping[str, int]) -> list[str]:
        """How it is started, on ports for ``http``, ``grpc`` and ``metrics``."""

    def variables(self) -> dict[str, str]:
        """Environment variables beside those of a process that executes a cell."""
        return {}

    def start(self) -> dict[str, int]:
        began = time.perf_counter_ns()
        self.prepare()
        stages = {"repository": time.perf_counter_ns() - began}
        for attempt in range(PORT_TRIES):
            began = time.perf_counter_ns()
            self._launch()
            try:
                stages["process"] = self._wait("/v2/health/live", began, READY_SECONDS)
                for path in ("/v2/health/ready", *(f"/v2/models/{model.name}/ready" for model in self.models)):
                    stages["ready"] = self._wait(path, began, READY_SECONDS)
                break
            except _PortTaken:
                self.stop()
                if attempt + 1 == PORT_TRIES:
                    raise CellFailure("runtime-error", "the ports that were free were taken, again and again") from None
            except BaseException:
                self.stop()
                raise
        return stages

    def _launch(self) -> None:
        ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
        self.addresses = {name: f"127.0.0.1:{ports[name]}" for name in ("http", "grpc")}
        self.metrics_address = f"127.0.0.1:{ports['metrics']}"
        bind, cores = tied(), self.cores

        def bound() -> None:
            bind()
            if cores is not None:
                os.sched_setaffinity(0, cores)

        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(ports),
                env={**environment.executing(self.threads), **self.variables()},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=bound,  # noqa: PLW1509 - this process has no thread that matters
            )

    def _wait(self, path: str, began: int, limit: float) -> int:
        """ns from ``began`` until a path answers with status 200.

        Raises:
            CellFailure: The process ended before, or did not answer in time.
        """
        while True:
            if answers(self.addresses["http"], path):
                return time.perf_counter_ns() - began
            assert self._process is not None
            if self._process.poll() is not None:
                raise self._ended()
            if failure := self._failure():
                raise failure
            if time.perf_counter_ns() - began > limit * 1e9:
                raise CellFailure("timed-out", f"the server was not ready after {limit:g} s: {self._last_line()}")
            time.sleep(_POLL_SECONDS)

    def _ended(self) -> Exception:
        """Why the server's process ended, from what it printed."""
        assert self._process is not None
        if failure := self._failure():
            return failure
        text, code = self._printed(), self._process.returncode
        if version := re.search(r"version `(GLIBC_[\d.]+)' not found", text):
            return Unavailable(f"{self.kind} needs a newer C library: {version[1]} is not here; use a newer system")
        if missing := re.search(r"error while loading shared libraries: ([^:\n]+)", text):
            return Unavailable(f"{self.kind} needs {missing[1]}, which is not here")
        if _TAKEN.search(text):
            return _PortTaken()
        if code < 0:
            return CellFailure("crashed", f"the server was {ended_by(signal_name(-code))}")
        return CellFailure("runtime-error", f"the server ended with status {code}: {self._last_line()}")

    def ended(self) -> Exception | None:
        return None if self._process is None or self._process.poll() is None else self._ended()

    def _failure(self) -> CellFailure | None:
        """What an executor printed about its cell; None where none did."""
        for line in self._printed().splitlines():
            _, mark, content = line.partition(FAILURE)
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if mark and (failure := json.loads(content))["kind"] in FAILURE_KINDS:
                    return CellFailure(failure["kind"], foreign.one_line(str(failure["message"]), 300))
        return None

    def _printed(self) -> str:
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _last_line(self) -> str:
        """The line of the log that says why, without the server's prefix of time and place."""
        lines = [line for line in self._printed().splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"[EF]\d{4} |.*\b(ERROR|Error|error:)", line)]
        line = (errors or [last_error("\n".join(lines)) or "it printed nothing"])[-1]
        return foreign.one_line(re.sub(r"^[A-Z]\d{4} [\d:.]+ \d+ ", "", line), 300)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started, also where it has ended itself
            process.wait()
        clean_shared_memory(self.shm_prefix)

    @property
    def pids(self) -> list[int]:
        if self._process is None:
            return []
        group = self._process.pid
        of = [pid for pid in pids() if _group(pid) == group]
        return [group, *sorted(set(of) - {group})]

    def executor_facts(self, model: str) -> list[dict[str, Any]]:
        """What each instance's executor says of itself: load, costs at each batch."""
        return [read_json(path) for path in sorted(self.folder.glob(f"executor-{model}.*.json"))]


class _PortTaken(Exception):
    """Somebody else has a port of the server's."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def get(address: str, path: str, seconds: float = 5.0) -> tuple[int, str]:
    """Status and text of an answer over HTTP.

    Raises:
        OSError: Nobody answers.
    """
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", errors="replace")
    except TimeoutError:
        raise ConnectionError(f"the server at {address} gave no answer to {path} within {seconds:g} s") from None
    except http.client.HTTPException as error:
        raise ConnectionError(f"{address} gives no answer of HTTP ({type(error).__name__})") from None
    finally:
        connection.close()


def answers(address: str, path: str) -> bool:
    """Whether a path is there and ready."""
    try:
        return get(address, path)[0] == http.HTTPStatus.OK
    except OSError:
        return False


def report(error: Exception) -> None:
    """Say on the server's log why a model does not run; :class:`StartedServer` reads it there."""
    if isinstance(error, CellFailure):
        kind, message = error.kind, str(error)
    elif isinstance(error, MemoryError):
        kind, message = "out-of-memory", str(error) or "MemoryError"
    elif isinstance(error, UserError):
        kind, message = "damaged", str(error)
    else:
        traceback.print_exc()
        kind, message = "runtime-error", f"{type(error).__name__}: {str(error)[:300]}"
    print(FAILURE + json.dumps({"kind": kind, "message": message}), file=sys.stderr, flush=True)


def _group(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getpgid(pid)
    return 0
