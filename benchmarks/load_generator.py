#!/usr/bin/env python3
"""What the client of serving runs costs itself, and how exactly it sends: against a server that answers at once.

    python benchmarks/load_generator.py [--transport grpc] [--relay-ms 5]

The server is another process on the first core, the client runs on the last. Its answers are ready-made, so that all
that is seen is the client, the kernel and, over gRPC, gRPC. CEILINGS_SERVING names the folder with gRPC.
"""

import argparse
import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
from concurrent import futures
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from ceilings.lifetime import tied
from ceilings.models import pool
from ceilings.serving.load_client import LoadClient
from ceilings.serving.relay import Relay

SECONDS = 3
BODY = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (len(BODY), len(BODY) + 4)
    + BODY
    + b"\0\0\0\0"
)
GRPC_ANSWER = b"\x0a\x01m"
"""A ModelInferResponse with a model's name."""


def serve_http() -> None:
    """Answer every request, all connections in one thread."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    missing: dict[int, int] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                connection = listener.accept()[0]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                poll.register(connection.fileno(), select.EPOLLIN)
                continue
            piece = connections[number].recv(1 << 20)
            if not piece:
                connections.pop(number).close()
                missing.pop(number, None)
                continue
            if number not in missing:
                head, _, body = piece.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
                missing[number] = length - len(body)
            else:
                missing[number] -= len(piece)
            if missing[number] == 0:
                del missing[number]
                connections[number].sendall(ANSWER)


def serve_grpc() -> None:
    """Answer every request."""
    import grpc

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: GRPC_ANSWER)

    server = grpc.server(
        futures.ThreadPoolExecutor(4), handlers=[Handler()], options=[("grpc.max_receive_message_length", -1)]
    )
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def window_line(name: str, window: dict) -> str:
    """What a window says of the client."""
    count, seconds = window["answered"], (window["drained_ns"] - window["began_ns"]) / 1e9
    cost = window["client_cores"] * seconds / max(count, 1) * 1e6
    latency, late = (np.percentile(window[key], [50, 99, 99.9]) / 1e3 for key in ("latency_ns", "late_ns"))
    return (
        f"{name:>26}: {count / seconds:7.0f}/s, client {cost:5.1f} us CPU each, {window['client_cores']:.2f} cores,"
        f" latency p50 {latency[0]:.0f} p99 {latency[1]:.0f} us, sent late p50 {late[0]:.0f} p99 {late[1]:.0f} "
        f"p99.9 {late[2]:.0f} us, in flight {window['connections']}, failed {sum(window['failed'].values())}"
    )


def main() -> None:
    """Start a server, drive it, print lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transport", choices=("http", "grpc"), default="http")
    parser.add_argument("--relay-ms", type=float, default=0, help="round trip of a relay in between")
    parser.add_argument("--serve", choices=("http", "grpc"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    packages = [folder] if (folder := os.environ.get("CEILINGS_SERVING")) else []
    cores = sorted(os.sched_getaffinity(0))
    if arguments.serve:
        sys.path += packages
        os.sched_setaffinity(0, cores[:1])
        serve_http() if arguments.serve == "http" else serve_grpc()
    command = [sys.executable, __file__, "--serve", arguments.transport]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=tied(600))  # noqa: PLW1509
        stack.callback(server.kill)
        address = f"127.0.0.1:{int(server.stdout.readline())}"
        namespace = None
        if arguments.relay_ms:
            relay = stack.enter_context(Relay([address], arguments.relay_ms, cores[-1:]))
            address, namespace = relay.address(address), relay.namespace
        client = stack.enter_context(
            LoadClient(arguments.transport, address, cores=cores[-1:], packages=packages, namespace=namespace)
        )
        if namespace:
            echoes = np.asarray(client.round_trips(relay.echo)) / 1e6
            print(f"one byte there and back: p50 {np.median(echoes):.3f} ms, p99 {np.percentile(echoes, 99):.3f} ms")
        for name, values in (("100 bytes", 25), ("600 KB", 150_528)):
            arrays = {"x": np.zeros((4, 1, values), np.float32)}
            sealed = pool.sealed(arrays, "synthetic", 0.0)
            facts = {"source": np.array("synthetic"), "real_share": np.array(0.0), "sha256": np.array(sealed)}
            pool.save(f"{folder}/{values}.npz", **{"input/x": arrays["x"]}, **facts)
            client.prepare(name, "m", f"{folder}/{values}.npz")
            client.closed(name, 8, 0.5)
            for concurrency in (1, 8, 64):
                window = client.closed(name, concurrency, SECONDS)
                print(window_line(f"{name}, closed {concurrency}", window))
            for rate in (100, 500, 1000, 2000, 4000) if values < 100 else (100, 500, 1000):
                window = client.open(name, rate, SECONDS, seed=1, connections=256)
                print(window_line(f"{name}, open {rate}/s", window))


if __name__ == "__main__":
    main()
