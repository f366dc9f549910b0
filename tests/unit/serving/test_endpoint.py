"""An endpoint that does not answer as it should: what its run says, in the server's words where it has some."""

from __future__ import annotations

import pytest
from unit.serving.scripted_server import ScriptedServer, json_answer

from ceilings.errors import CellFailure
from ceilings.serving.kserve import TransportError
from ceilings.serving.servers import endpoint
from ceilings.serving.servers.endpoint import BINARY, Endpoint
from ceilings.serving.servers.metrics import MetricsError
from ceilings.serving.servers.server import get
from ceilings.serving.session import _explained, _others


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


METRICS = """\
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="m",version="1"} 3
nv_inference_request_success{model="m",version="2"} 5
nv_inference_request_success{model="part",version="1"} 3
nv_inference_request_success{model="inner",version="1"} 3
nv_inference_request_success{model="b",version="1"} 7
nv_inference_request_failure{model="b",reason="OTHER",version="1"} 2
"""
CONFIGS = {
    "m": {"ensemble_scheduling": {"step": [{"model_name": "part"}]}},
    "part": {"ensemble_scheduling": {"step": [{"model_name": "inner"}, {"model_name": "part"}]}},
}


def counting(text=METRICS, status="200 OK", at="/metrics"):
    """A server with models, of which one is an ensemble, and with metrics at a path."""

    def behave(connection, head, body):
        path = head.split(b" ")[1].decode()
        parts = path.split("/")
        if path == at:
            length = f"Content-Length: {len(text)}\r\n"
            connection.sendall(f"HTTP/1.1 {status}\r\n{length}\r\n{text}".encode())
        elif path.endswith("/config"):
            connection.sendall(json_answer("200 OK", CONFIGS.get(parts[3], {})))
        elif path.endswith("/ready"):
            connection.sendall(json_answer("200 OK", {}))
        else:
            connection.sendall(json_answer("404 Not Found", {"error": path}))

    return ScriptedServer(behave)


@pytest.mark.parametrize(("path", "asked"), [("/metrics", ""), ("/metrics", "/metrics"), ("/v1/counts", "/v1/counts/")])
def test_metrics_are_read_where_the_study_says(path, asked):
    with counting(at=path) as there, Endpoint("http://127.0.0.1:1", ["b"], f"http://{there.address}{asked}") as one:
        assert (one.counters("b").requests, one.counters("b").failures) == (7, 2)
        assert one.counters("m").requests == 8 and one.counters("m/2").requests == 5


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (counting(status="503 Busy"), r"http://.* answers with HTTP 503 Service Unavailable: .*; correct metrics$"),
        (counting(at="/elsewhere"), r"http://.* answers with HTTP 404 Not Found: /metrics; correct metrics$"),
        (
            counting("# TYPE go_gc gauge\ngo_gc 1\n"),
            r"no requests by a name .*nv_inference_\*.*'# TYPE go_gc gauge'; c",
        ),
        (counting("<html>"), r"begins with '<html>'; correct metrics, or remove it$"),
    ],
)
def test_metrics_that_are_none_fail_the_run_with_their_address(server, message):
    """The server is there; its metrics are at another place."""
    with (
        server as there,
        Endpoint(f"http://{there.address}", ["b"], f"http://{there.address}") as one,
        pytest.raises(MetricsError, match=message),
    ):
        one.start()


def test_metrics_at_an_address_where_nobody_is():
    words = r"^no metrics at http://127.0.0.1:1: Connection refused; correct metrics$"
    with (
        counting() as there,
        Endpoint(f"http://{there.address}", ["b"], "http://127.0.0.1:1") as one,
        pytest.raises(MetricsError, match=words),
    ):
        one.start()


def test_a_model_that_the_metrics_lack_is_named_with_those_that_they_have():
    words = r"counts nothing of c; it has \['b', 'inner', 'm', 'part'\]"
    with (
        counting() as there,
        Endpoint(f"http://{there.address}", ["c"], f"http://{there.address}") as one,
        pytest.raises(MetricsError, match=words),
    ):
        one.counters("c")


@pytest.mark.parametrize(
    ("model", "others"),
    [
        ("b", {"m/1": 3, "m/2": 5, "part/1": 3, "inner/1": 3}),
        ("m", {"b/1": 9}),
        ("m/2", {"m/1": 3, "b/1": 9}),
        ("part", {"m/1": 3, "m/2": 5, "b/1": 9}),
        ("inner", {"m/1": 3, "m/2": 5, "part/1": 3, "b/1": 9}),
    ],
)
def test_requests_to_others_are_those_of_no_part_of_the_model(model, others):
    """An ensemble asks the models that it consists of, and they those that they consist of."""
    with counting() as there, Endpoint(f"http://{there.address}", [model], f"http://{there.address}") as one:
        assert one.asked(model) == others


def test_parts_that_a_server_did_not_name_once_are_asked_for_again(monkeypatch):
    with counting() as there, Endpoint(f"http://{there.address}", ["m"], f"http://{there.address}") as one:
        with monkeypatch.context() as cut:
            cut.setattr(one._ask, "config", refused)
            assert one.asked("m") == {"part/1": 3, "inner/1": 3, "b/1": 9}
        assert one.asked("m") == {"b/1": 9}


def refused(*_):
    raise OSError("the connection was reset")


def test_a_server_without_statistics_and_metrics_says_nothing_of_others():
    with ScriptedServer(knows("mine")) as there, Endpoint(f"http://{there.address}", ["mine"]) as one:
        assert one.asked("mine") is None


def test_requests_to_others_in_a_window_are_what_came_since():
    assert _others({"a/1": 3, "b/1": 2}, {"a/1": 3, "b/1": 4, "c/1": 1}) == {"b/1": 2, "c/1": 1}
    assert _others({"a/1": 3}, {"a/1": 3}) == {} and _others(None, {"a/1": 3}) is None


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
