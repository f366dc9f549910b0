"""Traces that others made, as a study names them: where each lies, and what its iterations are."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings import files, foreign
from ceilings.errors import UserError
from ceilings.study.config import nearest

WAYS = ("range", "by", "between")
"""Keys that say what the iterations are; at most one of them is given."""

LARGEST_FAILURE = 100_000
"""Bytes of a file that says why there is no other."""


@dataclasses.dataclass(frozen=True)
class Capture:
    """A trace of a study.

    Attributes:
        path: Its file.
        options: What its iterations are, as ``explain_capture.py`` takes it.
    """

    path: Path
    options: tuple[str, ...]


def captures(config: Mapping[str, Any]) -> dict[str, Capture]:
    """The traces of a study by their names."""
    return {name: _capture(given) for name, given in config["captures"].items()}


def capture(config: Mapping[str, Any], name: str) -> Capture:
    """One of them.

    Raises:
        UserError: The study names no such trace.
    """
    known = captures(config)
    if name not in known:
        hint = (
            nearest(name, known)
            if known
            else f"add captures: {{{name}: PATH}}, or --config 'captures={{{name}: PATH}}'"
        )
        raise UserError(f"the study has no capture {name!r}; {hint}")
    return known[name]


def problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Traces that cannot be read, and contradictions in what their iterations are."""
    for name, given in config["captures"].items():
        settings = {"path": given} if isinstance(given, str) else given
        where = f"captures.{name}"
        ways = [key for key in WAYS if key in settings]
        if len(ways) > 1:
            yield f"{where}: {' and '.join(ways)} both say what an iteration is; keep one of them"
        if "between" in settings and float(settings["between"][0]) >= float(settings["between"][1]):
            yield f"{where}.between: {settings['between']} ends before it begins; write [FROM, TO] in ms"
        if why := files.problem(Path(settings["path"])):
            yield f"{where}{'' if isinstance(given, str) else '.path'}: {settings['path']} {why}"


def unreadable(records: Iterable[Path | str]) -> list[str]:
    """A line for each capture that cannot be explained, or shown in Perfetto, from what was made of those tried."""
    lines = []
    for path in map(Path, records):
        if why := _failure(path):
            lines.append(f"the capture {path.stem} cannot be explained: {why}")
        elif why := _failure(path.with_suffix(".perfetto.json")):
            lines.append(f"the capture {path.stem} has no trace for Perfetto: {why}")
    return lines


def _failure(path: Path) -> str | None:
    """Why a file is one that holds a reason only; None for any other, also for one that is damaged or not made."""
    with contextlib.suppress(OSError, ValueError):
        if path.stat().st_size <= LARGEST_FAILURE:
            record = json.loads(path.read_bytes())
            said = record | record.get("otherData", {}) if isinstance(record, dict) else {}
            return foreign.one_line(str(said["failure"])) if "failure" in said else None
    return None


def _capture(given: str | Mapping[str, Any]) -> Capture:
    settings = {"path": given} if isinstance(given, str) else given
    options: list[str] = []
    if "range" in settings:
        options += ["--range", settings["range"]]
    if "by" in settings:
        options += [f"--{settings['by']}"]
    if "between" in settings:
        options += ["--between", *map(str, settings["between"])]
    if "process" in settings:
        options += ["--process", str(settings["process"])]
    if "latency" in settings:
        options += ["--latency", str(settings["latency"])]
    return Capture(files.expanded(settings["path"]), tuple(options))
