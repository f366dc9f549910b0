"""What a result depends on beside its inputs: the code that made it, and the packages which that code imports.

The code is a digest of modules, of every project module that they import, and of the data files that these name and
that lie beside them (a template, a style sheet, a schema). The packages are those that any of these modules imports,
with the versions that an import gets here.

As a rule's params they make Snakemake run a job anew when what shaped its result has changed, and only then: comments,
docstrings and formatting do not count. Standard library only.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ceilings import SCHEMA_VERSION, packages, plugins

SCRIPTS = Path(__file__).parents[2]
"""The folder that holds the programs and the package ``ceilings``."""

PLUMBING = {
    SCRIPTS / "ceilings" / f"{name}.py"
    for name in (
        "__init__",
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


@functools.cache
def digest(*modules: str) -> str:
    """Digest of ``modules`` and of all project modules that they import, directly or not.

    Args:
        modules: Names as Python imports them from ``workflow_scripts``: a program such as ``export_onnx``, or a
            module such as ``ceilings.runtimes.torch_cpu``, of a plug-in too.

    Raises:
        ModuleNotFoundError: One does not exist.
    """
    total, files = hashlib.sha256(f"schema {SCHEMA_VERSION}".encode()), reached(*modules)
    if QUANTITIES in files:  # a plug-in's catalogue is read by its path, so no import leads to it
        catalogues = {folder / "catalogue.py" for folder in plugins.folders()}
        files |= {path for path in catalogues if "MEASUREMENTS" in path.read_text(encoding="utf-8")}
    for name, path in sorted((_name(path), path) for path in files - HANDED_ON):
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
    files: set[Path] = set()
    waiting = [_file(module) for module in modules]
    if missing := [module for module, path in zip(modules, waiting, strict=True) if path is None]:
        raise ModuleNotFoundError(f"no module {', '.join(missing)} in {' or '.join(map(str, _roots()))}")
    while waiting:
        path = waiting.pop()
        if path is None or path in files or path in PLUMBING:
            continue
        files.add(path)
        waiting += _read(path).ours
    return files


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
    if path.suffix != ".py":
        return _File(hashlib.sha256(path.read_bytes()).hexdigest())
    tree = ast.parse(path.read_text(encoding="utf-8"), path)
    imports = tuple(name for node in _running(tree) for name in _foreign(node))
    imported = []
    beside = {file.name: file for file in path.parent.iterdir() if file.is_file() and file.suffix != ".py"}
    named = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in beside:
            named.append(beside[node.value])
        _drop_docstring(node)
    files = [file for name in imported if (file := _file(name))]
    return _File(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), (*files, *named), imports)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from _running(child)


def _foreign(node: ast.AST) -> Iterator[str]:
    """The modules that an import names and that are neither ours nor Python's."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        # ``from cuda.bindings import driver``: the package may be any part of that.
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        top = name.partition(".")[0]
        if top != "ceilings" and top not in sys.stdlib_module_names and not _file(top):
            yield name


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
    files = (path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py"))
    return next((path for path in files if path.is_file()), None)


def _name(path: Path) -> str:
    """A file as digests call it: the same wherever the project and the plug-ins lie."""
    for root in _roots():
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return path.name


def _roots() -> list[Path]:
    return [SCRIPTS, *plugins.folders()]
