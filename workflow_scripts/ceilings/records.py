"""What one program of the pipeline writes for another: a JSON record with its kind, its schema version and its digest.

One way to write and one way to read. The reader believes nothing: a file that is damaged, edited, of another kind, of
another version or outside of its schema is refused in one line with the file, the flaw and a remedy. The digest shows
damage and careless edits; it is no signature (docs/records.md). Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ceilings import SCHEMA_VERSION, private, schemas
from ceilings.errors import UserError
from ceilings.files import not_a_file, printable, write_text

Record = dict[str, Any]

SEAL = ("kind", "schema_version", "digest")
"""What is added to the content of a record."""


def write(
    path: Path | str, kind: str, content: Mapping[str, Any], indent: int | None = 1, as_is: Collection[str] = ()
) -> Record:
    """Write a record atomically, without what :mod:`ceilings.private` keeps back.

    Args:
        path: Its file.
        kind: What it is.
        content: What it holds.
        indent: As of ``json.dumps``.
        as_is: Fields that stay as they are, since they hold paths that somebody reads back.

    Returns:
        What was written.

    Raises:
        ValueError: The content is not as the schema of its kind says, so nobody could read it.
    """
    record = sealed(
        kind, {name: value if name in as_is else private.anonymous(value) for name, value in content.items()}
    )
    write_text(path, as_text(record, indent))
    return record


def sealed(kind: str, content: Mapping[str, Any]) -> Record:
    """Content as a record: with its kind, schema version and digest in place of those that it has.

    Raises:
        ValueError: It is not as the schema of its kind says.
    """
    # As it will be read: keys are texts then, tuples lists.
    plain = json.loads(json.dumps(dict(content), allow_nan=False))
    body = {name: value for name, value in plain.items() if name not in SEAL}
    if flaw := schemas.flaw(kind, body):
        raise ValueError(f"no {kind} record can be made of this: {flaw}")
    body = {"kind": kind, "schema_version": SCHEMA_VERSION, **body}
    return body | {"digest": digest(body)}


def as_text(record: Mapping[str, Any], indent: int | None = 1) -> str:
    """A record as it stands in its file."""
    return printable(json.dumps(record, indent=indent, allow_nan=False, ensure_ascii=False)) + "\n"


def read(path: Path | str, kind: str | None = None, remedy: str | None = None) -> Record:
    """Read a record, whole and as its writer left it.

    Args:
        path: Its file.
        kind: What it must be; None: any kind.
        remedy: What mends it; None: to make it anew.

    Raises:
        UserError: It is missing, damaged, edited, of another kind or version, or not as its schema says.
    """
    remedy = remedy or anew(path)
    if problem := not_a_file(path):
        raise UserError(f"{path} {problem}; {remedy}")
    try:
        record = parsed(Path(path).read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None
    if problem := _flaw(record, kind):
        raise UserError(f"{path} {problem}; {remedy}")
    return record


def anew(path: Path | str) -> str:
    """The remedy for a damaged record: the command that makes it anew."""
    return f"delete it and run `snakemake --cores 1 {shlex.quote(str(path))}`"


def parsed(content: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no NaN or infinity, no key twice.

    Raises:
        ValueError: It is something else; the message is one line.
    """
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from None


def digest(record: Mapping[str, Any]) -> str:
    """Hex sha256 over the canonical JSON of a record without its digest.

    Raises:
        ValueError: A number is not finite.
    """
    body = {name: value for name, value in record.items() if name != "digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _flaw(record: Any, kind: str | None) -> str | None:
    """Why a file's content is no such record, as what follows its name; None where nothing is wrong."""
    if not isinstance(record, dict) or not isinstance(record.get("schema_version"), int):
        return "is no record of this pipeline (it has no schema version)"
    if record["schema_version"] != SCHEMA_VERSION:
        version = str(record["schema_version"])[:12]
        return f"has schema version {version}, and this version of the pipeline reads {SCHEMA_VERSION}"
    named = record.get("kind")
    if not isinstance(named, str) or named not in schemas.KINDS or kind not in (None, named):
        return f"is no {kind or 'known kind of'} record (its kind is {str(named)[:40]!r})"
    try:
        changed = record.get("digest") != digest(record)
    except (ValueError, RecursionError) as error:
        return f"is damaged ({error})"
    if changed:
        return "was changed since it was written (its content does not match its digest)"
    flaw = schemas.flaw(named, {name: value for name, value in record.items() if name not in SEAL})
    return flaw and f"is damaged ({flaw})"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return record
