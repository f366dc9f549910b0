"""What a result depends on beside its inputs: the code that made it, and the packages which that code imports.

The code is a digest of modules, of every project module that they import, and of the data files that these name and
that lie beside them (a template, a style sheet, a schema). The packages are those that any of these modules imports,
with the versions that an import gets here.

As a rule's params they make Snakemake run a job anew when what shaped its result has changed, and only then: comments,
docstrings and formatting do not count. Standard library only.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ceilings import SCHEMA_VERSION, files, packages, plugins

SCRIPTS = Path(__file__).parents[2]
"""The folder that holds the programs and the package ``ceilings``."""

PLUMBING = {
    SCRIPTS / "ceilings" / f"{name}.py"
    for name in (
        "__init__",
        "absent",
        "artifacts",
        "errors",
        "files",
        "foreign",
        "isolation",
        "lifetime",
        "packages",
        "plugins",
        "private",
        "program",
        "provenance",
        "records",
        "turns",
    )
} | set((SCRIPTS / "ceilings" / "schemas").glob("*.py"))
"""Modules that carry results without shaping them: a change to one makes nothing anew."""

HANDED_ON = {SCRIPTS / "ceilings" / room / "catalogue.py" for room in ("models", "runtimes", "report")}
"""Catalogues of which each job gets what concerns it in its params: a new entry makes nothing anew that exists."""

QUANTITIES = SCRIPTS / "ceilings" / "measure" / "catalogue.py"
"""Whose columns tables and pages show; plug-ins add to it."""

FILE_NAME = re.compile(r"[\w.-]{1,100}")
"""A text that may name a file beside a module."""

MEMORY = Path(".snakemake", "ceilings", "code.json")
"""Where what was parsed is kept."""


@functools.cache
def digest(*modules: str) -> str:
    """Digest of ``modules`` and of all project modules that they import, directly or not.

    Args:
        modules: Names as Python imports them from ``workflow_scripts``: a program such as ``export_onnx``, or a
            module such as ``ceilings.runtimes.torch_cpu``, of a plug-in too.

    Raises:
        ModuleNotFoundError: One does not exist.
    """
    total, read = hashlib.sha256(f"schema {SCHEMA_VERSION}".encode()), reached(*modules)
    if QUANTITIES in read:  # a plug-in's catalogue is read by its path, so no import leads to it
        catalogues = {folder / "catalogue.py" for folder in plugins.folders()}
        read |= {path for path in catalogues if "MEASUREMENTS" in path.read_text(encoding="utf-8")}
    for name, path in sorted((_name(path), path) for path in read - HANDED_ON):
        total.update(f"{name} {_read(path).digest}\n".encode())
    return total.hexdigest()[:16]


@functools.cache
def libraries(*modules: str) -> str:
    """Third-party packages that ``modules`` and their project modules import: ``numpy 2.3.4, onnx 1.19.1``.

    Imports within functions count, imports for type checkers do not. What is not installed is left out.

    Args:
        modules: As for :func:`digest`.

    Raises:
        ModuleNotFoundError: One does not exist.
    """
    imported = {name for path in reached(*modules) for name in foreign(path)}
    found = {package.name: package.version for name in sorted(imported) if (package := packages.providing(name))}
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


def reached(*modules: str) -> set[Path]:
    """The files behind ``digest(*modules)``.

    Raises:
        ModuleNotFoundError: A module does not exist.
    """
    found: set[Path] = set()
    waiting = [_file(module) for module in modules]
    if missing := [module for module, path in zip(modules, waiting, strict=True) if path is None]:
        raise ModuleNotFoundError(f"no module {', '.join(missing)} in {' or '.join(map(str, _roots()))}")
    while waiting:
        path = waiting.pop()
        if path is None or path in found or path in PLUMBING:
            continue
        found.add(path)
        waiting += _read(path).ours
    return found


def foreign(path: Path) -> tuple[str, ...]:
    """The modules from elsewhere that a file of ours imports when it runs, by their dotted names."""
    return _read(path).foreign


class _File(NamedTuple):
    """What counts of a module or a data file.

    Attributes:
        digest: Of what the module does, or of the data file's bytes.
        ours: The files of ours that it imports or names.
        foreign: The modules from elsewhere that it imports when it runs, by their dotted names.
    """

    digest: str
    ours: tuple[Path, ...] = ()
    foreign: tuple[str, ...] = ()


@functools.cache
def _read(path: Path) -> _File:
    content = path.read_bytes()
    if path.suffix != ".py":
        return _File(hashlib.sha256(content).hexdigest())
    source = _SOURCES.read(content, path)
    beside = {file.name: file for file in path.parent.iterdir() if file.is_file() and file.suffix != ".py"}
    ours = [file for name in source.imports if (file := _file(name))]
    named = [beside[text] for text in source.texts if text in beside]
    return _File(source.digest, (*ours, *named), tuple(name for name in source.running if _is_foreign(name)))


def _is_foreign(name: str) -> bool:
    """Whether a module is neither ours nor Python's."""
    top = name.partition(".")[0]
    return top != "ceilings" and top not in sys.stdlib_module_names and not _file(top)


