"""Which packages a host needs: the pinned ones that apply there, less what it has."""

from __future__ import annotations

import dataclasses
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import UserError

try:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name
except ImportError:  # a Python that has pip and nothing else
    from pip._vendor.packaging.requirements import InvalidRequirement, Requirement  # type: ignore[assignment]
    from pip._vendor.packaging.utils import canonicalize_name  # type: ignore[assignment]

OLDEST = (3, 11)
"""Python that the project needs."""

_PYTHON = re.compile(r"3\.(\d+)(?:\.\d+)?")
_GLIBC = re.compile(r"2\.(\d+)")
_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
"""Older names of wheels' platforms, by the minor version of glibc."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A host, as far as wheels go: Linux with glibc, and CPython.

    Attributes:
        python: ``3.12``, or ``3.12.3`` where a package asks for that much.
        machine: As ``uname -m`` says.
        glibc: The oldest that it may have.
    """

    python: str
    machine: str
    glibc: str

    def __post_init__(self) -> None:
        found = _PYTHON.fullmatch(self.python)
        if not found or int(found[1]) < OLDEST[1]:
            raise UserError(
                f"the host's Python is {self.python!r}; give one from {'.'.join(map(str, OLDEST))} on, as 3.12"
            )
        if not _GLIBC.fullmatch(self.glibc):
            raise UserError(f"the host's glibc is {self.glibc!r}; give it as 2.28 (`ldd --version` there says which)")
        if not re.fullmatch(r"[a-z0-9_]+", self.machine):
            raise UserError(f"the host's machine is {self.machine!r}; give it as x86_64 or aarch64 (`uname -m` there)")

    @property
    def minor(self) -> str:
        """``3.12``."""
        return ".".join(self.python.split(".")[:2])

    @property
    def here(self) -> bool:
        """Whether what is built here runs there."""
        return self.minor == ".".join(map(str, sys.version_info[:2])) and self.machine == platform.machine()

    @property
    def environment(self) -> dict[str, str]:
        """What markers ask, as that host answers."""
        full = self.python if self.python.count(".") == 2 else f"{self.python}.0"
        return {
            "python_version": self.minor,
            "python_full_version": full,
            "implementation_version": full,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": self.machine,
            "platform_release": "",
            "platform_version": "",
        }

    @property
    def newest(self) -> int:
        """Its glibc's minor version: wheels for it and older ones run there."""
        return int(self.glibc.partition(".")[2])

    @property
    def pip_options(self) -> list[str]:
        """What makes pip choose wheels for that host."""
        names = [f"manylinux_2_{minor}" for minor in range(self.newest, 4, -1)]
        names += [name for minor, name in _LEGACY.items() if minor <= self.newest]
        platforms = [option for name in (*names, "linux") for option in ("--platform", f"{name}_{self.machine}")]
        return ["--python-version", self.python, "--implementation", "cp", *platforms]

    def applies(self, requirement: Requirement, extras: Iterable[str] = ()) -> bool:
        """Whether a requirement counts there."""
        asked = ({**self.environment, "extra": extra} for extra in ("", *extras))
        return requirement.marker is None or any(map(requirement.marker.evaluate, asked))


@dataclasses.dataclass(frozen=True)
class Pin:
    """A package in one version.

    Attributes:
        name: Canonical.
        version: Of it.
        hashes: What its file may be, as ``sha256:...``; empty where nothing says so.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()

    def line(self, hashes: bool = True) -> str:
        """As a requirements file has it."""
        return " ".join((f"{self.name}=={self.version}", *(f"--hash={one}" for one in self.hashes if hashes)))


def pinned(path: Path, target: Target) -> list[Pin]:
    """The pins of a requirements file that apply to a host.

    Raises:
        UserError: A line is no pin.
    """
    pins = []
    for line in _lines(path.read_text(encoding="utf-8").replace("\\\n", " ")):
        text, *hashes = line.split(" --hash=")
        requirement = _requirement(text, path)
        versions = [one.version for one in requirement.specifier if one.operator == "=="]
        if len(versions) != 1:
            raise UserError(f"{path}: {text!r} pins no version; write NAME==VERSION")
        if target.applies(requirement):
            pins.append(Pin(canonicalize_name(requirement.name), versions[0], tuple(one.strip() for one in hashes)))
    return pins


def packages_of_host(path: Path) -> dict[str, str | None]:
    """Version of each package in a list, or in what ``pip freeze`` printed on the host; None where it says none.

    Raises:
        UserError: It cannot be read, or a line names no package.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"HOST={path} cannot be read ({error}); write it with `python3 -m pip freeze` there") from None
    found: dict[str, str | None] = {}
    for line in _lines(text):
        if line.startswith("-e"):  # a checkout; what it brings is called behind #egg=
            if name := re.search(r"#egg=([\w.-]+)", line):
                found[canonicalize_name(name[1])] = None
            continue
        requirement = _requirement(line, path)
        versions = [one.version for one in requirement.specifier if one.operator in ("==", "===")]
        found[canonicalize_name(requirement.name)] = versions[0] if versions else None
    return found


def to_carry(pins: Iterable[Pin], host: Mapping[str, str | None]) -> list[Pin]:
    """The pins that a host does not have: a package stays out in the pinned version, or where no version is known."""
    return [pin for pin in pins if not _is_there(pin, host)]


def differing(pins: Iterable[Pin], host: Mapping[str, str | None]) -> list[str]:
    """Packages that are carried though the host has them, in other versions than the pinned ones."""
    return [
        f"{pin.name} {pin.version} (there {host[pin.name]})"
        for pin in pins
        if pin.name in host and not _is_there(pin, host)
    ]


def needed_by(metadata: Mapping[str, Any], target: Target, extras: Iterable[str]) -> list[Requirement]:
    """What a package asks for on a host, by its metadata as pip reports it."""
    asked = map(Requirement, metadata.get("requires_dist", ()))
    return [requirement for requirement in asked if target.applies(requirement, extras)]


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return canonicalize_name(name)


def _is_there(pin: Pin, host: Mapping[str, str | None]) -> bool:
    if pin.name not in host:
        return False
    version = host[pin.name]
    return version is None or Requirement(f"{pin.name}=={pin.version}").specifier.contains(version, prereleases=True)


def _lines(text: str) -> list[str]:
    stripped = (re.sub(r"(?:^|\s)#(?!egg=).*", "", line).strip() for line in text.splitlines())
    return [line for line in stripped if line]


def _requirement(text: str, path: Path) -> Requirement:
    try:
        return Requirement(text.strip())
    except InvalidRequirement:
        raise UserError(f"{path}: {text!r} names no package; write NAME or NAME==VERSION, one a line") from None
