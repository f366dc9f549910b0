"""The events of a trace in Chrome's JSON format, a batch at a time, in memory that does not grow with the file.

Each block of text is cut behind the last event that ends in it, and what lies before the cut is decoded as one array.
That proves the cut: text that ends within a text or an object is no array. A block that is no JSON, as recorders write
it that escape nothing, is mended, and read event by event where that does not help. What cannot be read even so is
counted. A file that ends early, as that of a recorder that was killed, gives what came before its end.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ceilings.errors import UserError
from ceilings.traces.recording import Progress

BLOCK = 4 << 20
"""Bytes of text that are decoded at a time."""

PATIENCE = 1 << 16
"""Bytes of text in which an event should end, however small the blocks are."""

LARGEST_EVENT, LARGEST_BESIDE = 16 << 20, 4 << 20
"""Bytes of the largest event, and of the largest value beside the events, that is read."""

LARGEST_TEXT = 64 << 30
"""Bytes of text that are read."""

LARGEST_HEAD = 16 << 20
"""Bytes before the events, and bytes without one that can be read, after which a file is refused."""

PAINS, PAINS_PER_BYTE, _PAINS_EACH = 32 << 20, 1, 200
"""How much text is tried in vain to mend events, in bytes; an attempt costs as much as some more of them. What
is left out beyond that bounds the time that a damaged file takes."""

LARGEST_RATIO, RATIO_FROM = 300, 1 << 30
"""A gzipped file that holds more than the latter and is packed better than the former is no trace: traces are packed
to a tenth or a thirtieth."""

GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
EVENTS = "traceEvents"

_READ = 1 << 13
"""Packed bytes that are unpacked at a time: where a file is damaged, no more than that is lost before the damage."""

_NAMES = b"ph|cat|name|pid|tid|ts|dur|args|id|bp|s"
_KEYS = rb'\{\s*["\'](?:%b)["\']\s*:' % _NAMES
_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
_BETWEEN_EVENTS = re.compile(rb"\}\s*,\s*(?=%b)" % _KEYS)
_BEGIN_OF_EVENTS = re.compile(rb'"%b"\s*:\s*\[' % EVENTS.encode())
_END_OF_EVENTS = re.compile(rb"\}\s*,?\s*(?=\]\s*(?:,|\}|$))")
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}:,]', re.DOTALL)
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]+|[\]}]|"', re.DOTALL)
_JOINED, _LOOKALIKES = 4, 32
"""Of how many pieces an event may consist, where something in it looks like the begin of another; and the last event of
a file that was cut."""

_SPACES = bytes(byte if byte >= 0x20 else 0x20 for byte in range(256))
_NO_NUMBER = rb"(?:nan|NaN|NAN|inf|Inf|INF|Infinity)(?:\(\w*\))?(?=\s*[,}\]])"
_NO_NUMBERS = tuple(re.compile(begin + _NO_NUMBER) for begin in (rb"(:\s*)[-+]?", rb"([\[,]\s*)[-+]?"))
"""NaN and infinity: behind a key; in a list."""

_OF_NO_NUMBERS = (b"nan", b"NaN", b"NAN", b"inf", b"Inf", b"INF")
"""What is quickly looked for."""

_BACKSLASH = re.compile(rb'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
_TEXT = re.compile(rb'("(?:name|cat)"\s*:\s*")(.*?)(?="\s*(?:,\s*"(?:%b|timeMs)"\s*:|\}\s*$))' % _NAMES, re.DOTALL)
_QUOTE = re.compile(rb'(?<!\\)"')
_QUOTED = re.compile(rb"""("[^"\\]*(?:\\.[^"\\]*)*")|'([^'\\]*(?:\\.[^'\\]*)*)'""", re.DOTALL)
_COMMA = re.compile(rb",(?=\s*[}\]])")

_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Stream:
    """The events of a file.

    Args:
        path: Plain or gzipped JSON: an object with the key ``traceEvents``, or the array of events alone.
        event: The type of an event, a ``msgspec.Struct`` or a Python type.
        progress: Is called with the share of the file that was read.

    Attributes:
        beside: What the object holds beside the events, by key, where it is no larger than ``LARGEST_BESIDE``, else
            None; complete once all batches were taken. None too for what could not be read.
        unreadable: Events that could not be read.
        mended: Batches, or single events of them, that were no JSON and were read all the same.
        cut: Whether the file ends before its events do.
        damaged: Whether it is a packed file that cannot be unpacked to its end.
        bytes: Size of the text that was read.
    """

    def __init__(self, path: Path | str, event: Any, progress: Progress | None = None) -> None:
        self.beside: dict[str, Any] = {}
        self.unreadable = self.mended = self.bytes = 0
        self.cut = self.damaged = False
        self._pains = 0
        self._path, self._progress = path, progress
        self._one = msgspec.json.Decoder(event)
        self._many = msgspec.json.Decoder(list[event])  # type: ignore[valid-type]
        self._blocks: Iterator[bytes] = iter(())
        self._left = b""

    def batches(self) -> Iterator[list[Any]]:
        """The events in the file's order.

        Raises:
            UserError: The file holds no list of events, or more than any trace does.
        """
        with open(self._path, "rb") as file:
            self._blocks = self._texts(file)
            self._more()
            self._left = self._left.removeprefix(BYTE_ORDER_MARK).lstrip()
            begin, self._left = self._left[:1], self._left[1:]
            if begin != b"[" and not (begin == b"{" and (self._keys(to_events=True) or self._behind_damage(file))):
                raise UserError(f"{self._path} holds no list {EVENTS}; give the trace that a profiler wrote")
            yield from self._batches()
            if begin == b"{" and not self.cut:
                self._keys(to_events=False)

    def _behind_damage(self, file: BinaryIO) -> bool:
        """Go to the first event of a file whose brackets before the events do not fit; whether there is one."""
        if not self.cut:
            return False
        self.bytes, self._left, self._blocks = 0, b"", self._texts(file)
        self._more()
        found = _BEGIN_OF_EVENTS.search(self._left)
        if found:
            self._left, self.cut = self._left[found.end() :], False
            self.mended += 1
        return bool(found)

    # --- text ---------------------------------------------------------------------------------------------------------

    def _more(self) -> bool:
        block = next(self._blocks, b"")
        self._left += block
        return bool(block)

    def _texts(self, file: BinaryIO) -> Iterator[bytes]:
        """Blocks of about ``BLOCK`` bytes; a packed file that is damaged ends where the damage begins."""
        size = max(1, file.seek(0, 2))
        file.seek(0)
        packed = file.read(2) == GZIP
        file.seek(0)
        pieces, length = [], 0
        for piece in self._unpacked(file) if packed else iter(lambda: file.read(BLOCK), b""):
            pieces.append(piece)
            length += len(piece)
            self.bytes += len(piece)
            if self.bytes > LARGEST_TEXT or (packed and self.bytes > max(RATIO_FROM, LARGEST_RATIO * size)):
                raise UserError(
                    f"{self._path} holds more than {self.bytes >> 30} GiB of text in {size:,} bytes, which is no trace "
                    "that can be read; record fewer steps"
                )
            if length >= BLOCK:
                if self._progress:
                    self._progress(min(1.0, file.tell() / size))
                yield b"".join(pieces)
                pieces, length = [], 0
        if pieces:
            yield b"".join(pieces)

    def _unpacked(self, file: BinaryIO) -> Iterator[bytes]:
        """What a gzipped file holds, of all its members; up to the damage if it is damaged."""
        unpack = zlib.decompressobj(wbits=31)
        packed = file.read(_READ)
        while packed:
            try:
                piece = unpack.decompress(packed, BLOCK)
            except zlib.error:
                self.damaged = True
                return
            if piece:
                yield piece
            if unpack.eof:
                packed = unpack.unused_data or file.read(_READ)
                if len(packed) < len(GZIP):
                    packed += file.read(_READ)
                if not packed.startswith(GZIP):
                    return
                unpack = zlib.decompressobj(wbits=31)
            else:
                packed = unpack.unconsumed_tail or file.read(_READ)

    # --- before and behind the events ---------------------------------------------------------------------------------

    def _keys(self, to_events: bool) -> bool:
        """Read keys and values of the object to its end, or to the first event; whether it came to that."""
        depth, key, text, begin, place = 0, None, b"", 0, 0
        behind = 0 if to_events else self.bytes
        while True:
            for token in _TOKEN.finditer(self._left, place):
                sign = token[0]
                if sign == b'"':  # a text that goes on behind what is there
                    break
                place = token.end()
                if sign in b"{[":
                    if to_events and depth == 0 and key == EVENTS and sign == b"[":
                        self._left = self._left[place:]
                        return True
                    depth += 1
                elif sign in b"}]":
                    depth -= 1
                    if depth < 0:
                        self._keep(key, self._left[begin : place - 1])
                        self.cut = to_events and bool(self._left[place:].strip())
                        return False
                elif depth == 0 and sign == b":":
                    key, begin = _as_text(text), place
                elif depth == 0 and sign == b",":
                    self._keep(key, self._left[begin : place - 1])
                    key = None
                elif depth == 0:
                    text = sign
            if key is not None and place - begin > LARGEST_BESIDE:
                self.beside[key], key = None, None
            if key is None:
                begin = place
            self._left, place, begin = self._left[begin:], place - begin, 0
            read = self.bytes - behind
            if read > LARGEST_HEAD + BLOCK or len(self._left) > 2 * LARGEST_EVENT or not self._more():
                self.cut = True
                return False

    def _keep(self, key: str | None, value: bytes) -> None:
        if key is None:
            return
        try:
            self.beside[key] = msgspec.json.decode(_mended(value))
        except _ERRORS:
            self.beside[key] = None

    # --- the events ---------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[list[Any]]:
        more, some = True, False
        while more or self._left.strip():
            if more and len(self._left) < BLOCK:
                more = self._more()
            self._left = self._left.lstrip()
            found = self._cut(bytes) or self._cut(_mended)
            if found is None and more and len(self._left) < max(2 * BLOCK, PATIENCE):
                more = self._more()  # an event may be longer than a block
                continue
            whole = found is None and not more
            events, ended = found or self._singly(self._left, whole)
            some = some or bool(events)
            if events:
                yield events
            elif not some and self.bytes > LARGEST_HEAD + BLOCK:
                raise UserError(
                    f"{self._path} holds no event that can be read in its first {self.bytes >> 20} MiB of text; give "
                    "the trace that a profiler wrote"
                )
            if ended:
                return
            if whole:
                break
            if found is None and not events:
                more = self._more()
                if len(self._left) > LARGEST_EVENT:
                    self._left = self._left[-BLOCK:]
                    self.unreadable += 1
        self.cut = True

    def _cut(self, mend: Callable[[bytes], bytes]) -> tuple[list[Any], bool] | None:
        """The events that end in what is there, and whether they are the last; None: it is no JSON, or none ends in it.

        Only what lies before the cut is mended: a letter behind it may not be complete.
        """
        text = self._left
        for cut, rest in itertools.islice(_cuts(text), None if mend is bytes else 2):
            if (events := self._decoded(mend(text[:cut]))) is not None:
                self._left = text[rest:]
                self.mended += mend is not bytes
                return events, False
        end = _end_of_list(text) if _END_OF_EVENTS.search(text) or text[:1] == b"]" else None
        if end is None or (events := self._decoded(mend(text[:end].rstrip().removesuffix(b",")))) is None:
            return None
        self._left = text[end + 1 :]
        self.mended += mend is not bytes
        return events, True

    def _decoded(self, text: bytes) -> list[Any] | None:
        try:
            return self._many.decode(b"[%b]" % text)
        except _ERRORS:
            return None

    def _singly(self, text: bytes, whole: bool) -> tuple[list[Any], bool]:
        """The same of a text that is no JSON; what is none even when mended counts as unreadable.

        Args:
            text: Begins with an event.
            whole: Whether nothing follows: the last piece is then looked at too, and else left for later.
        """
        edges = [0, *(match.end() for match in _BETWEEN_EVENTS.finditer(text)), len(text)]
        last = len(edges) - 1 - (not whole)
        events: list[Any] = []
        number = 0
        while number < last:
            for joined in range(1, 2 if self._tired else min(_JOINED, last - number) + 1):
                piece = text[edges[number] : edges[number + joined]].rstrip().removesuffix(b",")
                event, rest = self._event(piece, at_end=edges[number + joined] == len(text))
                if event is not None:
                    events.append(event)
                    number += joined
                    break
            else:
                if whole and last - number < _LOOKALIKES and self._goes_on(text[edges[number] :]):
                    return events, False
                self.unreadable += 1
                number, rest = number + 1, b""
            if rest:
                self._left = rest[1:]
                return events, True
        self._left = text[edges[last] :]
        return events, False

    def _event(self, piece: bytes, at_end: bool) -> tuple[Any, bytes]:
        """An event, and of the last one what follows it: the end of the list and more."""
        if (event := self._mended_event(piece)) is not None:
            return event, b""
        for match in _END_OF_EVENTS.finditer(piece) if at_end else ():
            if (event := self._mended_event(piece[: match.start() + 1])) is not None:
                return event, piece[match.end() :]
        return None, b""

    def _goes_on(self, text: bytes) -> bool:
        """Whether a text is the begin of an event, of which the end is missing."""
        try:
            self._one.decode(_mended(text))
        except _ERRORS as error:
            return "truncated" in str(error)
        return False

    @property
    def _tired(self) -> bool:
        """Whether so much was mended, or tried to be, that the rest is left out."""
        return self._pains > PAINS + PAINS_PER_BYTE * self.bytes

    def _mended_event(self, piece: bytes) -> Any:
        """An event, mended where it must be; None where that does not help."""
        for mended, attempt in enumerate((bytes, _mended, _with_escapes, _with_double_quotes)):
            if mended and self._tired:
                return None
            try:
                self._pains += (len(piece) + _PAINS_EACH) * (mended > 0)
                event = self._one.decode(attempt(piece))
            except _ERRORS:
                continue
            self.mended += mended > 0
            self._pains -= mended * (len(piece) + _PAINS_EACH)
            return event
        return None


def _cuts(text: bytes) -> Iterator[tuple[int, int]]:
    """Where an event may end, and where the next one begins; the last first."""
    near = max(0, len(text) - (1 << 17))
    seen: set[int] = set()
    for pattern, begin in ((_BETWEEN_EVENTS, near), (_BETWEEN, near), (_BETWEEN, 0)):
        if begin == 0 < near and seen:
            return
        for match in reversed(list(pattern.finditer(text, begin))[-3:]):
            if match.start() not in seen:
                seen.add(match.start())
                yield match.start() + 1, match.end()


def _end_of_list(text: bytes) -> int | None:
    """Place of the bracket that closes a list whose first bracket comes before the text."""
    depth = 0
    for token in _BRACKETS.finditer(text):
        sign = token[0][:1]
        if sign == b'"':
            if len(token[0]) == 1:
                return None
        elif sign in b"{[":
            depth += len(token[0])
        else:
            depth -= 1
            if depth < 0:
                return token.start() if sign == b"]" else None
    return None


def _as_text(token: bytes) -> str | None:
    try:
        return str(msgspec.json.decode(token))
    except _ERRORS:
        return None


def _mended(text: bytes) -> bytes:
    """A text whose control characters are blanks, whose NaN and infinity are null, and whose backslashes escape."""
    text = text.translate(_SPACES)
    if any(word in text for word in _OF_NO_NUMBERS):
        for pattern in _NO_NUMBERS:
            text = pattern.sub(rb"\1null", text)
    if b"\\" in text:
        text = _BACKSLASH.sub(lambda match: match[0] if match[1] else rb"\\", text)
    if not text.isascii():
        text = text.decode("utf-8", "replace").encode()
    return text


def _with_escapes(piece: bytes) -> bytes:
    """An event whose texts may hold double quotes that are not escaped."""
    return _TEXT.sub(lambda match: match[1] + _QUOTE.sub(rb"\"", match[2]), _COMMA.sub(b"", _mended(piece)))


def _with_double_quotes(piece: bytes) -> bytes:
    """An event whose texts stand between single quotes."""

    def double(match: re.Match[bytes]) -> bytes:
        return match[1] or b'"%b"' % _QUOTE.sub(rb"\"", match[2].replace(rb"\'", b"'"))

    return _COMMA.sub(b"", _mended(_QUOTED.sub(double, piece)))
