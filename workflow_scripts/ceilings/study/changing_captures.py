"""The cells of changing shapes whose requests a study has captured, to say what a change costs by parts."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings.runtimes.catalogue import RUNTIMES
from ceilings.study.changing_cells import ChangingCell
from ceilings.study.config import nearest
from ceilings.study.paths import Paths
from ceilings.study.sweeps import Asked

KEY = ("device", "runtime", "model", "precision", "sequence")


def changes(
    config: Mapping[str, Any], cells: Iterable[ChangingCell], paths: Paths, *, traced: bool
) -> list[dict[str, Any]]:
    """For each cell that is captured here what names it, and ``path``: its record of kind ``shape-change``.

    Args:
        traced: Whether anything here records captures of a GPU; a CPU's come from the frameworks' profilers.
    """
    here = (cell for cell in _asked(config, cells) if not cell.recorded)
    return [
        _named(cell, paths)
        for cell in here
        if RUNTIMES[cell.runtime].changing and (RUNTIMES[cell.runtime].device != "cuda" or traced)
    ]


def recorded_changes(config: Mapping[str, Any], cells: Iterable[ChangingCell], paths: Paths) -> list[dict[str, Any]]:
    """The same of cells that were measured elsewhere, as far as that record came with theirs."""
    elsewhere = (_named(cell, paths) for cell in _asked(config, cells) if cell.recorded)
    return [one for one in elsewhere if Path(one["path"]).is_file()]


def _asked(config: Mapping[str, Any], cells: Iterable[ChangingCell]) -> Iterator[ChangingCell]:
    for cell in cells:
        asked = any(fnmatch.fnmatchcase(cell.identity, pattern) for pattern in config["changing"]["captures"])
        if asked and cell.available and cell.device:
            yield cell


def _named(cell: ChangingCell, paths: Paths) -> dict[str, Any]:
    key = {name: getattr(cell, name) for name in KEY}
    return {**key, "path": f"{paths.changing(**key)}/change.json"}


def problems(config: Mapping[str, Any], cells: Sequence[Asked]) -> Iterator[str]:
    """Patterns of ``changing.captures`` that fit none of its cells."""
    every = [f"{cell.runtime}/{cell.model}/{cell.precision}/{name}" for cell in cells for name in config["sequences"]]
    changing = [one for one in every if any(fnmatch.fnmatchcase(one, each) for each in config["changing"]["cells"])]
    for pattern in config["changing"]["captures"]:
        if not fnmatch.filter(changing, pattern):
            yield f"changing.captures: {pattern!r} fits none of changing.cells, {nearest(pattern, changing)}"
