"""Texts from elsewhere, made harmless: messages of libraries, names in graphs and files, of kernels and devices.

A terminal gets :func:`visible`, CSV gets :func:`csv_cell`. For pages :func:`marked` goes over what they are made from:
a letter that could mean something in Markdown becomes one of Unicode's private letters, which mean nothing anywhere.
The page, once written, is handed to :func:`markdown`, :func:`html` or :func:`json_text`, which put each letter back as
that format writes it. What is forgotten on the way shows as a strange letter, and never as a heading or a link.
Standard library only.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

LONGEST = 500
"""Letters of a text on a page."""

LONGEST_CELL = 32_000
"""Letters of a cell that spreadsheets take."""

PRIVATE = 0xE000
"""Where the private letters begin; one of ASCII becomes this and its number."""

FORMULA = re.compile(r"[=+\-@\t\r＝＋－＠|%]")
"""What a spreadsheet takes for the beginning of a formula."""

_NUMBERED = "|".join(rf"(?<=^\d{{{digits}}})[.)](?=\s|$)" for digits in range(1, 10))
# Letters that mean something wherever they stand; an underscore at the end of a word; what makes a bare address a link;
# and what makes a list, a heading or a line where it comes first.
_SPECIAL = re.compile(
    rf"[\\`*\[\]<>&|~$^]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|^[#+=-]+(?=[\s#+=-]|$)|{_NUMBERED}"
)
_MARKED = re.compile(f"[{chr(PRIVATE)}-{chr(PRIVATE + 127)}]")
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of control, format, surrogate, private and unassigned letters, and of breaks of a line."""


def visible(text: str) -> str:
    r"""A text without letters that nobody sees or that change others, each as its number; breaks of lines stay.

    >>> visible("a\x1b[31mb\u202ec\nd")
    'a\\x1b[31mb\\u202ec\nd'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode()
        if letter not in "\n\t" and unicodedata.category(letter) in _INVISIBLE
        else letter
        for letter in text
    )


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text as one visible line, cut where it is too long."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def csv_cell(value: Any) -> Any:
    """A value as a cell of CSV: a text that a spreadsheet would take for a formula begins with an apostrophe.

    Numbers, also those that are written as text, stay as they are.

    >>> csv_cell("=1+1"), csv_cell("-1.5"), csv_cell(-1.5), csv_cell("- why")
    ("'=1+1", '-1.5', -1.5, "'- why")
    """
    if not isinstance(value, str):
        return value
    line = one_line(value, LONGEST_CELL)
    return f"'{line}" if FORMULA.match(value.lstrip(" \n") or " ") and not _is_number(line) else line


def marked(value: Any) -> Any:
    """A JSON value, or a text of JSON, whose texts are one line each and hold private letters in place of special ones.

    Keys of objects are texts from elsewhere too.
    """
    if isinstance(value, str):
        if value.startswith(("{", "[")):
            try:
                return json.dumps(marked(json.loads(value)), ensure_ascii=False)
            except ValueError:
                pass
        return _SPECIAL.sub(lambda match: "".join(chr(PRIVATE + ord(letter)) for letter in match[0]), one_line(value))
    if isinstance(value, dict):
        return {marked(key): marked(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [marked(part) if isinstance(part, (str, dict, list, tuple)) else part for part in value]
    return value


def markdown(page: str) -> str:
    """A page of Markdown made from marked texts: each private letter as itself in code, else behind a backslash."""
    return "\n".join(map(_markdown_line, page.split("\n"))) if _MARKED.search(page) else page


def html(page: str) -> str:
    """HTML made from marked texts."""
    return _MARKED.sub(lambda match: f"&#{ord(match[0]) - PRIVATE};", page)


def json_text(text: str) -> str:
    """JSON made from marked texts."""
    return _MARKED.sub(lambda match: f"\\u{ord(match[0]) - PRIVATE:04x}", text)


def _markdown_line(line: str) -> str:
    in_table = line.startswith("|")

    def in_code(match: re.Match[str]) -> str:
        return _MARKED.sub(lambda letter: _in_code(_letter(letter), in_table), match[0])

    return _MARKED.sub(lambda letter: f"\\{_letter(letter)}", re.sub(r"`[^`]*`", in_code, line))


def _in_code(letter: str, in_table: bool) -> str:
    return "'" if letter == "`" else "\\|" if letter == "|" and in_table else letter


def _letter(match: re.Match[str]) -> str:
    return chr(ord(match[0]) - PRIVATE)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
