"""Which package an import gets: module, file and version, whatever metadata lies about. Standard library only.

Metadata may be of a version that is gone, and two packages may bring the same module. So the module's file is looked
for as an import would, and a package counts if its RECORD has that file with its digest. Nothing is imported.
docs/identity.md has the rules.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib.machinery
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ceilings.files import sha256

MODULES = {
    "onnxruntime-gpu": "onnxruntime",
    "cuda-bindings": "cuda.bindings",
    "cupti-python": "cupti",
    "nvidia-ml-py": "pynvml",
    "open-clip-torch": "open_clip",
    "pillow": "PIL",
    "pyyaml": "yaml",
    **{f"tensorrt-cu{n}": "tensorrt" for n in (12, 13)},
    **{f"tensorrt-cu{n}-bindings": "tensorrt_bindings" for n in (12, 13)},
    **{f"tensorrt-rtx-cu{n}": "tensorrt_rtx" for n in (12, 13)},
    **{f"tensorrt-rtx-cu{n}-bindings": "tensorrt_rtx_bindings" for n in (12, 13)},
}
"""Module of each package that is not called like it. For any other package its RECORD says which."""

ELSEWHERE = {"tensorrt": "libnvinfer.so", "tensorrt_rtx": "libtensorrt_rtx.so"}
"""Beginning of the main library's name, by that of the module's, where it does not lie in the module's folder."""

UNKNOWN = "unknown"
"""Version of a module that neither states one nor belongs to a package."""

_LITERAL = re.compile(r"""^(?:__version__|version)\b[^=\n]*=(?:\s*\w+\s*=)*\s*["']([^"'\n]+)["']""", re.MULTILINE)
_VERSION_FILES = ("_version.py", "version.py")


@dataclasses.dataclass(frozen=True)
class Package:
    """A package as an import gets it.

    Attributes:
        name: The distribution that owns the file; the one that was asked for where none does.
        version: As the module's source states it or its owner does.
        module: Dotted name; None for a package without Python modules.
        file: What the import loads; None for a package without Python modules.
    """

    name: str
    version: str
    module: str | None
    file: Path | None

    @property
    def folder(self) -> Path | None:
        """The folder from which the module is imported, such as ``site-packages``."""
        return _folder(self.module, self.file) if self.module and self.file else None

    @property
    def installed(self) -> bool:
        """Whether it lies where installers put packages, and not in a folder that only shadows one."""
        return self.folder is None or self.folder.name in ("site-packages", "dist-packages")

    def to_json(self) -> dict[str, Any]:
        """What a record holds, without paths of the machine; the library only where this process has loaded it."""
        folder = self.folder
        if self.file is None or folder is None:
            return {"package": self.name, "version": self.version}
        return {
            "package": self.name,
            "version": self.version,
            "file": self.file.relative_to(folder).as_posix(),
            "site_packages": self.installed,
            "library": _library(self),
        }


def find(name: str) -> Package | None:
    """The package that an import would get now; None if it gets nothing, or another package's module."""
    return _found(_canonical(name), tuple(sys.path))


def versions(names: Iterable[str]) -> dict[str, str | None]:
    """Version of each package; None where it is not installed."""
    return {name: package.version if (package := find(name)) else None for name in names}


def providing(module: str) -> Package | None:
    """The package that an import of a module gets now, whoever brings it; None if it gets nothing.

    Args:
        module: Dotted name; of ``google.protobuf.message`` it is ``google.protobuf`` that has a file.
    """
    return _providing(module, tuple(sys.path))


def used(name: str) -> Package | None:
    """The package that this process has imported; else the one that it would get."""
    name = _canonical(name)
    for module in _modules(name):
        if file := getattr(sys.modules.get(module), "__file__", None):
            return _package(name, module, Path(file), ours=False)
    return find(name)


@functools.cache
def _found(name: str, path: tuple[str, ...]) -> Package | None:
    """``find`` for one search path."""
    for module in _modules(name):
        if file := _file(module):
            return _package(name, module, file, ours=True)
    for distribution in metadata.distributions(name=name):  # libraries without Python code
        if any(Path(str(distribution.locate_file(file))).is_file() for file in _contents(distribution)):
            return Package(name, distribution.version, None, None)
    return None


@functools.cache
def _providing(module: str, path: tuple[str, ...]) -> Package | None:
    """``providing`` for one search path."""
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        if file := _file(name):
            return _package(_canonical(name), name, file, ours=False)
    return None


def _package(name: str, module: str, file: Path, *, ours: bool) -> Package | None:
    """The package of a module's file; with ``ours``, None if it is another one than ``name``."""
    folder = _folder(module, file)
    literal, source = _literal(file)
    proofs = [path.relative_to(folder).as_posix() for path in dict.fromkeys((file, source or file))]
    owners = list(_owners(folder, proofs))
    if literal and (same := [owner for owner in owners if owner.version == literal]):
        owners = same
    if len(owners) > 1:
        most = max(owner.present(module) for owner in owners)
        owners = [owner for owner in owners if owner.present(module) == most]
    owner = next((owner for owner in owners if owner.name == name), owners[0] if owners else None)
    if owner:
        return None if ours and owner.name != name else Package(owner.name, owner.version, module, file)
    return Package(name, literal or _editable(name, proofs[0]) or UNKNOWN, module, file)


