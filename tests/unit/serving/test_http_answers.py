"""Answers of HTTP servers, whole, in pieces, broken."""

import pytest

from ceilings.serving.http_answers import LONGEST_HEAD, AnswerReader, refusal
from ceilings.serving.kserve import TransportError

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;note=1\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + PLAIN
CLOSES = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
KEPT = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"


def read(raw, size=None, largest=1000):
    reader = AnswerReader(largest)
    size = size or len(raw)
    whole = [reader.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
    assert not any(whole[:-1])
    return reader, whole[-1]


@pytest.mark.parametrize("size", [None, 1, 2, 7])
@pytest.mark.parametrize(
    ("raw", "status", "body", "reusable"),
    [
        (PLAIN, 200, b"hello", True),
        (EMPTY, 204, b"", True),
        (CHUNKED, 200, b"hello", True),
        (INTERIM, 200, b"hello", True),
        (CLOSES, 200, b"hello", False),
        (OLD, 200, b"hello", False),
        (KEPT, 200, b"hello", True),
    ],
)
def test_an_answer_is_whole_after_its_last_byte_however_it_is_cut(raw, status, body, reusable, size):
    reader, whole = read(raw, size)
    assert whole and reader.complete and reader.status == status and reader.reusable == reusable
    assert reader.raw.endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED, INTERIM])
def test_the_end_of_the_stream_before_the_last_byte_is_an_error(raw):
    for end in range(1, len(raw)):
        reader, whole = read(raw[:end])
        assert not whole
        with pytest.raises(TransportError, match="the server closed the connection"):
            reader.end()


def test_the_words_of_an_early_end():
    with pytest.raises(TransportError, match="without an answer"):
        AnswerReader(10).end()
    with pytest.raises(TransportError, match="within the answer's headers"):
        read(b"HTTP/1.1 2")[0].end()
    with pytest.raises(TransportError, match="after 3 of 5 bytes"):
        read(PLAIN[:-2])[0].end()


def test_without_a_length_the_end_of_the_stream_is_the_end_of_the_answer():
    reader, whole = read(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert not whole
    reader.end()
    assert reader.complete and not reader.reusable


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not begin as HTTP/1.1 does: 'SSH-2.0-OpenSSH'"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "does not begin"),
        (b"HTTP/1.1 abc\r\n\r\n", "does not begin"),
        (b"HTTP/1.1 099 Odd\r\n\r\n", "does not begin"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "length is '-1'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n", "length is '1_0'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "longer than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "1 bytes came after the answer's 1"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, "longer than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", "chunk of the answer has the length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", "longer than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd", "longer than it says"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * (LONGEST_HEAD + 1), "has no length"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * LONGEST_HEAD, "headers are longer"),
    ],
)
def test_what_is_no_answer(raw, words):
    with pytest.raises(TransportError, match=words):
        read(raw)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "no such input"}', "HTTP 400 Bad Request: no such input"),
        (b'{"detail": "Not Found"}', "HTTP 400 Bad Request: Not Found"),
        (b'{"detail": [{"loc": 1}]}', 'HTTP 400 Bad Request: [{"loc": 1}]'),
        (b'{"error": null}', 'HTTP 400 Bad Request: {"error": null}'),
        (b"<html>\n<b>bad</b>", "HTTP 400 Bad Request: <html> <b>bad</b>"),
        (b"[" * 100_000, "HTTP 400 Bad Request: " + "[" * 299 + "…"),
        (b"\xff\x1b[31m", "HTTP 400 Bad Request: \N{REPLACEMENT CHARACTER}\\x1b[31m"),
        (b"", "HTTP 400 Bad Request"),
        (b"Bad Request", "HTTP 400 Bad Request"),
    ],
)
def test_the_servers_words(body, words):
    assert refusal(400, body) == words
    reader, whole = read(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(body) + body, largest=1 << 20)
    assert whole and reader.error() == words


def test_a_status_without_a_name():
    assert refusal(599, b"x") == "HTTP 599: x"
