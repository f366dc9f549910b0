"""The results of a host as they go home: its records and what was made of them, without what should not travel."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ceilings import trees
from ceilings.errors import UserError

LEFT = (".onnx", ".onnx.data", ".safetensors", ".engine", ".engine.cache", ".npz", ".cache", ".log")
"""Suffixes of what a report does not read: weights, graphs, engines, texts as token ids, what libraries printed."""

LEFT_FOLDERS = ("logs",)

MADE_FROM_RECORDS = (
    *("plan.json", "summary.md", "summary_table.md", "engineering_observations.md", "report.html"),
    *("comparison.md", "comparison.html", "next.md", "next.json", "next.yaml", "tables", "plots"),
)
"""What the report at home makes anew; it comes beside the records, as the host made it."""

THERE = "there"
"""Folder of these."""


def pack(results: Path, study: Path, target: Path, everything: bool) -> dict[str, Any]:
    """Write the results of a host as a tar file: records below ``results/``, the study, and what the host made of them.

    Args:
        results: The results folder.
        study: The study file that they are of.
        target: The tar file.
        everything: Whether weights, graphs, engines, inputs and logs come too.

    Returns:
        What the receiver needs to know: ``name`` of the folder, ``study``, ``devices``.

    Raises:
        UserError: Nothing was measured, or it was measured for another study.
    """
    devices = sorted(path.name for path in (results / "benchmarks").glob("*") if path.is_dir())
    if not devices:
        raise UserError(f"{results} holds no run record; measure first: snakemake --cores 1 results/summary.md")
    name = _name_of_study(results, study)
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        archive.add(study, "config.yaml", filter=_plain)
        for path in _travelling(results, everything):
            inside = path.relative_to(results)
            folder = THERE if inside.parts[0] in MADE_FROM_RECORDS else "results"
            archive.add(path, f"{folder}/{inside}", recursive=False, filter=_plain)
    return {"name": f"results-{'-'.join(devices)}", "study": name, "devices": devices}


def _travelling(results: Path, everything: bool) -> Iterator[Path]:
    for path in sorted(results.rglob("*")):
        inside = path.relative_to(results)
        if trees.stays(inside) or path.is_symlink() or not path.is_file():
            continue
        if everything or not (path.name.endswith(LEFT) or inside.parts[0] in LEFT_FOLDERS):
            yield path


def _name_of_study(results: Path, study: Path) -> str:
    """The study's name; the plan and the file must agree on it."""
    import yaml

    try:
        named = yaml.safe_load(study.read_text(encoding="utf-8"))["study"]
        planned = json.loads((results / "plan.json").read_text(encoding="utf-8"))["study"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise UserError(
            f"{study} or {results / 'plan.json'} cannot be read ({error}); name the study: STUDY=FILE"
        ) from None
    if named != planned:
        raise UserError(f"{results} is of the study {planned}, and {study} is {named}; name its file: STUDY=FILE")
    return str(named)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the user."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info
