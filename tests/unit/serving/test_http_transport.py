"""Requests over HTTP: what a server gets, what comes of its answers, and every way in which it may fail."""

import json
import re
import resource
import socket
import threading
import time

import numpy as np
import pytest
from unit.serving.scripted_server import OK, ScriptedServer, answer, json_answer, reset

from ceilings.serving.kserve import TransportError, unpack
from ceilings.serving.shared_memory import placed
from ceilings.serving.transports import clock, transport

X = {"x": np.arange(6, dtype=np.float16).reshape(2, 3), "mask": np.ones((2, 1), bool)}


def parsed(head, body):
    """Path, header and tensors of a request."""
    length = int(head.lower().partition(b"\r\ninference-header-content-length:")[2].partition(b"\r\n")[0])
    header, rest, arrays = json.loads(body[:length]), body[length:], {}
    for tensor in header["inputs"]:
        size = tensor["parameters"]["binary_data_size"]
        arrays[tensor["name"]] = unpack(tensor["name"], rest[:size], tensor["datatype"], tensor["shape"])
        rest = rest[size:]
    assert rest == b""
    return head.split(b" ")[1].decode(), header, arrays


def over(driver, seconds=10):
    done = driver.poll(clock() + int(seconds * 1e9))
    assert len(done) == 1
    return done[0]


@pytest.fixture
def opened():
    """Drivers that the test makes are closed after it."""
    drivers = []

    def open_one(address, timeout=5.0, largest=1 << 20):
        drivers.append(transport("http", address, timeout, largest).driver())
        return drivers[-1]

    yield open_one
    for driver in drivers:
        driver.close()


@pytest.mark.parametrize(("model", "path"), [("m", "/v2/models/m/infer"), ("m/2", "/v2/models/m/versions/2/infer")])
def test_a_server_gets_the_tensors_and_the_client_its_outputs(model, path):
    seen = []

    def echo(connection, head, body):
        seen.append(parsed(head, body))
        connection.sendall(answer({"a": seen[-1][2]["x"], "b": np.zeros((0, 2), np.int64), "c": np.array([b"t"])}))

    with ScriptedServer(echo) as server:
        http = transport("http", server.address)
        prepared = http.prepare(model, X)
        outputs = [http.decode(http.send(prepared)) for _ in range(3)][-1]
        http.close()
    assert seen[0][0] == path and seen[0][1]["parameters"] == {"binary_data_output": True}
    for name, array in X.items():
        assert (seen[0][2][name] == array).all()
    assert (outputs["a"] == X["x"]).all() and outputs["a"].dtype == np.float16
    assert outputs["b"].shape == (0, 2) and outputs["c"].tolist() == [b"t"]
    assert server.opened == 1  # kept open between requests


