"""The round trip between two network namespaces."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from unit.serving.priority import awake, first
from unit.serving.scripted_server import reset

from ceilings.environment import known
from ceilings.serving import namespaces
from ceilings.serving.kserve import TransportError
from ceilings.serving.relay import Relay

needs_root = pytest.mark.skipif(namespaces.problem() is not None, reason=str(namespaces.problem()))


class Tcp:
    """A server that does what a test says with each connection, in a thread each."""

    def __init__(self, behave):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._behave = behave
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        try:
            while True:
                connection = self._listener.accept()[0]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def _serve(self, connection):
        with connection:
            self._behave(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()


def answers_each(size):
    """Reads messages of so many bytes and answers each with one byte."""

    def behave(connection):
        while True:
            left = size
            while left:
                piece = connection.recv(min(left, 1 << 20))
                if not piece:
                    return
                left -= len(piece)
            connection.sendall(b"x")

    return behave


def inside(relay, work):
    """What work gives that a thread does in the relay's namespace."""
    given = []

    def there():
        namespaces.enter(relay.namespace)
        try:
            given.append(work())
        except OSError as error:
            given.append(error)

    thread = threading.Thread(target=there)
    thread.start()
    thread.join(60)
    return given[0]


def connect(address):
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def times_ms(address, message, count):
    """How long each of some messages takes to its answer of one byte."""
    taken = []
    with connect(address) as connection:
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(message)
            assert connection.recv(1)
            taken.append((time.perf_counter() - began) * 1e3)
    return np.array(taken)


@needs_root
def test_the_namespace_sees_the_server_by_the_relay_only():
    with Tcp(answers_each(1)) as server, Relay([server.address], 10) as relay:
        refused = inside(relay, lambda: connect(server.address).close())
        assert isinstance(refused, ConnectionRefusedError)
        interfaces = inside(relay, socket.if_nameindex)
        assert "lo" in [name for _, name in interfaces] and not any(name.startswith("eth") for _, name in interfaces)
        taken = inside(relay, lambda: times_ms(relay.address(server.address), b"x", 5))
        assert taken.min() >= 10
        assert relay.cpu_ns() > 0


@needs_root
def test_bytes_arrive_in_order_and_ends_reach_the_other_side():
    received = []

    def behave(connection):
        while piece := connection.recv(1 << 20):
            received.append(piece)
        connection.sendall(b"all of it" * 100_000)  # after the client's end

    content = np.random.default_rng(1).bytes(3_000_000)

    def work():
        with connect(relay.address(server.address)) as connection:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 20), b""))

    with Tcp(behave) as server, Relay([server.address], 4) as relay:
        assert inside(relay, work) == b"all of it" * 100_000
    assert b"".join(received) == content


@needs_root
def test_a_reader_who_waits_stops_the_writer_and_loses_nothing():
    """The relay holds 256 MB of one direction and reads no more until some have gone."""
    total = 400_000_000

    def behave(connection):
        block = bytes(1 << 20)
        for _ in range(total >> 20):
            connection.sendall(block)

    def work():
        with connect(relay.address(server.address)) as connection:
            time.sleep(1.0)
            count = 0
            buffer = bytearray(1 << 20)
            while got := connection.recv_into(buffer):
                count += got
            return count

    with Tcp(behave) as server, Relay([server.address], 1) as relay:
        assert inside(relay, work) == total >> 20 << 20


@needs_root
def test_failures_reach_the_other_side():
    def behave(connection):
        connection.recv(1)
        reset(connection)

    def work(address):
        with connect(address) as connection:
            connection.sendall(b"x")
            return connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"127.0.0.1:{gone.getsockname()[1]}"
    with Tcp(behave) as server, Relay([server.address, nobody], 2) as relay:
        for target in (server.address, nobody):
            assert isinstance(inside(relay, lambda to=target: work(relay.address(to))), ConnectionResetError)
        # It relays on.
        assert isinstance(inside(relay, lambda: work(relay.address(server.address))), ConnectionResetError)


@needs_root
def test_nothing_is_left_of_a_relay_whose_owner_was_killed():
    program = (
        "import os, signal; from ceilings.serving.relay import Relay\n"
        "with Relay(['127.0.0.1:1'], 1) as relay:\n"
        "    print(relay.pid, os.stat(relay.namespace).st_ino, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], env=known(), capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    pid, namespace = map(int, killed.stdout.split())
    for _ in range(200):
        spaces = {path.stat().st_ino for path in Path("/proc").glob("[0-9]*/ns/net") if os.access(path, os.R_OK)}
        if not Path(f"/proc/{pid}/cmdline").exists() and namespace not in spaces:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the relay or its namespace is still there")
    assert select.select([], [], [], 0) == ([], [], [])


def test_without_the_right_to_it_the_reason_is_said(monkeypatch):
    if os.geteuid() == 0:  # a process of a user without rights
        program = (
            "import os; from ceilings.serving.namespaces import problem\n"
            "os.setgid(65534); os.setuid(65534); print(problem())"
        )
        said = subprocess.run([sys.executable, "-c", program], env=known(), capture_output=True, text=True, check=True)
        assert "no network namespace can be made here (Operation not permitted); it needs root" in said.stdout
    monkeypatch.setattr(namespaces, "problem", lambda: "no namespaces")
    with pytest.raises(TransportError, match="no namespaces"), Relay(["127.0.0.1:1"], 1):
        pass


@needs_root
@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("round_trip", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("size", [1, 600_000])
def test_what_it_adds_is_what_was_set(size, round_trip):
    with awake(), first(), Tcp(answers_each(size)) as server, Relay([server.address], round_trip) as relay:
        message = bytes(size)
        direct = times_ms(server.address, message, 100)
        relayed = inside(relay, lambda: times_ms(relay.address(server.address), message, 100))
        # The least disturbed of each: 0.02 to 0.1 ms for a byte; 0.15 to 0.25 ms for 600 KB, copied twice more.
        added = np.percentile(relayed, 10) - np.percentile(direct, 10)
        assert round_trip <= added < round_trip + 0.5, (added, round_trip)


@needs_root
@pytest.mark.slow
@pytest.mark.timing
def test_it_does_not_limit_the_rate():
    total = 1_000_000_000

    def behave(connection):
        block = bytes(1 << 20)
        for _ in range(total >> 20):
            connection.sendall(block)

    def work():
        with connect(relay.address(server.address)) as connection:
            buffer = bytearray(1 << 20)
            connection.recv_into(buffer)
            began, count = time.perf_counter(), 0
            while got := connection.recv_into(buffer):
                count += got
            return count / (time.perf_counter() - began)

    with first(), Tcp(behave) as server, Relay([server.address], 10) as relay:
        assert inside(relay, work) > 200e6
