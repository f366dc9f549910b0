"""A record that the plan names, read and held against the planned cell."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import records
from ceilings.errors import UserError
from ceilings.report.tables.keys import KEY

Record = Mapping[str, Any]


def read_record(
    path: str | Path,
    kind: str,
    cell: Record,
    made_for: str,
    flaw: Callable[[Record], str | None],
    *,
    key: Sequence[str] = KEY,
) -> dict[str, Any]:
    """The record of a planned cell.

    Args:
        kind: Of the record.
        made_for: What the record is of a cell, in words before "another cell".
        flaw: Why its numbers cannot be, None where they can: what a schema cannot say. It is asked where ``status`` is
            ``ok``.
        key: What of a cell the record names, in its ``cell`` or at its top.

    Raises:
        UserError: It is missing, damaged, edited, of another version or of another cell, or its numbers cannot be.
    """
    remedy = _remedy(path, cell)
    record = records.read(path, kind, remedy)
    recorded = record.get("cell", record) or {}
    if different := [name for name in key if recorded.get(name) != cell[name]]:
        differences = ", ".join(f"{name} {recorded.get(name)!r} instead of {cell[name]!r}" for name in different)
        raise UserError(f"{path} {made_for} another cell ({differences}); {remedy}")
    if record["status"] == "ok" and (problem := flaw(record)):
        raise unbelievable(path, cell, problem)
    return record


def refuse_repeated(path: str, taken: Hashable, seen: dict[Hashable, str]) -> None:
    """Refuse a record that was measured once and stands at two paths.

    Args:
        taken: What no other measurement has; false where nothing was measured.
        seen: By what was taken its path, of all records before it. This one is added.

    Raises:
        UserError: Another path has it.
    """
    if taken and (other := seen.setdefault(taken, path)) != path:
        raise UserError(
            f"{other} and {path} are one measurement twice; delete them and run `snakemake --cores 1 {other} {path}`"
        )


def unbelievable(path: str | Path, cell: Record, problem: str) -> UserError:
    """The refusal of a planned cell's record whose numbers cannot be."""
    return UserError(f"{path} cannot be believed ({problem}); {_remedy(path, cell)}")


def _remedy(path: str | Path, cell: Record) -> str:
    return "bring it again from where it was measured, or delete it" if cell.get("recorded") else records.anew(path)
