"""What a part does where it is run: puts a kit or results where they belong, once all their parts have come.

Runs on a host that has Python and nothing else. A kit becomes a checkout with its environment in ``.venv``; results
become a folder of which a report is made. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ceilings import files, lifetime
from ceilings.errors import UserError
from ceilings.offline import parts
from ceilings.offline.parts import Parcel, Whole

PROJECT, RESULTS, NSYS, WHEELS = "project.tar.gz", "results.tar.gz", "nsys.tar.gz", "wheels/"
"""Names of a parcel's files."""

STATE = ".kit"
"""Folder of what an installed kit remembers, below the checkout."""

REVISION, INSTALLED = "revision.json", "installed.json"

INCOMPLETE = 3
"""Exit status while parts are missing."""

ENVIRONMENT = ".venv"

SHOWN = 5
"""Changed files that a message names."""

LIMIT_SECONDS = 3600

HOST_PACKAGES = "host_packages.pth"
"""Makes packages of the host's Python visible behind those of the kit."""

LAUNCHER = """#!/bin/sh
exec "$(dirname "$0")/python" -m snakemake "$@"
"""

CHECK = """
import sys
from importlib.metadata import PackageNotFoundError, distribution
from packaging.requirements import Requirement
for name in sys.argv[1:]:
    try:
        requires = distribution(name).requires or ()
    except PackageNotFoundError:
        print(f"{name} is not installed")
        continue
    for needed in map(Requirement, requires):
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            there = distribution(needed.name).version
        except PackageNotFoundError:
            there = None
        if there is None or not needed.specifier.contains(there, prereleases=True):
            print(f"{name} asks for {needed.name}{needed.specifier}, here is {there or 'none'}")
"""


def main() -> None:
    """Run as the program of a part."""
    parser = argparse.ArgumentParser(
        prog="python3 PART",
        description="Unpack the parts beside this one: a kit for this machine, or results of another.",
    )
    parser.add_argument(
        "parts", nargs="*", type=files.expanded, help="other parts, or folders of them (default: those beside)"
    )
    parser.add_argument("--to", type=files.expanded, help="folder to unpack to (default: ceilings, or results-DEVICE)")
    parser.add_argument(
        "--replace", action="store_true", help="also replace files of the project that were changed here"
    )
    arguments = parser.parse_args()
    try:
        sys.exit(unpack(Path(sys.argv[0]), arguments.parts, arguments.to, arguments.replace))
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'a file'}: {error.strerror}; mend that and run again: what came stays")


def unpack(mine: Path, given: Iterable[Path], to: Path | None, replace: bool) -> int:
    """Unpack the parcel that a part belongs to, and name others that lie beside it.

    Returns:
        0, or ``INCOMPLETE`` while parts are missing.
    """
    parcel = parts.described(mine)
    paths = [path for one in (mine.parent, *given) for path in _parts_in(one)]
    status = place(parcel, paths, to, replace)
    for other, first in parts.parcels(paths)[0].items():
        if other != parcel:
            print(f"Left alone: {other.kind} {other.identity}; to unpack it, run {first}")
    return status


def unpack_all(given: Path, to: Path | None, replace: bool) -> int:
    """Unpack every parcel of which a part lies in a folder, or the one that a part belongs to.

    Returns:
        0, or ``INCOMPLETE`` while parts are missing or damaged.

    Raises:
        UserError: No part is there, or two parcels would go to one folder.
    """
    if not given.exists():
        raise UserError(f"PARTS={given} does not exist; name the folder of the parts: make unpack PARTS=FOLDER")
    paths = _parts_in(given.parent if given.is_file() else given)
    found, damaged = parts.parcels(paths) if given.is_dir() else ({parts.described(given): given}, [])
    if not found and not damaged:
        raise UserError(f"PARTS={given} holds no part; name their folder: make unpack PARTS=FOLDER")
    targets: dict[Path, Path] = {}
    for parcel, first in found.items():
        target = to or _usual_target(parcel)
        if target in targets:
            raise UserError(
                f"{targets[target].name} and {first.name} are of two parcels, and both go to {target}; unpack one "
                "after the other: make unpack PARTS=FILE TO=FOLDER"
            )
        targets[target] = first
    statuses = [place(parcel, paths, to, replace) for parcel in found]
    # A damaged part of a parcel that others tell of was not needed, or is named already.
    if alone := [path.name for path in damaged if not any(parcel.has(path.name) for parcel in found)]:
        print("".join(f"damaged, or no part: {name}\n" for name in alone) + "Carry these and run this again.")
        statuses.append(INCOMPLETE)
    return max(statuses)


def _usual_target(parcel: Parcel) -> Path:
    return Path("ceilings" if parcel.kind == "kit" else parcel.about["name"])


