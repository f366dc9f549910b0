"""Wheels for a host: the pinned ones with their hashes, PyTorch with what it needs, and what has to be built first."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ceilings import files, lifetime
from ceilings.errors import UserError
from ceilings.offline import pins
from ceilings.offline.pins import Pin, Target

LIMIT_SECONDS = 4 * 3600
"""Of one call of pip: a slow line carries gigabytes."""

_SHOWN = re.compile(r"\s*(Downloading \S+).* (\(\d[^)]* [MG]B\))$")
"""What of pip's lines is worth a reader's time."""


def gather(
    pinned: Sequence[Pin], loose: Sequence[Pin], host: Mapping[str, str | None], target: Target, folder: Path
) -> list[Path]:
    """The wheels that a host needs, in a folder that keeps them for the next time.

    Args:
        pinned: Pins with hashes, of which those that the host has stay out.
        loose: Pins of which nobody keeps hashes; what they need beside these comes too.
        host: What the host has.
        target: The host.
        folder: Where wheels lie.

    Raises:
        UserError: pip finds no fitting set, or a package has no wheel and none can be built here for that host.
    """
    wanted = [*pins.to_carry(pinned, host), *closure(loose, pinned, host, target)]
    folder.mkdir(parents=True, exist_ok=True)
    with lifetime.temporary_folder() as scratch:
        lines = Path(scratch) / "wanted.txt"
        lines.write_text("".join(f"{pin.line()}\n" for pin in wanted), encoding="utf-8")
        # With --no-deps pip takes a source where there is no wheel; it would not with --only-binary.
        _pip("download", "--no-deps", "--require-hashes", *target.pip_options, "-d", str(folder), "-r", str(lines))
        for pin in wanted:
            if not _wheel(pin, folder):
                _build(pin, target, folder, Path(scratch))
    found = {pin: _wheel(pin, folder) for pin in wanted}
    if missing := [pin.line(hashes=False) for pin, path in found.items() if not path]:
        raise UserError(f"no wheel came for {', '.join(missing)}; delete {folder} and pack again")
    return sorted(path for path in found.values() if path)


def closure(loose: Sequence[Pin], pinned: Sequence[Pin], host: Mapping[str, str | None], target: Target) -> list[Pin]:
    """``loose`` and all that they need on the host beside the pinned packages and those that it has, with hashes."""
    requests = [pin.line() for pin in loose]
    known = {*host, *(pin.name for pin in pinned)} - {pin.name for pin in loose}
    while loose:
        reported = _resolve(requests, pinned, host, target)
        reached, absent = _walk([pin.name for pin in loose], reported, known, target)
        if not absent:
            return [_as_pin(name, reported[name]) for name in reached]
        # pip evaluates markers for the Python that runs it; what only the host's asks for is asked for by name.
        requests += absent
    return []


def _resolve(
    requests: Sequence[str], pinned: Sequence[Pin], host: Mapping[str, str | None], target: Target
) -> dict[str, dict[str, Any]]:
    """What pip would install for the host, by package."""
    asked = {pins.canonical(re.split(r"[^\w.-]", request)[0]) for request in requests}
    constraints = {pin.name: pin.line(hashes=False) for pin in pinned}
    constraints |= {name: f"{name}=={version}" for name, version in host.items() if version and name not in constraints}
    with lifetime.temporary_folder() as scratch:
        report, limits = Path(scratch) / "report.json", Path(scratch) / "constraints.txt"
        limits.write_text("".join(f"{constraints[name]}\n" for name in constraints if name not in asked), "utf-8")
        options = ("--dry-run", "--ignore-installed", "--only-binary=:all:", *target.pip_options, "--target", scratch)
        _pip("install", *options, "--report", str(report), "-c", str(limits), *requests)
        items = files.read_json(report)["install"]
    return {pins.canonical(item["metadata"]["name"]): item for item in items}


def _walk(
    start: Iterable[str], reported: Mapping[str, Mapping[str, Any]], known: set[str], target: Target
) -> tuple[list[str], list[str]]:
    """Packages that the host needs of those reported, and requirements that none of them meets."""
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in start]
    seen, absent = set(), set()
    while waiting:
        one = name, extras = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for needed in pins.needed_by(reported[name]["metadata"], target, extras):
            other = pins.canonical(needed.name)
            if other in reported and other not in known:
                waiting.append((other, frozenset(needed.extras)))
            elif other not in known:
                absent.add(f"{needed.name}{needed.specifier}")
    return sorted({name for name, _ in seen}), sorted(absent)


def _as_pin(name: str, item: Mapping[str, Any]) -> Pin:
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return Pin(name, item["metadata"]["version"], (f"sha256:{digest}",))


def _build(pin: Pin, target: Target, folder: Path, scratch: Path) -> None:
    """Make a wheel of a package that comes as source only."""
    sources = [path for path in folder.glob(f"{_stem(pin.name)}-{pin.version}.*") if path.suffix in (".gz", ".zip")]
    for source in sources:
        print(f"Building a wheel of {pin.name} {pin.version}, which comes as source only", flush=True)
        _pip("wheel", "--no-deps", "-w", str(scratch), str(source))
        for wheel in scratch.glob("*.whl"):
            if not wheel.name.endswith("-none-any.whl") and not target.here:
                raise UserError(
                    f"{pin.name} {pin.version} comes as source only, and its wheel is for this machine alone "
                    f"({wheel.name}); build it on a machine like the host and name it in HOST, or pack there"
                )
            files.write_bytes(folder / wheel.name, wheel.read_bytes())
            wheel.unlink()


def _wheel(pin: Pin, folder: Path) -> Path | None:
    """The wheel of a pin; pip asked for one host only, so that there is one."""
    found = [path for path in folder.glob("*.whl") if _named(path) == (pin.name, pin.version)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _named(path: Path) -> tuple[str, str]:
    name, version, *_ = path.name.split("-")
    return pins.canonical(name), version


def _stem(name: str) -> str:
    """A pattern of how a package is called in names of files."""
    return re.sub("-", "[-_.]", name)


def _pip(command: str, *arguments: str) -> None:
    """Run pip, showing what it downloads.

    Raises:
        UserError: It failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lifetime.tied(LIMIT_SECONDS),  # noqa: PLW1509 - this process has no thread
    )
    errors = []
    assert process.stdout
    for line in process.stdout:
        if shown := _SHOWN.match(line):
            print(f"  {shown[1]} {shown[2]}", flush=True)
        elif line.startswith("ERROR: ") or "No module named pip" in line:
            errors.append(line.strip())
    if process.wait():
        why = "; ".join(errors) or f"exit status {process.returncode}"
        raise UserError(f"pip {command} failed: {why}")
