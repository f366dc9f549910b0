"""Reads logs of requests, CSV or JSON lines, in bounded memory: sizes of each request, in order of arrival.

A line is a request: ``arrival`` (seconds or any other unit, from any origin), ``batch``, ``length`` (tokens, the axis
``sequence``) and sizes of other axes by their names. Other columns are ignored. Without ``arrival`` on any line, the
order of the file is that of arrival. A request without ``batch`` is one input.
"""

from __future__ import annotations

import csv
import dataclasses
import heapq
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.workload.shape import AXES

ALIASES = {"length": "sequence"}
"""Names of columns that logs have for axes."""

ARRIVAL = "arrival"

SIZES = dict.fromkeys((*AXES, *ALIASES))
"""Columns that hold sizes. A column with another name is no size: a log holds much that is none."""

LARGEST = 10_000_000
"""Of a size: what is larger is a mistake."""

LONGEST = 1_000_000
"""Characters of a line of JSON, and of a field of CSV."""


@dataclasses.dataclass(frozen=True)
class Log:
    """The first requests of a log.

    Attributes:
        requests: Sizes by axis, in order of arrival.
        lines: Of each of them its line in the file.
        total: Requests of the whole log.
        sorted: Whether the file was in another order.
    """

    requests: tuple[dict[str, int], ...]
    lines: tuple[int, ...]
    total: int
    sorted: bool


class _Reader:
    """Goes through a log once, line by line: every line is checked, whether or not its request is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.total = 0
        self.sorted = False
        self._latest = -math.inf
        self._timed: bool | None = None
        self._axes: set[str] = set()

    def requests(self) -> Iterator[tuple[float, int, dict[str, int], int]]:
        """(arrival, position, sizes, line) of each request; without arrivals the position stands for them."""
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                for line, row in _csv(self.path, file) if self.path.suffix == ".csv" else _json(self.path, file):
                    arrival, sizes = self._arrival(line, row), self._sizes(line, row)
                    self.sorted |= arrival < self._latest
                    self._latest = max(self._latest, arrival)
                    yield arrival, self.total, sizes, line
                    self.total += 1
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path} is not UTF-8 ({error.reason}); convert it: iconv -t utf-8") from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}); correct its name") from None

    def _arrival(self, line: int, row: Mapping[str, Any]) -> float:
        given: Any = row.get(ARRIVAL)
        has = given is not None and given != ""
        if self._timed is None:
            self._timed = has
        if has != self._timed:
            state = "no arrival, and lines before have one" if self._timed else "an arrival, and lines before have none"
            raise self._flaw(line, f"{state}; give every line one, or none")
        if not has:
            return float(self.total)
        try:
            arrival = float(given)
        except (TypeError, ValueError):
            raise self._flaw(line, f"arrival {_shown(given)} is no number; give seconds, such as 0.5") from None
        if isinstance(given, bool) or not math.isfinite(arrival) or arrival < 0:
            raise self._flaw(line, f"arrival {_shown(given)} is not a finite number from 0 on; correct the line")
        return arrival

    def _sizes(self, line: int, row: Mapping[str, Any]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for column, given in row.items():
            if column not in SIZES or given is None or given == "":
                continue
            axis = ALIASES.get(column, column)
            if axis in sizes:
                raise self._flaw(line, f"{' and '.join(_names(axis))} say the same; keep one of the two")
            sizes[axis] = self._size(line, column, given)
        if not sizes:
            raise self._flaw(line, "no size of a request; give batch, length or another axis")
        sizes = {"batch": 1, **sizes}
        if sizes.keys() != self._axes:
            self._refuse_other_axes(line, set(sizes))
        return sizes

    def _refuse_other_axes(self, line: int, axes: set[str]) -> None:
        """Refuse a line that has other axes than those before it; a batch is there in any case."""
        if other := sorted(axes ^ self._axes) if self._axes else []:
            name = _names(other[0])[0]
            state = (
                f"a {name}, and lines before have none" if other[0] in axes else f"no {name}, and lines before have one"
            )
            raise self._flaw(line, f"{state}; give every line one, or none")
        self._axes = axes

    def _size(self, line: int, column: str, given: Any) -> int:
        """A whole number; tables write one as 128.0 where a column has gaps."""
        if type(given) is str and given.isascii() and given.isdecimal() and 0 < len(given) < 8 and (size := int(given)):
            return size  # nearly all: the rest of this method would take a third of the time of a log
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(given, bool) or not 1 <= number <= LARGEST or number != int(number):
            raise self._flaw(
                line,
                f"{column} {_shown(given)} is no whole number from 1 to {LARGEST}; correct it, or rename the column "
                "where it holds no sizes",
            )
        return int(number)

    def _flaw(self, line: int, what: str) -> UserError:
        return _flaw(self.path, line, what)


def read_log(path: Path, most: int) -> Log:
    """The first ``most`` requests of a log by arrival; requests that arrive together stay in the order of the file.

    Every line is read and checked; memory grows with ``most`` alone.

    Raises:
        UserError: The file cannot be read, a line is no request (named by its number), or there are fewer than two.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError(f"{path}: a log of requests is .csv or .jsonl; give one of these")
    reader = _Reader(path)
    first = heapq.nsmallest(most, reader.requests(), key=lambda request: request[:2])
    if reader.total < 2:
        count = "no request" if not reader.total else "one request"
        raise UserError(f"{path} has {count}: shapes change between two or more; give a longer log")
    requests, lines = tuple(sizes for _, _, sizes, _ in first), tuple(line for _, _, _, line in first)
    return Log(requests, lines, reader.total, reader.sorted)


def _csv(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(LONGEST)
    reader = csv.reader(file, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not set(header) & set(SIZES):
            shown = _shown(",".join(header)) if header else "empty"
            raise _flaw(path, 1, f"the header names none of {', '.join(SIZES)} (it is {shown}); name the columns there")
        if twice := [name for name in header if name in (*SIZES, ARRIVAL) and header.count(name) > 1]:
            raise _flaw(path, 1, f"the header names {twice[0]} twice; rename one")
        read = [(name, place) for place, name in enumerate(header) if name in (*SIZES, ARRIVAL)]
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise _flaw(path, reader.line_num, f"{len(row)} fields, and the header has {len(header)}")
            yield reader.line_num, {name: row[place] for name, place in read}
    except csv.Error as error:
        raise _flaw(path, reader.line_num, f"no CSV ({error})") from None


def _json(path: Path, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while text := file.readline(LONGEST + 1):
        number += 1
        if len(text) > LONGEST:
            raise _flaw(path, number, f"longer than {LONGEST} characters")
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _flaw(path, number, f"no JSON ({str(error)[:80]})") from None
        if not isinstance(row, dict):
            raise _flaw(path, number, 'no JSON object; write {"arrival": 0.5, "batch": 1, "length": 128}')
        yield number, row


def _names(axis: str) -> list[str]:
    """Every name of a column that holds sizes of an axis."""
    return [*(column for column, other in ALIASES.items() if other == axis), axis]


def _flaw(path: Path, line: int, what: str) -> UserError:
    return UserError(f"{path}, line {line}: {what}")


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 40 else f"{text[:37]}..."