def place(parcel: Parcel, paths: Iterable[Path], to: Path | None, replace: bool) -> int:
    """Unpack a parcel of which parts are among some files.

    Returns:
        0, or ``INCOMPLETE`` while parts are missing.
    """
    target = to or _usual_target(parcel)
    files.refuse_no_folder(target, "name another with --to (make unpack: TO=FOLDER)")
    if parcel.kind == "kit":
        refuse_unfit(parcel.about)
    else:
        refuse_used(target)
    state = target / STATE
    store = state / "pieces"
    wanted = outstanding(parcel, target, replace) if parcel.kind == "kit" else list(parcel.files)
    beside = {path.resolve(): path for path in paths}
    damaged = parts.take(beside.values(), parcel, store, wanted)
    if missing := parts.absent(wanted, store):
        _say_what_is_missing(parcel, missing, damaged)
        return INCOMPLETE
    if parcel.kind == "kit":
        install(parcel, wanted, target, replace)
    else:
        receive(parcel, target)
    shutil.rmtree(store if parcel.kind == "kit" else state)
    return 0


def _parts_in(place: Path) -> list[Path]:
    return sorted(place.glob(f"*{parts.SUFFIX}")) if place.is_dir() else [place]


def _say_what_is_missing(parcel: Parcel, missing: list[int], damaged: list[str]) -> None:
    print(f"{parcel.kind} {parcel.identity}: {parcel.count - len(missing)} of {parcel.count} parts are here.")
    for number in missing:
        name = parcel.name_of(number)
        print(f"  {'damaged' if name in damaged else 'missing'}: {name}")
    print("Carry these and run this again; what came stays.")


# ---- results ---------------------------------------------------------------------------------------------------------


def refuse_used(target: Path) -> None:
    """Raise UserError where results cannot go: a folder that holds more than what came of them."""
    if others := sorted(path.name for path in target.glob("*") if path.name != STATE):
        raise UserError(f"{target} holds {others[0]!r} already; name another folder with --to (make unpack: TO=FOLDER)")


def receive(parcel: Parcel, target: Path) -> None:
    """Write what a host recorded to a folder that holds nothing else: all of it, or nothing."""
    state = target / STATE
    with lifetime.temporary_folder(state) as scratch:
        whole = Path(scratch) / "whole"
        for file in parcel.files:
            parts.join(file, state / "pieces", Path(scratch) / RESULTS)
            _extract(Path(scratch) / RESULTS, whole)
        for path in whole.iterdir():
            path.rename(target / path.name)
    print(f"{target}: results of the study {parcel.about['study']} on {', '.join(parcel.about['devices'])}.")
    print("Their report, from the project's folder, without measuring anything:")
    print(
        f"  snakemake results/summary.md results/report.html --cores 1 --directory {shlex.quote(str(target))} "
        "--config 'devices=[\"recorded\"]'"
    )


# ---- a kit -----------------------------------------------------------------------------------------------------------


def refuse_unfit(about: Mapping[str, Any]) -> None:
    """Raise UserError where a kit is for another machine than this."""
    here = ".".join(map(str, sys.version_info[:2]))
    if sys.implementation.name != "cpython" or here != about["python"]:
        raise UserError(
            f"this kit is for Python {about['python']}, and {sys.executable} is {sys.implementation.name} {here}; run "
            f"it with python{about['python']}, or pack again: make kit FOR={here}"
        )
    if platform.machine() != about["machine"]:
        raise UserError(
            f"this kit is for {about['machine']}, and this machine is {platform.machine()}; pack again: "
            f"make kit MACHINE={platform.machine()}"
        )
    try:
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ")
    except (ValueError, OSError):  # another C library
        glibc = ""
    if not glibc or _numbers(glibc) < _numbers(about["glibc"]):
        raise UserError(
            f"this kit needs glibc {about['glibc']}, and this machine has {glibc or 'none'}; pack again: make kit "
            f"GLIBC={glibc or '2.28'}"
        )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def outstanding(parcel: Parcel, target: Path, replace: bool) -> list[Whole]:
    """A kit's files that are not installed in a checkout, or of which something has gone since.

    Args:
        parcel: The kit.
        target: The checkout.
        replace: Whether files of the project that were changed here are replaced.
    """
    state = target / STATE
    there, place = _installed(state), _packages_of(target / ENVIRONMENT)

    def is_whole(name: str) -> bool:
        if name.startswith(WHEELS):
            return _is_usable(target / ENVIRONMENT) and _has(place, name.removeprefix(WHEELS))
        if name == NSYS:
            return (state / "nsys" / parcel.about["nsys"]).is_file()
        recorded = _recorded(target)
        return bool(recorded) and not (_gone(target, recorded) or (replace and _changed(target, recorded)))

    return [whole for whole in parcel.files if there.get(whole.name) != whole.sha256 or not is_whole(whole.name)]


