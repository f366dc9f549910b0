"""Tables of Nsight Systems' SQLite exports, and of captures kept in the same form, as arrays of integers.

A table or a column may be missing: an export leaves out tables without rows, and older versions lack columns.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ceilings.errors import UserError
from ceilings.files import not_a_file
from ceilings.traces.capture import STRINGS, Integers

MAGIC = b"SQLite format 3\0"
UNFINISHED = {"-wal": bytes.fromhex("377f06"), "-journal": bytes.fromhex("d9d505f920a163d7")}
"""How the files begin that hold changes which are not in the database yet."""

REMEDY = "give the .sqlite of capture_trace.py or of `nsys export --type sqlite`"
BUSY_SECONDS = 5.0
"""So long it is waited for a program that writes the file."""

Number = Callable[[str], int]
"""Gives a text a number, each time the same."""

LONGEST = 20_000
"""Letters of a name; the longest of kernels have some thousands."""

_CHUNK = 200_000


class Tables:
    """An open database.

    Args:
        database: The connection.
        progress: Gets the number of rows that were read since it was called last.

    Attributes:
        lenient: Whether rows with something else than numbers are left out, rather than an error.
        left_out: Table to the number of those rows.
    """

    def __init__(self, database: sqlite3.Connection, progress: Callable[[int], None] | None = None) -> None:
        self.database = database
        self.lenient = False
        self.left_out: dict[str, int] = {}
        self._progress = progress or (lambda rows: None)
        # No views and no virtual tables: what they give is computed, and may never end.
        listed = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%'")
        self._columns: dict[str, set[str]] = {str(name): set() for (name,) in listed}

    def __contains__(self, table: str) -> bool:
        return table in self._columns

    def columns(self, table: str) -> set[str]:
        """Names of a table's columns; none where there is no such table."""
        if table in self and not self._columns[table]:
            self._columns[table] = {str(row[1]) for row in self.database.execute(f'PRAGMA table_info("{table}")')}
        return self._columns.get(table, set())

    def rows(self, table: str, columns: Sequence[str], where: str = "", number: Number | None = None) -> Integers:
        """Rows of a table, a column for each of ``columns``; -1 for NULL and for a column that is not there.

        Args:
            where: What follows the table's name in SQL.
            number: Gives each text of a column ``text`` its number.

        Raises:
            sqlite3.DatabaseError, ValueError, TypeError, OverflowError: The file is damaged, or a cell is no integer.
        """
        if table not in self:
            return np.empty((0, len(columns)), np.int64)
        if number:
            counted = number
            self.database.create_function("numbered", 1, lambda value: counted(_text(value)), deterministic=True)
        present = [name if name in self.columns(table) else None for name in columns]
        known = ["-1" if name is None else _number(name, number is not None) for name in present]
        if self.lenient and (wrong := self._wrong(table, [name for name in present if name and name != "text"], where)):
            where = f"{where} AND NOT ({wrong})" if where else f"WHERE NOT ({wrong})"
        # Column after column in memory, and filled in place: a large table is there once and not twice.
        values = np.empty((self.count(table, where), len(columns)), np.int64, order="F")
        cursor = self.database.execute(f'SELECT {", ".join(known)} FROM "{table}" {where}')
        for first in range(0, len(values), _CHUNK):
            count = min(_CHUNK, len(values) - first)
            flat = itertools.chain.from_iterable(itertools.islice(cursor, count))
            values[first : first + count] = np.fromiter(flat, np.int64).reshape(count, len(columns))
            self._progress(count)
        return values

    def _wrong(self, table: str, columns: Sequence[str], where: str) -> str:
        """SQL for rows with something else than whole numbers of 64 bits, which are counted; empty if there are none.

        Raises:
            ValueError: All rows are so.
        """
        wrong = " OR ".join(
            f"typeof(\"{name}\") IN ('text', 'blob') OR (typeof(\"{name}\") = 'real' AND abs(\"{name}\") > 9.2e18)"
            for name in columns
        )
        many = self.count(table, f"{where} AND ({wrong})" if where else f"WHERE {wrong}") if wrong else 0
        if many and many == self.count(table, where):
            raise ValueError(f"no row of {table} holds numbers alone")
        if many:
            self.left_out[table] = self.left_out.get(table, 0) + many
        return wrong if many else ""

    def count(self, table: str, where: str = "") -> int:
        """How many rows a table has."""
        if table not in self:
            return 0
        (count,) = self.database.execute(f'SELECT count(*) FROM "{table}" {where}').fetchone()
        return int(count)

    def strings(self, used: Iterable[int]) -> dict[int, str]:
        """The texts with these numbers. All others stay unread: whole environments are among them."""
        wanted = sorted(set(used) - {-1})
        texts: dict[int, str] = {}
        for first in range(0, len(wanted), 500):
            listed = ", ".join(map(str, wanted[first : first + 500]))
            texts |= self.database.execute(
                f"SELECT id, CAST(substr(value, 1, {LONGEST}) AS TEXT) FROM {STRINGS} WHERE id IN ({listed}) "
                "AND value IS NOT NULL"
            )
        return texts


def _number(column: str, has_texts: bool) -> str:
    """SQL for a column's value as a number."""
    if has_texts and column == "text":
        return f"CASE WHEN text IS NULL THEN -1 ELSE numbered(CAST(substr(text, 1, {LONGEST}) AS BLOB)) END"
    return f'coalesce("{column}", -1)'


@contextlib.contextmanager
def opened(path: Path | str, progress: Callable[[int], None] | None = None) -> Iterator[Tables]:
    """Open a database to read it, and say in one line what is wrong with it, also while the block reads it.

    Raises:
        UserError: There is none, it is cut short, another program writes it, or what is read of it is damaged.
    """
    if problem := not_a_file(path):
        raise UserError(f"{path} {problem}; capture it with capture_trace.py")
    _refuse_unfinished(Path(path))
    address = f"{Path(path).absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as database:
            database.text_factory = _text
            database.execute("PRAGMA trusted_schema = OFF")
            yield Tables(database, progress)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise UserError(f"{path} is no capture ({error}); {REMEDY}") from None
        raise UserError(f"{path} is locked: another program writes it; wait until it has ended") from None
    except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:  # the latter: cells of another type
        raise UserError(f"{path} is no capture ({error}); {REMEDY}") from None


def _text(value: bytes) -> str:
    """A text whose bytes may be anything."""
    return value.decode("utf-8", errors="replace")


def _refuse_unfinished(path: Path) -> None:
    """Refuse a file that is shorter than it says, and one whose latest changes lie in another file."""
    with path.open("rb") as file:
        head = file.read(100)
        size = os.fstat(file.fileno()).st_size
    if head.startswith(MAGIC) and len(head) == 100:
        page = int.from_bytes(head[16:18], "big")
        whole = int.from_bytes(head[28:32], "big") * (65536 if page == 1 else page)
        counted = head[24:28] == head[92:96]  # older writers do not keep the number of pages
        if counted and size < whole:
            raise UserError(
                f"{path} is cut short: {size:,} of {whole:,} bytes are there; copy it again, or export it again"
            )
    for ending, magic in UNFINISHED.items():
        beside = path.with_name(path.name + ending)
        if beside.is_file() and beside.open("rb").read(len(magic)) == magic:
            raise UserError(
                f"{path} is unfinished: {beside.name} beside it holds changes that are not in it yet; let the program "
                "that writes it end, or export it again"
            )