def _modules(name: str) -> Iterator[str]:
    """The modules that a package may bring: the one that is called like it, else those of its RECORD."""
    yield MODULES.get(name, name.replace("-", "_"))
    if name in MODULES:
        return
    for distribution in metadata.distributions(name=name):
        for file in _contents(distribution):
            folder, _, rest = file.partition("/")
            if rest == "__init__.py":
                yield folder


def _file(module: str) -> Path | None:
    """The file of a module as an import would find it, without importing it or its parents."""
    top, *rest = module.split(".")
    specs = (finder.find_spec(top, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    spec = next((spec for spec in specs if spec), None)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.is_file() else None


def _folder(module: str, file: Path) -> Path:
    """The folder on the search path: above the outermost package."""
    return file.parents[module.count(".") + file.name.startswith("__init__.")]


def _literal(file: Path) -> tuple[str | None, Path | None]:
    """The version that a module's source states, and the file that does."""
    beside = [file.with_name(name) for name in _VERSION_FILES] if file.name == "__init__.py" else []
    for path in (*beside, file):
        if path.suffix != ".py" or not path.is_file():
            continue
        if found := _LITERAL.search(path.read_text(encoding="utf-8", errors="replace")):
            return found[1], path
    return None, None


# --- metadata --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Owner:
    """A distribution whose RECORD has a file with its digest."""

    name: str
    version: str
    folder: Path
    record: bytes

    def present(self, module: str) -> int:
        """How many files of the module are there with their recorded sizes: two builds of a version differ."""
        prefix = re.escape(module.replace(".", "/").encode())
        lines = re.finditer(rb"^(%s/[^,\n]+),[^,\n]*,(\d+)\r?$" % prefix, self.record, re.MULTILINE)
        return sum(_size(self.folder / line[1].decode()) == int(line[2]) for line in lines)


def _owners(folder: Path, files: Iterable[str]) -> Iterator[_Owner]:
    """The distributions in a folder that have all these files, as they are, in their RECORD."""
    for place, record in _records(folder):
        if all(_recorded(record, folder, file) for file in files):
            name, _, version = place.name.removesuffix(".dist-info").partition("-")
            yield _Owner(_canonical(name), version, folder, record)


def _recorded(record: bytes, folder: Path, file: str) -> bool:
    """Whether a RECORD has a file with the digest that it has."""
    begin = record.find(f"\n{file},".encode())
    if begin < 0:
        return False
    digests, size = record[begin + 1 :].split(b"\n", 1)[0].decode().split(",")[-2:]
    algorithm, _, wanted = digests.partition("=")
    if not wanted or (size.strip() and int(size) != _size(folder / file)):
        return False
    digest = hashlib.new(algorithm, (folder / file).read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == wanted


@functools.cache
def _records(folder: Path) -> list[tuple[Path, bytes]]:
    """Each distribution's metadata in a folder, and its RECORD, of which each line stands behind a line break."""
    return [(place, b"\n" + _record(place)) for place in sorted(folder.glob("*.dist-info"))]


def _record(place: Path) -> bytes:
    try:
        return (place / "RECORD").read_bytes()
    except OSError:
        return b""


def _contents(distribution: metadata.Distribution) -> list[str]:
    """The files of a distribution beside its metadata."""
    files = [line.split(",")[0] for line in (distribution.read_text("RECORD") or "").splitlines()]
    return [file for file in files if file and ".dist-info/" not in file]


def _editable(name: str, file: str) -> str | None:
    """Version by the metadata of a distribution that lists no such file: its source lies elsewhere."""
    for distribution in metadata.distributions(name=name):
        contents = _contents(distribution)
        if contents and file not in contents:
            return distribution.version
    return None


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


# --- libraries -------------------------------------------------------------------------------------------------------


def _library(package: Package) -> dict[str, str] | None:
    """The largest shared library of the package that this process has mapped, with its digest."""
    assert package.module and package.file
    file = package.file.resolve()  # the maps have no links
    inside = file.parent if file.name.startswith("__init__.") else file
    beginning = next((text for module, text in ELSEWHERE.items() if package.module.startswith(module)), None)
    known = {
        path
        for path in _mapped()
        if (inside in path.parents or inside == path) or (beginning and path.name.startswith(beginning))
    }
    if not known:
        return None
    path = max(known, key=_size)
    return {"file": path.name, "sha256": _digest(path)}


def _mapped() -> set[Path]:
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    paths = {Path(line[line.index("/") :]) for line in lines if "/" in line}
    return {path for path in paths if ".so" in path.name and path.is_file()}


@functools.cache
def _digest(path: Path) -> str:
    return sha256(path)
