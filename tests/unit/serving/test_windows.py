"""Closed and open loops against small real servers: every request is accounted for, whatever the server does."""

import threading
import time

import numpy as np
import pytest
from unit.serving.scripted_server import OK, ScriptedServer, answer, json_answer, reset

from ceilings.serving.arrivals import poisson
from ceilings.serving.transports import transport
from ceilings.serving.windows import MESSAGES, closed_window, open_window

MS = 1e6


def drive(server, seconds=0.3, *, concurrency=None, due=None, connections=64, timeout=1.0, check=None, pool=3):
    """A window of one of the kinds; what always holds of one is held."""
    http = transport("http", server.address, timeout)
    requests = [http.prepare("m", {"x": np.full(4, index, np.int32)}) for index in range(pool)]
    driver = http.driver()
    try:
        if concurrency:
            window = closed_window(driver, requests, concurrency, seconds, check)
        else:
            window = open_window(driver, requests, due, seconds, connections=connections, timeout=timeout, check=check)
    finally:
        driver.close()
    assert window["sent"] == window["answered"] + sum(window["failed"].values()) == len(window["late_ns"])
    assert window["answered"] == len(window["latency_ns"]) >= window["answered_inside"]
    assert window["began_ns"] < window["ended_ns"] <= window["drained_ns"]
    assert window["ended_ns"] - window["began_ns"] == int(seconds * 1e9)
    assert min(window["latency_ns"], default=0) >= 0 and min(window["late_ns"], default=0) >= 0
    return window


def waits(seconds):
    def behave(connection, *_):
        time.sleep(seconds)
        connection.sendall(OK)

    return behave


def every(ms, seconds):
    return np.arange(0, seconds * 1e9, ms * MS).astype(np.int64)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_closed_loop_has_so_many_in_flight_and_no_more(concurrency):
    with ScriptedServer(waits(0.01)) as server:
        window = drive(server, concurrency=concurrency)
    assert window["connections"] == window["connections_opened"] == server.opened == concurrency
    assert window["sent"] == server.requests and window["failed"] == {}
    assert min(window["latency_ns"]) >= 10 * MS
    assert window["sent"] <= concurrency * 31
    assert 0 < window["client_cores"] < window["client_cores_allowed"]


def test_a_closed_loop_waits_for_its_last_answers():
    with ScriptedServer(waits(0.2)) as server:
        window = drive(server, 0.1, concurrency=2)
    assert window["sent"] == window["answered"] == 2
    assert window["answered_inside"] == pytest.approx(1, rel=0.2)  # half of each lies in the window
    assert window["drained_ns"] - window["began_ns"] > 200 * MS


def test_the_throughput_of_a_closed_loop_is_its_users_over_their_latency():
    """Little's law, also in a window of few requests: whole ones alone are 4, and the rate a fifth too low."""
    with ScriptedServer(waits(0.2)) as server:
        window = drive(server, 0.5, concurrency=2)
    assert window["answered_inside"] / 0.5 == pytest.approx(2 / (np.mean(window["latency_ns"]) / 1e9), rel=0.05)


def test_an_open_loop_sends_without_waiting():
    with ScriptedServer(waits(0.1)) as server:
        window = drive(server, due=every(10, 0.3))
    assert window["sent"] == window["answered"] == 30 == server.requests
    assert 8 <= window["connections"] <= 30 and window["exhausted"] == window["unsent"] == 0


def test_connections_that_do_not_suffice_are_counted_and_the_wait_belongs_to_the_latency():
    with ScriptedServer(waits(0.05)) as server:
        window = drive(server, due=every(10, 0.3), connections=1, timeout=5)
    assert window["connections"] == 1 and window["exhausted"] >= 25 and window["sent"] == 30
    # The last one is due after 290 ms and is answered after 30 answers of 50 ms.
    assert window["latency_ns"][-1] >= 1200 * MS and window["late_ns"][-1] >= 1100 * MS


def test_what_waits_for_a_connection_beyond_its_time_is_not_sent():
    with ScriptedServer(waits(0.2)) as server:
        window = drive(server, due=every(10, 0.3), connections=1, timeout=0.5)
    assert window["unsent"] + window["sent"] == 30 and window["unsent"] > 20 and window["sent"] == server.requests


def test_no_arrival_in_a_window():
    with ScriptedServer() as server:
        window = drive(server, 0.1, due=[])
    assert window["sent"] == 0


