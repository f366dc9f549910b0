"""Files that are either whole or absent, and messages for those that are neither."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ceilings import private
from ceilings.errors import UserError
from ceilings.lifetime import temporary_name

HEAD_BYTES = 1 << 20
"""How much of a file is looked at before it is used."""

_UNSEEN = re.compile(
    "[\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Control letters, those of writing direction and those without width."""

POINTER = b"version https://git-lfs.github.com/spec/"


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without an error.

    A process killed inside the block leaves ``path`` as it was.

    Raises:
        UserError: ``path`` is a folder, or what should be its folder is none.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = temporary_name(path)
    try:
        yield temporary
        try:
            temporary.replace(path)
        except IsADirectoryError:
            raise UserError(f"{path} is a folder, and a file should go there; name a file") from None
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        UserError: Something else lies in its place or above it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        refuse_no_folder(folder, "name another path")
        raise


def refuse_no_folder(folder: Path, remedy: str) -> None:
    """Raise UserError where a file, or a link that leads nowhere, lies in the place of a folder or above it."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place) and not place.is_dir():
            what = "is" if place == folder else f"cannot be made, since {place} is"
            raise UserError(f"{folder} {what} no folder; {remedy}")


def expanded(path: Path | str) -> Path:
    """A path whose ``~`` is the home folder; as it is where nobody knows that folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path | str, value: Any, indent: int | None = 1) -> None:
    """Write a record as JSON, atomically and without what :mod:`ceilings.private` keeps back.

    NaN and infinity are refused, since not every reader takes them.
    """
    text = json.dumps(private.anonymous(value), indent=indent, allow_nan=False, ensure_ascii=False)
    write_text(path, printable(text) + "\n")


def printable(text: str) -> str:
    r"""JSON whose letters that nobody sees, or that turn the others round, are written as their numbers.

    >>> printable('"a\x9b\u202e é"')
    '"a\\u009b\\u202e é"'
    """
    if text.isascii():
        return text
    return _UNSEEN.sub(lambda match: json.dumps(match[0])[1:-1], text)


def write_task(path: Path | str, value: Any) -> None:
    """Write JSON for this machine alone, with the paths that are read back. Never below the results."""
    write_text(path, json.dumps(value, allow_nan=False))


def read_json(path: Path | str, remedy: str = "delete it and run again to make it anew") -> Any:
    """Read JSON of elsewhere, or of a process to its parent; records are read by :mod:`ceilings.records`.

    Raises:
        UserError: The file is missing or damaged; the message ends in ``remedy``.
    """
    if problem := not_a_file(path):
        raise UserError(f"{path} {problem}; {remedy}")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None


def sha256(path: Path | str) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_pointer(path: Path | str) -> bool:
    """Whether a file is the text that git-lfs leaves in place of one that was not fetched."""
    with open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER


def not_a_file(path: Path | str) -> str | None:
    """Why a path cannot be opened as a file, as what follows its name; None where it can.

    It opens nothing that blocks, such as a pipe that nobody writes to.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"is a link to {path.readlink()}, which is not there" if path.is_symlink() else "does not exist"
    except OSError as error:
        return f"cannot be reached ({error.strerror})"
    if not stat.S_ISREG(mode):
        return "is a folder and no file" if stat.S_ISDIR(mode) else "is no regular file"
    return None if os.access(path, os.R_OK) else "cannot be read (Permission denied)"


def problem(path: Path, *, text: bool = False) -> str | None:
    """Why a file cannot be used, as what follows its name, with the remedy; None where nothing is wrong.

    Args:
        path: The file.
        text: Whether it must be UTF-8.
    """
    path = expanded(path)
    try:
        found = path.stat()
    except OSError as error:
        return _missing(path, error)
    if stat.S_ISDIR(found.st_mode):
        return "is a folder; name a file"
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file; name one"
    try:
        start = head(path)
    except OSError as error:
        return f"cannot be read ({error.strerror}); make it readable (chmod u+r)"
    if not start:
        return "is empty; name a file with something in it"
    if start.startswith(POINTER):
        return "is a pointer of git-lfs and not the file; run git lfs pull"
    if text:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(start, final=len(start) == found.st_size)
        except UnicodeDecodeError as error:
            return f"is not UTF-8 text ({error.reason} at byte {error.start}); convert it"
    return None


def head(path: Path | str) -> bytes:
    """The first ``HEAD_BYTES`` of a file."""
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)


def _missing(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which cannot be followed ({error.strerror}); mend the link"
    if not isinstance(error, FileNotFoundError):
        return f"cannot be reached ({error.strerror}); correct its name or its folder's permissions"
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = [name for name in difflib.get_close_matches(path.name, beside, n=5) if _alike(path, Path(name))]
    hint = f"did you mean {str(path.with_name(close[0]))!r}?" if close else "correct it"
    return f"does not exist; {hint}" + ("" if path.is_absolute() else f" (paths start at {Path.cwd()})")


def _alike(one: Path, other: Path) -> bool:
    """Whether one name may be meant by the other: endings alone, as of x.json and t.json, say nothing."""
    names = (path.name.partition(".")[0] or path.name for path in (one, other))
    return bool(difflib.get_close_matches(next(names), [next(names)]))