def test_outputs_in_json_and_chunks_are_read_too():
    body = json.dumps({"outputs": [{"name": "y", "datatype": "INT32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]})
    chunks = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode()
    with ScriptedServer(lambda connection, *_: connection.sendall(chunks)) as server:
        http = transport("http", server.address)
        assert http.decode(http.send(http.prepare("m", X)))["y"].tolist() == [[1, 2], [3, 4]]
        http.close()


def test_only_the_outputs_that_are_asked_for_are_named():
    header = transport("http", "127.0.0.1:1").prepare("m", X, outputs={"y": None}).partition(b"\r\n\r\n")[2]
    assert json.JSONDecoder().raw_decode(header.decode("latin-1"))[0]["outputs"] == [
        {"name": "y", "parameters": {"binary_data": True}}
    ]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (OK.replace(b"FP32", b"FP64"), "came with 4 bytes"),
        (OK.replace(b'"outputs"', b'"nothing"'), "header is not the protocol's"),
        (OK.replace(b'size": 4', b'size": 3'), "came with 3 bytes"),
        (OK.replace(b'size": 4', b'size":-4'), "header is not the protocol's"),
        (OK.replace(b"binary_data_size", b"something_others"), "holds no values of 'y'"),
        (OK.replace(b"Header-Content-Length: ", b"Header-Content-Length: 9"), "content-length is"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "header is not the protocol's"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "header is not the protocol's"),
        (answer({"y": np.zeros(1)}).replace(b'"name": "y"', b'"name": [1]').replace(b'"shape"', b'"shapes"'), "header"),
    ],
)
def test_answers_that_do_not_hold_what_they_say(raw, words):
    with pytest.raises(TransportError, match=words):
        transport("http", "127.0.0.1:1").decode(raw)


def pieces(connection, *_):
    for byte in OK:
        connection.sendall(bytes([byte]))


def slow_headers(connection, *_):
    for byte in b"HTTP/1.1 200 OK\r\nX: ":
        time.sleep(0.1)
        connection.sendall(bytes([byte]))


def endless(connection, *_):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def endless_interim(connection, *_):
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def broken(raw):
    def behave(connection, *_):
        connection.sendall(raw)
        time.sleep(0.05)
        reset(connection)

    return behave


def closed(raw):
    def behave(connection, *_):
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_RDWR)

    return behave


FAILURES = {
    "400": (
        lambda connection, *_: connection.sendall(json_answer("400 Bad Request", {"error": "no input 'x'"})),
        "HTTP 400 Bad Request: no input 'x'",
    ),
    "503": (
        lambda connection, *_: connection.sendall(json_answer("503 Service Unavailable", {"error": "Exceeds queue"})),
        "HTTP 503 Service Unavailable: Exceeds queue",
    ),
    "201": (lambda connection, *_: connection.sendall(json_answer("201 Created", {})), "HTTP 201 Created: {}"),
    "closed": (closed(b""), "the server closed the connection without an answer"),
    "closed in headers": (closed(b"HTTP/1.1 200"), "the server closed the connection within the answer's headers"),
    "truncated": (closed(OK[:-2]), "the server closed the connection after .* bytes of its answer"),
    "reset": (broken(b""), "the connection broke before its answer: Connection reset by peer"),
    "reset in body": (broken(OK[:-2]), "the connection broke within its answer: Connection reset by peer"),
    "silent": (lambda *_: time.sleep(5), "no whole answer after 0.25 s"),
    "slow headers": (slow_headers, "no whole answer after 0.25 s"),
    "endless": (endless, "the answer is longer than 1048576 bytes"),
    "endless interim": (endless_interim, "no whole answer after 0.25 s"),
    "no HTTP": (lambda connection, *_: connection.sendall(b"220 mail\r\n\r\n"), "does not begin as HTTP/1.1 does"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_every_failure_is_one_answer_with_words_and_the_next_request_goes_out(case, opened):
    behave, words = FAILURES[case]
    first = threading.Event()

    def then_well(connection, head, body):
        if first.is_set():
            connection.sendall(OK)
        else:
            first.set()
            behave(connection, head, body)

    with ScriptedServer(then_well) as server:
        driver = opened(server.address, timeout=0.25)
        prepared = transport("http", server.address).prepare("m", X)
        driver.submit(prepared, 7)
        done = over(driver)
        assert done.tag == 7 and done.answer == b""
        assert re.search(words, done.error), done.error
        driver.submit(prepared, 8)
        assert over(driver).error is None


def test_an_answer_that_comes_byte_by_byte_is_whole(opened):
    with ScriptedServer(pieces) as server:
        driver = opened(server.address)
        driver.submit(transport("http", server.address).prepare("m", X), 1)
        assert over(driver).answer == OK


def test_a_refused_connection(opened):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    driver = opened(address)
    driver.submit(b"x", 1)
    assert over(driver).error == "no connection: Connection refused"


def test_a_server_that_takes_no_connection(opened):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        others = [socket.socket() for _ in range(3)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(address)
        driver = opened(f"127.0.0.1:{address[1]}", timeout=0.3)
        driver.submit(b"x", 1)
        assert over(driver).error == "no connection after 0.3 s"
        for other in others:
            other.close()


def test_no_descriptor_is_left(opened):
    with ScriptedServer() as server:
        driver = opened(server.address)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as next_one:
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_one.fileno(), before[1]))
        try:
            driver.submit(OK, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert over(driver).error == "no connection: Too many open files"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:port", "no host:1", ""])
def test_an_address_that_is_none(address):
    with pytest.raises(TransportError, match="no server can be at"):
        transport("http", address).driver()


def test_a_large_request_goes_while_others_come_back(opened):
    """The kernel does not take it at once: the rest follows when there is room."""

    def behave(connection, head, body):
        connection.sendall(answer({"n": np.array([len(body)])}))

    with ScriptedServer(behave) as server:
        http = transport("http", server.address)
        driver = opened(server.address)
        requests = [http.prepare("m", {"x": np.zeros(size, np.uint8)}) for size in (8_000_000, 10)]
        for tag, request in enumerate(requests):
            driver.submit(request, tag)
        order = [over(driver) for _ in requests]
    assert [done.tag for done in order] == [1, 0]
    assert int(http.decode(order[1].answer)["n"][0]) > 8_000_000


def test_a_refusal_before_the_request_is_whole_is_heard(opened):
    """As of a server with a limit on bodies, which answers and closes while the client still sends."""
    raw = json_answer("413 Content Too Large", {"error": "at most 1 MB"}, "Connection: close\r\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse():
            connection = listener.accept()[0]
            connection.recv(100)
            connection.sendall(raw)
            time.sleep(0.2)
            connection.close()

        threading.Thread(target=refuse, daemon=True).start()
        driver = opened(f"127.0.0.1:{listener.getsockname()[1]}")
        driver.submit(b"POST / HTTP/1.1\r\n\r\n" + bytes(8_000_000), 1)
        assert over(driver).error.endswith("at most 1 MB")


def test_a_connection_that_the_server_closes_between_requests_is_replaced(opened):
    with ScriptedServer() as server:
        driver = opened(server.address)
        driver.submit(OK, 1)
        assert over(driver).error is None
        server._connections[0].shutdown(socket.SHUT_RDWR)
        assert driver.poll(clock() + 50_000_000) == []
        driver.submit(OK, 2)
        assert over(driver).error is None and driver.opened == 2


def test_each_thread_has_a_connection():
    with ScriptedServer() as server:
        http = transport("http", server.address)
        prepared = http.prepare("m", X)
        threads = [threading.Thread(target=http.send, args=(prepared,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        http.close()
        assert server.requests == server.opened == 3


def test_a_poll_ends_when_it_was_told_to(opened):
    driver = opened("127.0.0.1:1")
    for ns in (0, 50_000, 3_000_000, 120_000_000):
        until = clock() + ns
        assert driver.poll(until) == []
        assert 0 <= clock() - until < 50_000_000  # a busy machine's; benchmarks/load_generator.py measures it


@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_shared_memory_is_registered_under_its_name(kind):
    paths = []

    def behave(connection, head, body):
        paths.append((head.split(b" ")[1].decode(), json.loads(body)))
        connection.sendall(json_answer("200 OK", {}))

    class Gpu:
        kind, name, nbytes, device, handle = "cuda", "r", 10, 1, b"\0\1"

    with ScriptedServer(behave) as server:
        http = transport("http", server.address)
        region = placed("system", X, {})[0] if kind == "system" else Gpu()
        http.register(region)
        http.unregister(region)
        http.close()
    asked = {"byte_size": region.nbytes}
    asked |= {"key": region.key, "offset": 0} if kind == "system" else {"raw_handle": {"b64": "AAE="}, "device_id": 1}
    assert paths == [
        (f"/v2/{kind}sharedmemory/region/{region.name}/register", asked),
        (f"/v2/{kind}sharedmemory/region/{region.name}/unregister", {}),
    ]
    if kind == "system":
        region.close()


def test_tensors_in_shared_memory_are_named_and_read_there():
    region, places = placed("system", X, {"y": 6})
    http = transport("http", "127.0.0.1:1")
    body = http.prepare("m", X, places, {"y": places["y"]}).partition(b"\r\n\r\n")[2]
    header = json.loads(body)  # no byte of a tensor follows
    assert header["inputs"][1]["parameters"] == {
        "shared_memory_region": region.name,
        "shared_memory_offset": places["mask"].offset,
        "shared_memory_byte_size": 2,
    }
    region.write(places["y"].offset, np.array([1, 2, 3], np.int16).tobytes())
    output = {"name": "y", "datatype": "INT16", "shape": [3], "parameters": header["outputs"][0]["parameters"]}
    raw = json_answer("200 OK", {"outputs": [output]})
    assert http.decode(raw, {region.name: region})["y"].tolist() == [1, 2, 3]
    with pytest.raises(TransportError, match="not at hand"):
        http.decode(raw)
    region.close()
