"""An endpoint that does not answer as it should: what its run says, in the server's words where it has some."""

from __future__ import annotations

import pytest
from unit.serving.scripted_server import ScriptedServer, json_answer

from ceilings.errors import CellFailure
from ceilings.serving.kserve import TransportError
from ceilings.serving.servers import endpoint
from ceilings.serving.servers.endpoint import BINARY, Endpoint
from ceilings.serving.servers.server import get
from ceilings.serving.session import _explained


def knows(model, extensions=()):
    """A server with one model."""

    def behave(connection, head, body):
        path = head.split(b" ")[1].decode()
        if path == "/v2":
            connection.sendall(json_answer("200 OK", {"name": "s", "extensions": list(extensions)}))
        elif path in ("/v2/health/ready", f"/v2/models/{model}/ready"):
            connection.sendall(json_answer("200 OK", {}))
        else:
            connection.sendall(json_answer("404 Not Found", {"error": f"no model at {path}"}))

    return behave


def test_a_model_that_is_not_there_is_in_the_servers_words(monkeypatch):
    monkeypatch.setattr(endpoint, "READY_SECONDS", 0.2)
    with ScriptedServer(knows("mine")) as server:
        with Endpoint(f"http://{server.address}", ["mine"]) as there:
            assert there.start()["ready"] > 0
        words = r"its model other at .* is not ready: HTTP 404 Not Found: no model at /v2/models/other$"
        with Endpoint(f"http://{server.address}", ["other"]) as absent, pytest.raises(CellFailure, match=words):
            absent.start()
    nobody = r"the server at 127\.0\.0\.1:1 is not ready: Connection refused$"
    with Endpoint("http://127.0.0.1:1", ["mine"]) as gone, pytest.raises(CellFailure, match=nobody):
        gone.start()


def test_a_server_that_hangs_is_named_with_what_it_was_asked_for():
    silence = ScriptedServer(lambda connection, head, body: None)
    with silence as server, pytest.raises(ConnectionError, match=r"at 127.* gave no answer to /metrics within 0\.1 s"):
        get(server.address, "/metrics", 0.1)


@pytest.mark.parametrize(("extensions", "hinted"), [((), True), (("statistics",), True), ((BINARY,), False)])
def test_a_refused_request_has_the_missing_extension_beside_it(extensions, hinted):
    """MLServer answers tensors as bytes over HTTP with an error that says nothing."""
    refused = "HTTP 500 Internal Server Error"
    with ScriptedServer(knows("mine", extensions)) as server, Endpoint(f"http://{server.address}", ["mine"]) as one:
        with pytest.raises(TransportError) as failed, _explained(one):
            raise TransportError(refused)
        with pytest.raises(CellFailure, match=r"^wrong$"), _explained(one):
            raise CellFailure("parity", "wrong")
    message = f"{refused}; it does not name the extension {BINARY}, which requests over HTTP use: try its gRPC"
    assert str(failed.value) == (message if hinted else refused)


def test_an_endpoint_that_has_gone_has_no_hint():
    with Endpoint("http://127.0.0.1:1", ["mine"]) as gone:
        assert not gone.hint()


def counts(*looks):
    """A server whose statistics at each look are the next of these, (requests, rows); the last stays."""
    following = iter(looks)
    seen = [looks[0]]

    def behave(connection, head, body):
        seen.append(next(following, seen[-1]))
        requests, rows = seen[-1]
        success = {"count": requests, "ns": 10 * requests}
        entry = {"name": "m", "inference_count": rows, "execution_count": rows, "inference_stats": {"success": success}}
        connection.sendall(json_answer("200 OK", {"model_stats": [entry]}))

    return behave


def test_what_is_counted_after_its_answer_is_waited_for():
    """Requests first, their batch later: else a window lacks its last requests, and the next one has them."""
    with (
        ScriptedServer(counts((7, 7), (8, 7), (9, 7), (9, 9))) as server,
        Endpoint(f"http://{server.address}", ["m"]) as one,
    ):
        before = one.counters("m")
        counted = one.since("m", before, 2)
    assert (counted.requests, counted.inferences, counted.request_ns) == (2, 2, 20)


def test_what_is_never_counted_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr("ceilings.serving.servers.server.COUNTED_SECONDS", 0.1)
    with ScriptedServer(counts((7, 7))) as server, Endpoint(f"http://{server.address}", ["m"]) as one:
        assert one.since("m", one.counters("m"), 2).requests == 0
    with ScriptedServer(knows("m")) as server, Endpoint(f"http://{server.address}", ["m"]) as silent:
        assert silent.since("m", silent.counters("m"), 2).requests is None
