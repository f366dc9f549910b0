"""Reads one answer of an HTTP/1.1 server as its bytes come, in whatever pieces. No sockets here."""

from __future__ import annotations

import http
import json
import re
from collections.abc import Iterable

from ceilings import foreign
from ceilings.serving.kserve import TransportError

LONGEST_HEAD = 1 << 16
"""Bytes of a status line and headers, and of a chunk's line; more is no answer of a server of models."""

END_OF_HEAD = b"\r\n\r\n"


class AnswerReader:
    """One answer, fed piece by piece.

    Attributes:
        status: Its number; 0 until the head has come.
        raw: What came: the head, and the body without the marks of chunks.
        complete: Whether it is whole.
        reusable: Whether the connection may carry another request after it.
    """

    def __init__(self, largest: int) -> None:
        """Args: ``largest``: a longer body is an error."""
        self._largest = largest
        self._chunks = bytearray()  # what came and is not understood yet
        self._length: int | None = None  # of the body, or of the chunk that is coming; None: not known
        self._body_at = 0
        self._chunked = self._trailers = False
        self.status = 0
        self.raw = bytearray()
        self.complete = self.reusable = False

    def feed(self, piece: bytes) -> bool:
        """Take what came; whether the answer is whole.

        Raises:
            TransportError: It is no answer, or too long.
        """
        if self.status and self._chunked:
            self._chunks += piece
        else:
            self.raw += piece
            while not self.status:
                if not self._head():
                    return False
        self.complete = self._dechunk() if self._chunked else self._whole()
        return self.complete

    def end(self) -> None:
        """The stream has ended.

        Raises:
            TransportError: The answer is not whole.
        """
        if self.status and not self._chunked and self._length is None:
            self.complete = True
        elif not self.began:
            raise TransportError("the server closed the connection without an answer")
        elif not self.status:
            raise TransportError("the server closed the connection within the answer's headers")
        else:
            of = "" if self._chunked else f" of {self._length}"
            raise TransportError(f"the server closed the connection after {self._size}{of} bytes of its answer")

    @property
    def began(self) -> bool:
        """Whether anything of the answer has come."""
        return bool(self.raw)

    def error(self) -> str | None:
        """The server's words where it refused the request; None for an answer."""
        if self.status == http.HTTPStatus.OK:
            return None
        return refusal(self.status, bytes(self.raw[self._body_at :]))

    @property
    def _size(self) -> int:
        return len(self.raw) - self._body_at

    def _head(self) -> bool:
        """Whether a whole head was there; an interim one goes, and the real one follows."""
        end = self.raw.find(END_OF_HEAD)
        if end > LONGEST_HEAD or (end < 0 and len(self.raw) > LONGEST_HEAD):
            raise TransportError(f"the answer's headers are longer than {LONGEST_HEAD} bytes")
        if end < 0:
            return False
        first, *lines = bytes(self.raw[:end]).decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        number = rest[:3]
        if not re.fullmatch(r"HTTP/1\.\d", version) or not re.fullmatch(r"[1-9][0-9]{2}", number):
            raise TransportError(f"the answer does not begin as HTTP/1.1 does: {foreign.one_line(first, 80)!r}")
        end += len(END_OF_HEAD)
        if int(number) < 200:
            del self.raw[:end]
            return True
        self.status, self._body_at = int(number), end
        self._understand(version, parsed(lines))
        if self._chunked:
            self._chunks = self.raw[end:]
            del self.raw[end:]
        return True

    def _understand(self, version: str, headers: dict[str, str]) -> None:
        closes = headers.get("connection", "").lower()
        self.reusable = closes == "keep-alive" if version == "HTTP/1.0" else closes != "close"
        if self.status in (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED):
            self._length = 0
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            self._chunked = True
        elif (length := headers.get("content-length")) is not None:
            if not re.fullmatch(r"[0-9]{1,18}", length):
                raise TransportError(f"the answer's length is {foreign.one_line(length, 80)!r}")
            self._length = int(length)
            self._limit(self._length)
        else:
            self.reusable = False

    def _whole(self) -> bool:
        self._limit(self._size)
        if self._length is None or self._size < self._length:
            return False
        if self._size > self._length:
            raise TransportError(f"{self._size - self._length} bytes came after the answer's {self._length}")
        return True

    def _dechunk(self) -> bool:
        while True:
            if self._length is None:
                end = self._chunks.find(b"\r\n")
                if end > LONGEST_HEAD or (end < 0 and len(self._chunks) > LONGEST_HEAD):
                    raise TransportError("a chunk of the answer has no length")
                if end < 0:
                    return False
                line = bytes(self._chunks[:end])
                del self._chunks[: end + 2]
                if not self._trailers:
                    self._chunk(line)
                elif not line:
                    return True
                continue
            if len(self._chunks) < self._length + 2:
                return False
            if self._chunks[self._length : self._length + 2] != b"\r\n":
                raise TransportError("a chunk of the answer is longer than it says")
            self.raw += self._chunks[: self._length]
            del self._chunks[: self._length + 2]
            self._length = None

    def _chunk(self, line: bytes) -> None:
        number = line.partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", number):
            raise TransportError(f"a chunk of the answer has the length {line[:80]!r}")
        self._length = int(number, 16)
        self._limit(self._size + self._length)
        if self._length == 0:
            self._trailers, self._length = True, None

    def _limit(self, nbytes: int) -> None:
        if nbytes > self._largest:
            raise TransportError(f"the answer is longer than {self._largest} bytes")


def parsed(lines: Iterable[str]) -> dict[str, str]:
    """Headers by name in small letters."""
    parts = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in parts}


def refusal(status: int, body: bytes) -> str:
    """What a server says with a status other than 200.

    >>> refusal(400, b'{"error": "no such input"}')
    'HTTP 400 Bad Request: no such input'
    >>> refusal(500, b"Internal Server Error")
    'HTTP 500 Internal Server Error'
    """
    try:
        said = json.loads(body)
        said = said.get("error") or said.get("detail") or said if isinstance(said, dict) else said
    except (ValueError, RecursionError):
        said = body.decode(errors="replace")
    phrase = http.HTTPStatus(status).phrase if status in http.HTTPStatus._value2member_map_ else ""
    words = foreign.one_line(said if isinstance(said, str) else json.dumps(said), 300)
    return f"HTTP {status} {phrase}".rstrip() + (f": {words}" if words not in ("", phrase) else "")
