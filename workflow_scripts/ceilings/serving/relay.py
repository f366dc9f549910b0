"""A round trip between client and server: two network namespaces, and a relay between them that holds every byte back.

The client's process lives in a namespace of its own, whose only way out is this relay: it listens there, connects to
the server from the namespace in which it was started, and hands on what it read half a round trip before, in each
direction. It is a delay and nothing else: no loss, no limit of the rate, no slow start of TCP, and a connection is
accepted at once. A refused connection shows as a reset.

The namespace has no name: it ends with its last process, and nothing is left to be removed.

    python -m ceilings.serving.relay TASK.json
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ceilings import environment
from ceilings.files import read_json, write_task
from ceilings.isolation import last_error
from ceilings.lifetime import temporary_folder, tied
from ceilings.serving import namespaces
from ceilings.serving.alarm import Alarm
from ceilings.serving.kserve import TransportError
from ceilings.serving.transports import clock

READ_BYTES, SMALL_BYTES, MOST_FREE = 1 << 18, 1 << 12, 256
"""Of a buffer; what is copied out of it, so that it is free at once; and how many wait to be used again."""

HELD_BYTES = 1 << 28
"""Of one direction; beyond it the relay reads no more until some have gone."""

BUFFER_BYTES = 1 << 22
"""Of each socket: a message goes to the kernel at once, and not as its reader makes room."""

_FORCE_SEND_BUFFER, _FORCE_RECEIVE_BUFFER = 32, 33  # SO_SNDBUFFORCE, SO_RCVBUFFORCE

START_SECONDS = 30.0
IDLE_NS = 10**10


class Relay:
    """A relay process between a new namespace and this one; context manager.

    Attributes:
        namespace: Path of the new namespace, for processes that shall live in it.
        echo: ``HOST:PORT`` in it of what sends every byte back, through the same delay.
    """

    def __init__(self, targets: Sequence[str], round_trip_ms: float, cores: Sequence[int] = ()) -> None:
        """What to relay.

        Args:
            targets: ``HOST:PORT`` of servers in this namespace.
            round_trip_ms: How much longer an answer takes.
            cores: What the relay may run on; empty: all.
        """
        self._task = {"targets": list(targets), "delay_ns": round(round_trip_ms * 1e6 / 2), "cores": sorted(cores)}

    def __enter__(self) -> Relay:
        if why := namespaces.problem():
            raise TransportError(why)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(temporary_folder())
            write_task(f"{folder}/task.json", self._task)
            errors = stack.enter_context(open(f"{folder}/errors", "w+b"))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ceilings.serving.relay", f"{folder}/task.json"],
                env=environment.known(),
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                preexec_fn=tied(),  # noqa: PLW1509 - this process has no thread that matters
            )
            stack.callback(self._stop)
            assert self._process.stdout
            started = select.select([self._process.stdout], [], [], START_SECONDS)[0]
            line = self._process.stdout.readline() if started else b""
            if not line:
                errors.seek(0)
                why = last_error(errors.read().decode(errors="replace")) or f"nothing came in {START_SECONDS:g} s"
                raise TransportError(f"the relay did not start: {why}")
            ready = json.loads(line)
            self.namespace: str = ready["namespace"]
            self.echo: str = ready["echo"]
            self._addresses: dict[str, str] = ready["addresses"]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def address(self, target: str) -> str:
        """Where a server is reached from the new namespace."""
        return self._addresses[target]

    def cpu_ns(self) -> int:
        """CPU time that the relay has taken."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text(encoding="utf-8").split()[0])

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


