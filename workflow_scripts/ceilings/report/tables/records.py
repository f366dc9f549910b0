"""A record that the plan names, read and held against the planned cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import SCHEMA_VERSION
from ceilings.errors import UserError
from ceilings.files import read_json
from ceilings.report.tables.keys import KEY

Record = Mapping[str, Any]


def read_record(
    path: str | Path, cell: Record, made_for: str, flaw: Callable[[Record], str | None], key: Sequence[str] = KEY
) -> dict[str, Any]:
    """The record of a planned cell.

    Args:
        made_for: What the record is of a cell, in words before "another cell".
        flaw: What else is wrong with a record, None if nothing; it may fail on what is missing.
        key: What of a cell the record names, in its ``cell`` or at its top.

    Raises:
        UserError: It is missing, damaged, of another schema or of another cell.
    """
    remedy = f"delete it and run `snakemake --cores 1 {path}`"
    record = read_json(path, remedy=remedy)
    try:
        if record["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {record['schema_version']}, not {SCHEMA_VERSION}; {remedy}")
        recorded = record.get("cell", record)
        if different := [name for name in key if recorded[name] != cell[name]]:
            differences = ", ".join(f"{name} {recorded[name]!r} instead of {cell[name]!r}" for name in different)
            raise UserError(f"{path} {made_for} another cell ({differences}); {remedy}")
        problem = flaw(record)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged (no {error}); {remedy}") from None
    if problem:
        raise UserError(f"{path} is damaged ({problem}); {remedy}")
    return record