def test_every_answer_is_looked_at_by_element():
    kept = {}

    def echo(connection, head, body):
        connection.sendall(answer({"y": np.frombuffer(body[-16:], np.int32)}))

    with ScriptedServer(echo) as server:
        drive(server, concurrency=4, check=kept.__setitem__)
        http = transport("http", server.address)
        assert sorted(kept) == [0, 1, 2]
        for index, raw in kept.items():
            assert http.decode(raw)["y"].tolist() == [index] * 4


def alternately(*behaviours):
    turn, lock = iter(range(10**9)), threading.Lock()

    def behave(connection, head, body):
        with lock:
            number = next(turn)
        behaviours[number % len(behaviours)](connection, head, body)

    return behave


def refuses(connection, *_):
    connection.sendall(json_answer("503 Service Unavailable", {"error": "queue full"}))


def breaks(connection, *_):
    reset(connection)


def truncates(connection, *_):
    connection.sendall(OK[:-1])
    connection.close()


@pytest.mark.parametrize("loop", [{"concurrency": 4}, {"due": every(2, 0.3)}])
def test_failures_are_counted_by_their_words_and_the_rest_goes_on(loop):
    with ScriptedServer(alternately(waits(0), refuses, waits(0), breaks, truncates)) as server:
        window = drive(server, **loop)
    assert window["sent"] == server.requests and window["answered"] >= 2 / 5 * window["sent"] - 2
    body = len(OK.partition(b"\r\n\r\n")[2])
    assert sorted(words.partition(":")[0] for words in window["failed"]) == [
        "HTTP 503 Service Unavailable",
        "the connection broke before its answer",
        f"the server closed the connection after {body - 1} of {body} bytes of its answer",
    ]


@pytest.mark.parametrize("loop", [{"concurrency": 4}, {"due": every(5, 0.4)}])
def test_a_server_that_dies_in_a_window(loop):
    def behave(connection, *_):
        if server.requests > 20:
            server.die()
        connection.sendall(OK)

    with ScriptedServer(behave) as server:
        window = drive(server, 0.4, **loop)
    assert 10 < window["answered"] <= server.requests
    assert any("Connection refused" in words for words in window["failed"])
    # A closed loop does not ask a dead server as fast as it can.
    assert sum(window["failed"].values()) < 120


def test_a_server_that_hangs_ends_the_window_after_the_time_of_a_request():
    with ScriptedServer(waits(30)) as server:
        began = time.perf_counter()
        window = drive(server, 0.2, due=every(20, 0.2), timeout=0.3)
    assert window["failed"] == {"no whole answer after 0.3 s": 10}
    assert time.perf_counter() - began < 5


def test_different_words_without_end_are_counted_together():
    numbers = iter(range(10**6))

    def behave(connection, *_):
        connection.sendall(json_answer("400 Bad Request", {"error": f"request {next(numbers)}"}))

    with ScriptedServer(behave) as server:
        window = drive(server, due=every(2, 0.2))
    assert len(window["failed"]) == MESSAGES + 1 and window["failed"]["other failures"] == window["sent"] - MESSAGES


class Stalling:
    """One request at a time, 1 ms each, and all of them stand still for 200 ms once a second."""

    def __init__(self):
        self._lock = threading.Lock()
        self._next = time.perf_counter() + 0.5

    def __call__(self, connection, *_):
        with self._lock:
            time.sleep(0.001)
            if time.perf_counter() > self._next:
                time.sleep(0.2)
                self._next += 1
        connection.sendall(OK)


@pytest.mark.slow
def test_a_server_that_stalls_is_seen_by_an_open_loop_and_hidden_by_a_closed_one():
    """Coordinated omission: a closed loop sends one slow request a stall, users would have sent a fifth of theirs."""
    seconds, rate = 4.0, 100
    with ScriptedServer(Stalling()) as server:
        opened = drive(server, seconds, due=poisson(rate, seconds, 1), timeout=5)
    with ScriptedServer(Stalling()) as server:
        closed = drive(server, seconds, concurrency=1, timeout=5)
    slow_open, slow_closed = (np.mean(np.array(w["latency_ns"]) > 20 * MS) for w in (opened, closed))
    assert np.percentile(opened["latency_ns"], 99) > 100 * MS
    assert slow_open > 0.1  # of a stall of 200 ms a second a fifth, less its last 20 ms
    assert np.percentile(closed["latency_ns"], 99) < 100 * MS and slow_closed < 0.02
