"""Waiting times of a server whose times are known, against the theory of queues."""

import select
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from unit.serving.priority import first
from unit.serving.scripted_server import OK

from ceilings.environment import known
from ceilings.lifetime import tied
from ceilings.serving.arrivals import poisson
from ceilings.serving.transports import transport
from ceilings.serving.windows import open_window

SERVICE_MS = 8.0
SECONDS = 8.0
WARM = 32
"""Requests before those that count."""


def served(kind: str, seed: int) -> None:
    """Serve in one thread, one request after the other in the order of their coming; a program of its own.

    It waits by looking at the clock, and asks for no processor that is busy otherwise to be on time.
    """
    generator = np.random.default_rng(seed)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    connections = {}
    queue: deque[tuple[float, socket.socket]] = deque()
    free = 0.0
    while True:
        wait = max(0.0, queue[0][0] - time.perf_counter()) if queue else 1.0
        for descriptor, _ in poll.poll(max(0.0, wait - 0.001)):
            if descriptor == listener.fileno():
                connection = listener.accept()[0]
                connections[connection.fileno()] = connection
                poll.register(connection.fileno(), select.EPOLLIN)
            elif connections[descriptor].recv(1 << 16):
                service = SERVICE_MS / 1e3 * (generator.exponential() if kind == "M/M/1" else 1.0)
                free = max(free, time.perf_counter()) + service
                queue.append((free, connections[descriptor]))
            else:
                connections.pop(descriptor).close()
        while queue and queue[0][0] <= time.perf_counter():
            queue.popleft()[1].sendall(OK)


def lindley(due_ms, services_ms):
    """Times from coming to leaving a queue with one server: each one waits for what is left of those before."""
    free, taken = 0.0, []
    for due, service in zip(due_ms, services_ms, strict=True):
        free = max(free, due) + service
        taken.append(free - due)
    return np.array(taken)


def theory_ms(kind, load):
    """Mean time in the queue and in service, after Pollaczek and Khinchine."""
    return SERVICE_MS * (1 + load / (1 - load) * (0.5 if kind == "M/D/1" else 1.0))


def services_ms(kind, generator, count):
    return SERVICE_MS * (generator.exponential(size=count) if kind == "M/M/1" else np.ones(count))


def batch_error(values, batches):
    """Standard error of a mean where neighbours are alike: of means of batches, each longer than a busy period."""
    means = [part.mean() for part in np.array_split(values, batches)]
    return np.std(means, ddof=1) / np.sqrt(batches)


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("kind", ["M/D/1", "M/M/1"])
def test_arrivals_at_a_queue_wait_as_theory_says(kind, load):
    due = poisson(load / SERVICE_MS * 1e3, 400, 5) / 1e6
    taken = lindley(due, services_ms(kind, np.random.default_rng(6), len(due)))
    error = batch_error(taken, 40)
    assert error < 0.2 * theory_ms(kind, load)
    assert abs(taken.mean() - theory_ms(kind, load)) < 4 * error


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("kind", ["M/D/1", "M/M/1"])
def test_a_server_is_measured_to_wait_as_theory_says(kind, load):
    command = [sys.executable, __file__, kind, "7"]
    variables = known()
    variables["PYTHONPATH"] += f":{Path(__file__).parents[2]}"
    started = {"stdout": subprocess.PIPE, "env": variables, "preexec_fn": tied(120)}
    with first(), subprocess.Popen(command, **started) as server:
        http = transport("http", f"127.0.0.1:{int(server.stdout.readline())}", 10)
        driver = http.driver()
        request = [http.prepare("m", {"x": np.zeros(1, np.float32)})]
        open_window(driver, request, [0] * WARM, 0.5, connections=64, timeout=10)  # connections, warm code
        due = poisson(load / SERVICE_MS * 1e3, SECONDS, 11)
        window = open_window(driver, request, due, SECONDS, connections=256, timeout=10)
        driver.close()
        server.kill()
    assert window["failed"] == {} and window["answered"] == len(due)
    latency = np.array(window["latency_ns"]) / 1e6
    services = services_ms(kind, np.random.default_rng(7), WARM + len(due))[WARM:]
    expected = lindley(due / 1e6, services)
    # Request by request the same, but for what sockets and processes take; a busy machine delays some, and few.
    assert 0 < np.median(latency - expected) < 0.2 * theory_ms(kind, load)
    assert np.mean(np.abs(latency - expected)) < 0.3 * theory_ms(kind, load)
    assert abs(latency.mean() - theory_ms(kind, load)) < 4 * batch_error(latency, 12) + 0.1 * theory_ms(kind, load)


if __name__ == "__main__":
    served(sys.argv[1], int(sys.argv[2]))