class _Direction:
    """One way of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay_ns: int) -> None:
        self.source, self.sink, self.delay_ns = source, sink, delay_ns
        self.ready: deque[memoryview] = deque()  # what the sink may have
        self.held = 0  # bytes that were read and not written
        self.reading = True
        self.finished = False  # its source has sent all
        self.ending = False  # nothing comes after ``ready``
        self.ended = False  # and the sink has got all of it


class _Loop:
    """All connections, in one thread."""

    def __init__(self, delay_ns: int) -> None:
        self._delay_ns = delay_ns
        self._poll = select.epoll()
        self._alarm = Alarm(self._poll)
        self._listeners: dict[int, tuple[socket.socket, str | None]] = {}
        self._from: dict[int, _Direction] = {}
        self._to: dict[int, _Direction] = {}
        self._events: dict[int, int] = {}
        self._free: list[bytearray] = []  # new memory for each piece would cost more than the piece
        # One delay for all: what was read first goes first. None is the end of a stream.
        self._waiting: deque[tuple[int, _Direction, memoryview | None]] = deque()

    def listen(self, target: str | None) -> str:
        """The address of a new listener in this thread's namespace, for a server or, without one, for an echo."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (listener, target)
        self._poll.register(listener.fileno(), select.EPOLLIN)
        return f"127.0.0.1:{listener.getsockname()[1]}"

    def run(self) -> None:
        """Relay for ever."""
        while True:
            until = self._waiting[0][0] if self._waiting else clock() + IDLE_NS
            for number, event in self._alarm.wait(until):
                if number in self._listeners:
                    self._accept(*self._listeners[number])
                    continue
                if event & select.EPOLLOUT and number in self._to:
                    self._write(self._to[number])
                if event & ~select.EPOLLOUT and number in self._from:
                    self._read(self._from[number])
            now = clock()
            while self._waiting and self._waiting[0][0] <= now:
                _, direction, piece = self._waiting.popleft()
                self._release(direction, piece)

    def _accept(self, listener: socket.socket, target: str | None) -> None:
        try:
            near = listener.accept()[0]
        except OSError:  # it has gone again
            return
        _prepared(near)
        if target is None:
            self._add(_Direction(near, near, 0))
            return
        host, _, port = target.rpartition(":")
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        far = socket.socket(family, kind)
        _prepared(far)
        code = far.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            far.close()
            _reset(near)
            return
        self._add(_Direction(near, far, self._delay_ns))
        self._add(_Direction(far, near, self._delay_ns))

    def _add(self, direction: _Direction) -> None:
        self._from[direction.source.fileno()] = self._to[direction.sink.fileno()] = direction
        for one in {direction.source, direction.sink}:
            self._watch(one)

    def _watch(self, one: socket.socket) -> None:
        """Look out for what the two directions of a socket wait for."""
        number = one.fileno()
        read, write = self._from.get(number), self._to.get(number)
        events = (select.EPOLLIN if read and read.reading else 0) | (select.EPOLLOUT if write and write.ready else 0)
        # The end of both ways of a socket is always an event: with nothing to do about it yet, one must do.
        events = events or select.EPOLLET
        if number not in self._events:
            self._poll.register(number, events)
        elif self._events[number] != events:
            self._poll.modify(number, events)
        self._events[number] = events

    def _read(self, direction: _Direction) -> None:
        if not direction.reading:
            return
        buffer = self._free.pop() if self._free else bytearray(READ_BYTES)
        try:
            size = direction.source.recv_into(buffer)
        except BlockingIOError:
            self._free.append(buffer)
            return
        except OSError:
            self._close(direction)
            return
        direction.held += size
        direction.finished = not size
        if not size or direction.held > HELD_BYTES:
            direction.reading = False
            self._watch(direction.source)
        entry = memoryview(buffer)[:size] if size else None
        if size <= SMALL_BYTES:
            entry = memoryview(bytes(entry)) if entry else None
            self._free.append(buffer)
        if direction.delay_ns:
            self._waiting.append((clock() + direction.delay_ns, direction, entry))
        else:
            self._release(direction, entry)

    def _release(self, direction: _Direction, piece: memoryview | None) -> None:
        if direction.sink.fileno() < 0:  # closed meanwhile
            return
        if piece is not None:
            direction.ready.append(piece)
        self._write(direction, last=piece is None)

    def _write(self, direction: _Direction, last: bool = False) -> None:
        direction.ending |= last
        try:
            while direction.ready:
                sent = direction.sink.send(direction.ready[0])
                direction.held -= sent
                if sent == len(direction.ready[0]):
                    buffer = direction.ready.popleft().obj
                    if isinstance(buffer, bytearray) and len(self._free) < MOST_FREE:
                        self._free.append(buffer)
                else:
                    direction.ready[0] = direction.ready[0][sent:]
            if direction.ending and not direction.ended:
                direction.ended = True
                direction.sink.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._close(direction)
            return
        if not direction.reading and not direction.finished and direction.held <= HELD_BYTES:
            direction.reading = True
            self._watch(direction.source)
        back = self._from.get(direction.sink.fileno())
        if direction.ended and (back is None or back.ended):
            self._close(direction, politely=True)
            return
        self._watch(direction.sink)

    def _close(self, direction: _Direction, politely: bool = False) -> None:
        for one in {direction.source, direction.sink}:
            number = one.fileno()
            if number < 0:
                continue
            self._from.pop(number, None)
            self._to.pop(number, None)
            self._events.pop(number, None)
            if politely:
                one.close()
            else:
                _reset(one)


def _prepared(one: socket.socket) -> None:
    one.setblocking(False)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (_FORCE_SEND_BUFFER, _FORCE_RECEIVE_BUFFER):
        one.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def main() -> None:
    """Make the namespace and its listeners, say where they are, and relay."""
    task = read_json(sys.argv[1])
    if task["cores"]:
        os.sched_setaffinity(0, task["cores"])
    loop = _Loop(task["delay_ns"])
    here = loop.listen(None)
    before = namespaces.make()
    namespace = namespaces.current()
    addresses = {target: loop.listen(target) for target in task["targets"]}
    echo = loop.listen(here)
    namespaces.enter(before)
    ready = {"namespace": f"/proc/{os.getpid()}/fd/{namespace}", "echo": echo, "addresses": addresses}
    print(json.dumps(ready), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