def install(parcel: Parcel, wanted: list[Whole], target: Path, replace: bool) -> None:
    """Make, mend, or bring up to date, a checkout with its environment.

    Args:
        parcel: The kit.
        wanted: Its files that are not installed.
        target: The checkout.
        replace: Whether files of the project that were changed here are replaced.
    """
    state, began = target / STATE, time.monotonic()
    store, joined = state / "pieces", state / "joined"
    wheels = []
    for whole in wanted:
        parts.join(whole, store, joined / whole.name)
        if whole.name.startswith(WHEELS):
            wheels.append(joined / whole.name)
    if wanted:
        print(f"Checked {parcel.count} parts.", flush=True)
    if (joined / PROJECT).exists():
        place_project(joined / PROJECT, parcel.about, target, replace)
    environment = make_environment(target, wheels, _packages(parcel), parcel.about)
    if (joined / NSYS).exists():
        place_nsys(joined / NSYS, state)
    if parcel.about["nsys"]:
        link_nsys(state, parcel.about["nsys"], environment)
    (environment / parcel.about["for"]).touch()  # make sees that nothing has to be installed
    for line in complaints(environment, _packages(parcel)):
        print(f"warning: {line}; name another version of it on the host, or strike it from HOST and pack again")
    files.write_task(state / INSTALLED, {whole.name: whole.sha256 for whole in parcel.files})
    shutil.rmtree(joined, ignore_errors=True)
    if changed := _changed(target, _recorded(target)):
        print(f"Kept as changed here: {_named(changed)}; --replace (make unpack: REPLACE=1) puts the kit's back.")
    done = f"Installed in {time.monotonic() - began:.0f} s" if wanted else "Installed already; all of it is there"
    print(f"{done}: {target}, revision {parcel.about['revision']}.")
    print(f"  cd {shlex.quote(str(target))} && . .venv/bin/activate")
    print(f"  make summary KIND={parcel.about['for']}         # or, without make:")
    print("  snakemake --cores 1 results/summary.md")
    print("  python workflow_scripts/pack_results.py  # parts to bring back; or: make bring")


def place_project(archive: Path, about: Mapping[str, Any], target: Path, replace: bool) -> None:
    """Write the project's files; those of the revision before that are none of this one go.

    A file that was changed here stays where both revisions have the same one.

    Raises:
        UserError: A file was changed here and between the revisions, and may not be replaced.
    """
    before = _recorded(target)
    with tarfile.open(archive) as tar:
        content = {one.name: tar.extractfile(one) for one in tar if one.isfile()}
        after = {name: hashlib.sha256(file.read()).hexdigest() for name, file in content.items() if file}
    changed = [name for name in {**before, **after} if _differs(target / name, before.get(name), after.get(name))]
    kept = {name for name in changed if before.get(name) == after.get(name)} if not replace else set()
    if (lost := set(changed) - kept) and not replace:
        raise UserError(
            f"changed here: {_named(lost)}; keep a copy, then run this again with --replace (make unpack: REPLACE=1)"
        )
    for name in before.keys() - after.keys():
        (target / name).unlink(missing_ok=True)
    _extract(archive, target, kept)
    files.write_task(target / STATE / REVISION, {"revision": about["revision"], "files": after})


def _recorded(target: Path) -> dict[str, str]:
    """SHA-256 of each file of the project, as it was unpacked."""
    record = target / STATE / REVISION
    return dict(files.read_json(record)["files"]) if record.exists() else {}


def _gone(target: Path, recorded: Mapping[str, str]) -> list[str]:
    return [name for name in recorded if not (target / name).is_file()]


def _changed(target: Path, recorded: Mapping[str, str]) -> list[str]:
    return [name for name, sha in recorded.items() if _differs(target / name, sha, sha)]


def _differs(path: Path, before: str | None, after: str | None) -> bool:
    """Whether a file is here that is neither what was unpacked before nor what comes now."""
    return path.is_file() and files.sha256(path) not in (before, after)


