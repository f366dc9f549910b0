"""Requests over HTTP/1.1 with the binary tensor extension: a connection for each request in flight, kept open between.

One thread and no waiting: with a thread a request, Python's lock alone would cost more than a small request does.
Standard library and NumPy only.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import select
import socket
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np

from ceilings import foreign
from ceilings.serving.alarm import Alarm
from ceilings.serving.http_answers import END_OF_HEAD, AnswerReader, parsed
from ceilings.serving.kserve import TransportError, datatype, named, numbered, pack, unpack
from ceilings.serving.shared_memory import Place, Region
from ceilings.serving.transports import Done, Transport, clock

RECEIVE_BYTES, PIECES = 1 << 18, 16
"""What is read of one connection at a time."""

HEADER_LENGTH = "inference-header-content-length"


class HttpTransport(Transport):
    """Requests to one server over HTTP/1.1."""

    kind = "http"

    def prepare(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        placed: Mapping[str, Place] | None = None,
        outputs: Mapping[str, Place | None] | None = None,
    ) -> bytes:
        """The bytes of one request, its head included."""
        header: dict[str, Any] = {"inputs": []}
        blobs = []
        for name, array in inputs.items():
            place = (placed or {}).get(name)
            tensor = {"name": name, "shape": list(array.shape), "datatype": datatype(array)}
            if place is None:
                blobs.append(pack(array))
                parameters: dict[str, Any] = {"binary_data_size": len(blobs[-1])}
            else:
                parameters = _placed(place)
            header["inputs"].append(tensor | {"parameters": parameters})
        if outputs is None:
            header["parameters"] = {"binary_data_output": True}
        else:
            header["outputs"] = [
                {"name": name, "parameters": {"binary_data": True} if place is None else _placed(place)}
                for name, place in outputs.items()
            ]
        text = json.dumps(header, separators=(",", ":")).encode()
        name, version = named(model)
        path = f"/v2/models/{name}/{f'versions/{version}/' if version else ''}infer"
        return self._request("POST", path, b"".join((text, *blobs)), {"Inference-Header-Content-Length": len(text)})

    def decode(
        self,
        answer: bytes | bytearray,
        regions: Mapping[str, Region] | None = None,
        outputs: Mapping[str, Place | None] | None = None,
    ) -> dict[str, np.ndarray]:
        """The outputs in an answer, by name."""
        head, body = _parted(answer)
        length = head.get(HEADER_LENGTH)
        if length is not None and not (length.isascii() and length.isdigit() and int(length) <= len(body)):
            raise TransportError(f"the answer's {HEADER_LENGTH} is {length!r}, of {len(body)} bytes")
        end = len(body) if length is None else int(length)
        try:
            header = json.loads(bytes(body[:end]))
            if isinstance(header, dict) and "outputs" not in header and (words := header.get("error")):
                raise TransportError(f"an error with the status of an answer: {foreign.one_line(str(words), 300)}")
            described = [_described(output) for output in header["outputs"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise TransportError(f"the answer's header is not the protocol's ({type(error).__name__})") from None
        arrays: dict[str, np.ndarray] = {}
        for name, kind, shape, parameters, values in described:
            size = parameters.get("binary_data_size")
            if region := parameters.get("shared_memory_region"):
                arrays[name] = _from_region(name, kind, shape, parameters, (regions or {}).get(region))
            elif size is not None:
                arrays[name] = unpack(name, body[end : end + size], kind, shape)
                end += size
            elif values is not None:
                arrays[name] = numbered(kind, list(_flat(values)), shape)
            elif place := (outputs or {}).get(name):  # Triton does not repeat over HTTP where it was to put it
                arrays[name] = _from_region(name, kind, shape, _placed(place), (regions or {}).get(place.region))
            else:
                raise TransportError(f"the answer holds no values of {name!r}")
        if end != len(body):
            raise TransportError(f"{len(body) - end} bytes of the answer belong to no output")
        return arrays

    def driver(self) -> HttpDriver:
        """A new one, with connections of its own."""
        return HttpDriver(self.address, self.timeout, self.largest)

    def register(self, region: Region) -> None:
        """Let the server use shared memory."""
        asked: dict[str, Any] = {"byte_size": region.nbytes}
        if region.kind == "cuda":
            asked |= {"raw_handle": {"b64": b64encode(region.handle).decode()}, "device_id": region.device}
        else:
            asked |= {"key": region.key, "offset": 0}
        self._ask(f"/v2/{region.kind}sharedmemory/region/{region.name}/register", asked)

    def unregister(self, region: Region) -> None:
        """Have the server forget shared memory."""
        self._ask(f"/v2/{region.kind}sharedmemory/region/{region.name}/unregister", {})

    def _ask(self, path: str, asked: Mapping[str, Any]) -> None:
        self.send(self._request("POST", path, json.dumps(asked).encode(), {}))

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, Any]) -> bytes:
        lines = {
            "Host": self.address,
            "Content-Type": "application/octet-stream" if headers else "application/json",
            "Content-Length": len(body),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def _placed(place: Place) -> dict[str, Any]:
    return {
        "shared_memory_region": place.region,
        "shared_memory_offset": place.offset,
        "shared_memory_byte_size": place.nbytes,
    }


def _parted(answer: bytes | bytearray) -> tuple[dict[str, str], memoryview]:
    end = answer.find(END_OF_HEAD)
    head = parsed(bytes(answer[:end]).decode("latin-1").split("\r\n")[1:])
    return head, memoryview(answer)[end + len(END_OF_HEAD) :]


def _described(output: Mapping[str, Any]) -> tuple[str, str, list[int], Mapping[str, Any], Any]:
    shape = [int(size) for size in output["shape"]]
    parameters = output.get("parameters") or {}
    size = parameters.get("binary_data_size")
    if size is not None and (not isinstance(size, int) or size < 0):
        raise ValueError("a size")
    return str(output["name"]), str(output["datatype"]), shape, parameters, output.get("data")


def _from_region(
    name: str, kind: str, shape: list[int], parameters: Mapping[str, Any], region: Region | None
) -> np.ndarray:
    if region is None:
        raise TransportError(f"the output {name!r} lies in shared memory that is not at hand")
    size = int(parameters.get("shared_memory_byte_size", 0))
    return unpack(name, region.read(int(parameters.get("shared_memory_offset", 0)), size), kind, shape)


def _flat(values: Any) -> Any:
    return itertools.chain.from_iterable(map(_flat, values)) if isinstance(values, list) else (values,)


class _Connection:
    """One connection, and the request that it carries."""

    def __init__(self, family: int, address: Any) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = self.socket.fileno()
        code = self.socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise OSError(code, os.strerror(code))
        self.connecting = code != 0
        self.writes = False  # whether a poll looks out for room to write
        self.tag = -1
        self.deadline_ns = 0
        self.unsent = memoryview(b"")
        self.reader: AnswerReader | None = None


class HttpDriver:
    """Requests in flight to one server, each on a connection of its own.

    A connection that the server closes between two requests is replaced; one that it closes in a request is a failure.

    Attributes:
        opened: Connections that it has made.
    """

    def __init__(self, address: str, timeout: float, largest: int) -> None:
        host, _, port = address.rpartition(":")
        try:
            resolved = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        except (OSError, ValueError) as error:
            raise TransportError(f"no server can be at {address!r} ({error})") from None
        self._family, self._address = resolved[0], resolved[4]
        self._timeout_ns = math.ceil(timeout * 1e9)
        self._largest = largest
        self._poll = select.epoll()
        self._alarm = Alarm(self._poll)
        self._all: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._busy: dict[int, _Connection] = {}  # by descriptor, in the order of their deadlines
        self._done: list[Done] = []
        self.opened = 0

    def submit(self, prepared: bytes, tag: int) -> None:
        """Send a request now."""
        try:
            connection = self._idle.pop() if self._idle else self._open()
        except OSError as error:
            self._done.append(Done(tag, clock(), f"no connection: {error.strerror}", b""))
            return
        connection.tag = tag
        connection.deadline_ns = clock() + self._timeout_ns
        connection.unsent = memoryview(prepared)
        connection.reader = AnswerReader(self._largest)
        self._busy[connection.number] = connection
        if not connection.connecting:
            self._write(connection)

    def poll(self, until_ns: int) -> list[Done]:
        """Requests that are over, or none when the clock has reached a time."""
        while not self._done:
            now = clock()
            first = next(iter(self._busy.values()), None)
            if first and first.deadline_ns <= now:
                self._expire(first)
                break
            if now >= until_ns:
                break
            for number, event in self._alarm.wait(min(until_ns, first.deadline_ns) if first else until_ns):
                if connection := self._all.get(number):
                    self._happened(connection, event)
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Close its connections."""
        for connection in list(self._all.values()):
            self._drop(connection)
        self._alarm.close()
        self._poll.close()

    def _open(self) -> _Connection:
        connection = _Connection(self._family, self._address)
        self._all[connection.number] = connection
        connection.writes = connection.connecting
        self._poll.register(connection.number, select.EPOLLIN | (select.EPOLLOUT if connection.writes else 0))
        self.opened += 1
        return connection

    def _happened(self, connection: _Connection, event: int) -> None:
        if connection.reader is None:  # idle: the server has closed it, or speaks unasked
            self._idle.remove(connection)
            self._drop(connection)
        elif connection.connecting:
            code = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._over(connection, f"no connection: {os.strerror(code)}")
                return
            connection.connecting = False
            self._write(connection)
        else:
            if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(connection)
            if event & select.EPOLLOUT and connection.reader is not None:
                self._write(connection)

    def _write(self, connection: _Connection) -> None:
        try:
            while connection.unsent:
                connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            # The server may have answered before it had read all: then the answer says why.
            connection.unsent = memoryview(b"")
            self._read(connection, f"the connection broke while sending: {error.strerror}")
            return
        if connection.writes != bool(connection.unsent):
            connection.writes = bool(connection.unsent)
            self._poll.modify(connection.number, select.EPOLLIN | (select.EPOLLOUT if connection.writes else 0))

    def _read(self, connection: _Connection, broken: str | None = None) -> None:
        reader = connection.reader
        assert reader is not None
        try:
            for _ in range(PIECES):  # then others have their turn, and their time limits
                piece = connection.socket.recv(RECEIVE_BYTES)
                if not piece:
                    reader.end()
                    self._over(connection, reader.error())
                    return
                if reader.feed(piece):
                    self._over(connection, reader.error())
                    return
                if len(piece) < RECEIVE_BYTES and not broken:
                    return
            if broken:
                self._over(connection, broken)
        except BlockingIOError:
            if broken:
                self._over(connection, broken)
        except OSError as error:
            within = "within its answer" if reader.began else "before its answer"
            self._over(connection, broken or f"the connection broke {within}: {error.strerror}")
        except TransportError as error:
            self._over(connection, broken if broken and not reader.began else str(error))

    def _expire(self, connection: _Connection) -> None:
        what = "no connection" if connection.connecting else "no whole answer"
        self._over(connection, f"{what} after {self._timeout_ns / 1e9:g} s")

    def _over(self, connection: _Connection, error: str | None) -> None:
        ended = clock()
        reader = connection.reader
        assert reader is not None
        del self._busy[connection.number]
        connection.reader = None
        answer = b"" if error else reader.raw
        self._done.append(Done(connection.tag, ended, error, answer))
        if reader.reusable and reader.complete and not connection.unsent:
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        del self._all[connection.number]
        connection.socket.close()
