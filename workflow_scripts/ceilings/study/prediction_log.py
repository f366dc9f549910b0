"""The record of predictions: rounds of them, written before anything is measured and only ever appended to.

Each round holds a digest of all rounds before it, so a later change of one shows. Standard library only: read while the
workflow is parsed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.files import read_json, write_json

SCHEMA_VERSION = 1

REMEDY = "restore it, or move it away to begin a new record; what it predicted is then no part of the study"

Prediction = dict[str, Any]
Round = dict[str, Any]


def read(path: Path | str) -> list[Round]:
    """The rounds, the oldest first; none where there is no record.

    Raises:
        UserError: It is damaged, or a round was changed after it was written.
    """
    if not Path(path).is_file():
        return []
    record = read_json(path, remedy=REMEDY)
    try:
        if record["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {record['schema_version']}, not {SCHEMA_VERSION}; {REMEDY}")
        rounds: list[Round] = record["rounds"]
        before = ""
        for number, one in enumerate(rounds, 1):
            if one["digest"] != _digest(one, before):
                raise UserError(f"{path}: round {number} was changed after it was written; {REMEDY}")
            before = one["digest"]
            for prediction in one["predictions"]:
                prediction["device"], prediction["cell"], prediction["before"], prediction["factor"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); {REMEDY}") from None
    return rounds


def append(
    path: Path | str, study: str, made: str, tables: Mapping[str, str], predictions: Sequence[Prediction]
) -> bool:
    """Add a round unless it would say what the last one of the study says; whether it did.

    Args:
        made: When, as ISO 8601 in UTC.
        tables: Digest of each table that the predictions rest on.
    """
    rounds = read(path)
    last = next((one for one in reversed(rounds) if one["study"] == study), None)
    if (last["predictions"] if last else []) == list(predictions):
        return False
    new: Round = {"study": study, "made": made, "tables": dict(tables), "predictions": list(predictions)}
    new["digest"] = _digest(new, rounds[-1]["digest"] if rounds else "")
    write_json(path, {"schema_version": SCHEMA_VERSION, "rounds": [*rounds, new]})
    return True


def last_of_each(rounds: Sequence[Round], study: str) -> list[Prediction]:
    """For each cell of a study the last prediction of it, with when it was ``made`` and whether it is ``proposed``: in
    the last round."""
    mine = [one for one in rounds if one["study"] == study]
    latest: dict[tuple[str, str], Prediction] = {}
    for one in mine:
        for prediction in one["predictions"]:
            key = (prediction["device"], prediction["cell"])
            latest.pop(key, None)
            latest[key] = {**prediction, "made": one["made"], "proposed": one is mine[-1]}
    return list(latest.values())


def _digest(one: Round, before: str) -> str:
    content = {key: value for key, value in one.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()
