"""The client process: what it is asked, what it answers, and that it ends."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from unit.serving import pools
from unit.serving.scripted_server import ScriptedServer, answer, json_answer

from ceilings.models import pool
from ceilings.serving import namespaces
from ceilings.serving.kserve import TransportError
from ceilings.serving.load_client import LoadClient
from ceilings.serving.relay import Relay

POOL = {"x": np.arange(12, dtype=np.float32).reshape(3, 1, 4)}


def doubles(connection, head, body):
    """Answers twice the input, which is the last 16 bytes."""
    connection.sendall(answer({"y": 2 * np.frombuffer(body[-16:], np.float32).reshape(1, 4)}))


def shares(connection, head, body):
    """A server with shared memory: doubles what lies there, and puts it where it is asked to."""
    path = head.split(b" ")[1].decode()
    asked = json.loads(body)
    if path.endswith("/register"):
        SHARED[path.split("/")[-2]] = Path(f"/dev/shm{asked['key']}")
        connection.sendall(json_answer("200 OK", {}))
    elif path.endswith("/unregister"):
        del SHARED[path.split("/")[-2]]
        connection.sendall(json_answer("200 OK", {}))
    else:
        of, to = asked["inputs"][0]["parameters"], asked["outputs"][0]["parameters"]
        with open(SHARED[of["shared_memory_region"]], "r+b") as memory:
            memory.seek(of["shared_memory_offset"])
            values = np.frombuffer(memory.read(of["shared_memory_byte_size"]), np.float32)
            memory.seek(to["shared_memory_offset"])
            memory.write((2 * values).tobytes())
        output = {"name": "y", "datatype": "FP32", "shape": [1, 4]} | (
            {"parameters": to} if "/repeats/" in path else {}
        )
        connection.sendall(json_answer("200 OK", {"outputs": [output]}))


SHARED: dict[str, Path] = {}


def test_windows_and_answers_of_a_cell(tmp_path):
    inputs = pools.write(tmp_path / "pool.npz", POOL)
    with ScriptedServer(doubles) as server, LoadClient("http", server.address, cores=[0]) as client:
        prepared = client.prepare("a", "m", inputs)
        assert prepared["elements"] == 3 and min(prepared["request_bytes"]) > 16
        assert len(client.ask("a", tmp_path / "asked.npz")["latency_ns"]) == 3
        closed = client.closed("a", 2, 0.2, tmp_path / "closed.npz")
        opened = client.open("a", 50, 0.3, seed=1, answers=tmp_path / "open.npz")
        again = client.open("a", 50, 0.3, seed=1)
        assert os.sched_getaffinity(client.pid) == {0}
    for name in ("asked", "closed", "open"):
        outputs = pool.load(tmp_path / f"{name}.npz")
        assert [outputs[f"{index}/y"].tolist() for index in range(3)] == (2 * POOL["x"]).tolist()
    assert closed["connections"] == 2 and closed["answers"] == [0, 1, 2] and closed["client_cores_allowed"] == 1
    assert opened["sent"] == again["sent"] > 0 and opened["failed"] == again["failed"] == {}


@pytest.mark.parametrize("model", ["repeats", "silent"])  # where it has put an output; Triton does not over HTTP
def test_system_shared_memory_carries_inputs_and_outputs(tmp_path, model):
    inputs = pools.write(tmp_path / "pool.npz", POOL)
    with ScriptedServer(shares) as server, LoadClient("http", server.address) as client:
        client.prepare("a", model, inputs, shared="system", outputs={"y": 16})
        assert len(SHARED) == 3
        memory = list(SHARED.values())
        client.ask("a", tmp_path / "asked.npz")
        client.closed("a", 4, 0.1, tmp_path / "closed.npz")
    for name in ("asked", "closed"):
        outputs = pool.load(tmp_path / f"{name}.npz")
        assert [outputs[f"{index}/y"].tolist() for index in range(3)] == (2 * POOL["x"]).tolist()
    assert SHARED == {} and not any(path.exists() for path in memory)


def test_what_cannot_be_done_is_said_and_the_client_goes_on(tmp_path):
    inputs = pools.write(tmp_path / "pool.npz", POOL)

    def refuse(connection, head, body):
        connection.sendall(json_answer("404 Not Found", {"error": "Model wrong not found"}))

    with ScriptedServer(refuse) as server, LoadClient("http", server.address) as client:
        with pytest.raises(TransportError, match="does not exist"):
            client.prepare("a", "m", tmp_path / "absent.npz")
        client.prepare("a", "wrong", inputs)
        with pytest.raises(TransportError, match="HTTP 404 Not Found: Model wrong not found"):
            client.ask("a", tmp_path / "asked.npz")
        window = client.closed("a", 1, 0.1)
        assert window["failed"] == {"HTTP 404 Not Found: Model wrong not found": window["sent"]}
        with pytest.raises(TransportError, match="HTTP 404 Not Found"):
            client.prepare("b", "m", inputs, shared="system", outputs={"y": 16})
    assert not list(Path("/dev/shm").glob(f"ceilings-{client.pid}-*"))


def test_a_bug_ends_the_client_with_its_words(tmp_path, capfd):
    with LoadClient("http", "127.0.0.1:1") as client, pytest.raises(TransportError, match="KeyError: 'absent'"):
        client.closed("absent", 1, 0.1)
    assert "Traceback" in capfd.readouterr().err


def test_a_killed_client_is_an_error_and_nothing_hangs(tmp_path):
    with LoadClient("http", "127.0.0.1:1") as client:
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(TransportError, match=r"the client process .*SIGKILL"):
            client.closed("a", 1, 0.1)


def test_the_client_is_gone_after_its_block():
    with LoadClient("http", "127.0.0.1:1") as client:
        pid = client.pid
    began = time.monotonic()
    assert not Path(f"/proc/{pid}").exists() and time.monotonic() - began < 1


@pytest.mark.skipif(namespaces.problem() is not None, reason=str(namespaces.problem()))
def test_a_round_trip_between_namespaces_is_in_every_latency(tmp_path):
    inputs = pools.write(tmp_path / "pool.npz", POOL)
    with (
        ScriptedServer(doubles) as server,
        Relay([server.address], 20) as relay,
        LoadClient("http", relay.address(server.address), namespace=relay.namespace) as client,
    ):
        client.prepare("a", "m", inputs)
        window = client.closed("a", 2, 0.3, tmp_path / "answers.npz")
        echoes = client.round_trips(relay.echo, 5)
    assert min(window["latency_ns"]) >= 20e6 <= min(echoes)
    assert window["failed"] == {} and np.median(echoes) < 60e6
    assert pool.load(tmp_path / "answers.npz")["0/y"].tolist() == (2 * POOL["x"][0]).tolist()