def _named(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def make_environment(target: Path, wheels: list[Path], packages: Mapping[str, str], about: Mapping[str, Any]) -> Path:
    """An environment with the kit's packages and, behind them, those of this Python.

    Args:
        target: The checkout.
        wheels: What has to be installed.
        packages: All packages of the kit with their versions.
        about: The kit.

    Returns:
        Its folder.
    """
    environment = target / ENVIRONMENT
    python, place = environment / "bin" / "python", _packages_of(environment)
    if not _is_usable(environment):
        # Without pip: some systems ship Python without it, and the kit has its own.
        _run([sys.executable, "-m", "venv", "--clear", "--without-pip", environment], "make an environment")
    (place / HOST_PACKAGES).unlink(missing_ok=True)  # so that pip sees its environment only
    pip = next((wheel for wheel in wheels if wheel.name.startswith("pip-")), None)
    runner = [python, pip / "pip"] if pip else [python, "-m", "pip"]
    common = ("--disable-pip-version-check", "--no-cache-dir", "--quiet")
    outside = {"PIP_CONFIG_FILE": os.devnull}  # what the machine says of indexes does not count
    if wheels:
        print(f"Installing {len(wheels)} packages", flush=True)
        options = ("--no-index", "--no-deps", "--force-reinstall", "--no-warn-script-location")
        _run([*runner, *common, "install", *options, *wheels], "install", **outside)
    before = {_package(name)[0] for name in _installed(target / STATE) if name.startswith(WHEELS)}
    there = {_package(path.name)[0] for path in place.glob("*.dist-info")}
    if gone := sorted(there & before - set(packages)):
        _run([python, "-m", "pip", *common, "uninstall", "--yes", *gone], "uninstall", **outside)
    if about["host"]:
        lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in packages_of_this_python())
        (place / HOST_PACKAGES).write_text(lines, encoding="utf-8")
    if not (program := environment / "bin" / "snakemake").exists():  # the host's runs with the host's packages alone
        files.write_text(program, LAUNCHER)
        program.chmod(0o755)
    return environment


def _packages_of(environment: Path) -> Path:
    """Where an environment of this Python has its packages."""
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(environment)}))


def _is_usable(environment: Path) -> bool:
    return (environment / "bin" / "python").exists() and _packages_of(environment).is_dir()


def _has(place: Path, wheel: str) -> bool:
    """Whether every file is there that pip installed of a wheel."""
    package = _package(wheel)
    for folder in place.glob("*.dist-info"):
        if _package(folder.name.removesuffix(".dist-info")) == package:
            record = folder / "RECORD"
            with contextlib.suppress(OSError, ValueError, csv.Error):
                rows = csv.reader(record.read_text(encoding="utf-8").splitlines())
                return all((place / row[0]).exists() for row in rows if row and not row[0].endswith(".pyc"))
    return False


def _package(name: str) -> tuple[str, str]:
    """Canonical name and version of a package, by the name of its wheel."""
    package, version, *_ = name.removeprefix(WHEELS).split("-")
    return re.sub(r"[-_.]+", "-", package).lower(), version


def packages_of_this_python() -> list[str]:
    """Where this Python finds packages; it may be one of an environment itself."""
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        places.append(site.getusersitepackages())
    places += [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    return [place for place in dict.fromkeys(places) if Path(place).is_dir()]


def place_nsys(archive: Path, state: Path) -> None:
    """Unpack Nsight Systems."""
    folder = state / "nsys"
    shutil.rmtree(folder, ignore_errors=True)
    _extract(archive, folder)


def link_nsys(state: Path, program: str, environment: Path) -> None:
    """Put ``nsys`` on the environment's path."""
    link = environment / "bin" / "nsys"
    link.unlink(missing_ok=True)
    link.symlink_to((state / "nsys" / program).resolve())


def complaints(environment: Path, packages: Mapping[str, str]) -> list[str]:
    """What the kit's packages ask for and do not get here."""
    return _run([environment / "bin" / "python", "-c", CHECK, *packages], "check the packages").splitlines()


def _packages(parcel: Parcel) -> dict[str, str]:
    """Version of each package of a kit, by its canonical name."""
    return dict(_package(whole.name) for whole in parcel.files if whole.name.startswith(WHEELS))


def _installed(state: Path) -> dict[str, str]:
    """SHA-256 of each file of the kit that is installed."""
    try:
        return dict(json.loads((state / INSTALLED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _extract(archive: Path, target: Path, kept: Collection[str] = ()) -> None:
    """Write an archive's files as of now: Python compares times to know whether its bytecode is still right.

    Only regular files below the folder are written; Python 3.11.2 has no filter that would see to it.

    Args:
        archive: A tar file.
        target: The folder.
        kept: Names of files that are left as they are there.
    """
    with tarfile.open(archive) as tar:
        for one in tar:
            inside = PurePosixPath(one.name)
            content = tar.extractfile(one) if one.isreg() else None
            if content is None or inside.is_absolute() or ".." in inside.parts:
                raise UserError(f"{archive.name} holds {one.name!r}, which is no file below its folder; pack again")
            if one.name in kept:
                continue
            path = target / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic(path) as temporary:
                with open(temporary, "wb") as file:
                    shutil.copyfileobj(content, file)
                temporary.chmod(0o755 if one.mode & 0o100 else 0o644)


def _run(command: list[Any], doing: str, **environment: str) -> str:
    """What a command printed.

    Raises:
        UserError: It failed.
    """
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        preexec_fn=lifetime.tied(LIMIT_SECONDS),
        check=False,
    )
    if done.returncode:
        why = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"cannot {doing}: {' '.join(why[-3:])}; mend that and run again: what came stays")
    return done.stdout.strip()
