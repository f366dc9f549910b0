"""A small HTTP server whose every answer a test decides, and answers as the protocol has them."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading

import numpy as np

from ceilings.serving.kserve import datatype, pack


def answer(arrays, status="200 OK", extra=""):
    """A whole answer with outputs in binary."""
    blobs = {name: pack(array) for name, array in arrays.items()}
    outputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype(array),
            "parameters": {"binary_data_size": len(blobs[name])},
        }
        for name, array in arrays.items()
    ]
    header = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    body = header + b"".join(blobs.values())
    lengths = f"Inference-Header-Content-Length: {len(header)}\r\nContent-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status}\r\n{lengths}{extra}\r\n".encode() + body


OK = answer({"y": np.zeros(1, np.float32)})


def json_answer(status, value, extra=""):
    """An answer of JSON, an error for instance."""
    body = json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def reset(connection):
    """Break a connection off."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class ScriptedServer:
    """Calls ``behave(connection, head, body)`` for each request of each connection, in a thread a connection.

    Attributes:
        requests: How many came.
        opened: Connections that came.
    """

    def __init__(self, behave=lambda connection, head, body: connection.sendall(OK)):
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._connections = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests = self.opened = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.die()

    def die(self):
        """Break every connection off, and take no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.opened += 1
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            rest = b""
            while True:
                while b"\r\n\r\n" not in rest:
                    piece = connection.recv(1 << 16)
                    if not piece:
                        return
                    rest += piece
                head, _, rest = rest.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
                while len(rest) < length:
                    rest += connection.recv(1 << 20)
                body, rest = rest[:length], rest[length:]
                self.requests += 1
                self._behave(connection, head, body)