class _Source(NamedTuple):
    """What counts of the source of a module, wherever it lies.

    Attributes:
        digest: Of what it does.
        imports: Every module that it imports, by its dotted name.
        running: Those that it imports when it runs.
        texts: Its texts that may be names of files.
    """

    digest: str
    imports: tuple[str, ...]
    running: tuple[str, ...]
    texts: tuple[str, ...]


def _parsed(content: bytes, path: Path) -> _Source:
    tree = ast.parse(content, path)
    running = tuple(name for node in _running(tree) for name in _imported_by(node))
    imports: list[str] = []
    texts: dict[str, None] = {}
    for node in ast.walk(tree):
        imports += _imported_by(node)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.append(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and FILE_NAME.fullmatch(node.value):
            texts[node.value] = None
        _drop_docstring(node)
    return _Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports), running, tuple(texts))


class _Sources:
    """Parses each source once: what was parsed is kept beside Snakemake's records, by the digest of the source."""

    def __init__(self) -> None:
        self.memory: Path | None = None
        self.known: dict[str, _Source] = {}
        self.read_here: set[str] = set()
        self.new = False

    def read(self, content: bytes, path: Path) -> _Source:
        key = f"{sys.version_info[0]}.{sys.version_info[1]} {hashlib.sha256(content).hexdigest()}"
        if key not in self.known:
            self.known[key], self.new = _parsed(content, path), True
        self.read_here.add(key)
        return self.known[key]

    def keep(self, memory: Path) -> None:
        if self.memory is None:
            atexit.register(self.write)
        self.memory = memory
        with contextlib.suppress(
            OSError, ValueError, TypeError, AttributeError, LookupError
        ):  # damaged: as if it were new
            content = json.loads(memory.read_text(encoding="utf-8"))
            self.known |= {key: _Source(one[0], *map(tuple, one[1:])) for key, one in content.items()}

    def write(self) -> None:
        if self.new and self.memory and self.memory.parent.parent.is_dir():
            with contextlib.suppress(OSError):
                files.write_task(self.memory, {key: self.known[key] for key in sorted(self.read_here)})


_SOURCES = _Sources()


def keep(memory: Path) -> None:
    """Keep what was parsed for the next process that plans; Snakemake's folder is made by Snakemake."""
    _SOURCES.keep(memory)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from _running(child)


def _imported_by(node: ast.AST) -> list[str]:
    """The modules that an import names, and what may be one: ``from cuda.bindings import driver``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _drop_docstring(node: ast.AST) -> None:
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body[0].value.value = None


def _file(module: str) -> Path | None:
    """The file of a module of ours or of a plug-in; None for anything else."""
    parts = module.split(".")
    bases = [SCRIPTS.joinpath(*parts)]
    if parts[0] == "ceilings" and len(parts) > 1:
        bases += [folder.joinpath(*parts[1:]) for folder in plugins.folders()]
    paths = (path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py"))
    return next((path for path in paths if path.is_file()), None)


def _name(path: Path) -> str:
    """A file as digests call it: the same wherever the project and the plug-ins lie."""
    for root in _roots():
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return path.name


def _roots() -> list[Path]:
    return [SCRIPTS, *plugins.folders()]
