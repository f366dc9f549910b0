"""What code a result depends on: a digest of modules, of every module of ours that they import, and of the data files
that these name and that lie beside them (a template, a style sheet, a schema).

As a rule's param it makes Snakemake run a job anew when code that shaped its result has changed, and only then:
comments, docstrings and formatting do not count. Standard library only.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

SCRIPTS = Path(__file__).parents[2]
"""The folder that holds the programs and the package ``ceilings``."""

PLUMBING = {
    SCRIPTS / "ceilings" / f"{name}.py"
    for name in ("__init__", "artifacts", "errors", "files", "plugins", "program", "provenance")
}
"""Modules that carry results without shaping them: a change to one makes nothing anew."""


@functools.cache
def digest(*modules: str) -> str:
    """Digest of ``modules`` and of all of ours that they import, at any remove.

    Args:
        modules: Names as Python imports them from ``workflow_scripts``: a program such as ``export_onnx``, or a
            module such as ``ceilings.runtimes.torch_cpu``.

    Raises:
        ModuleNotFoundError: One does not exist.
    """
    reached: set[Path] = set()
    waiting = [_file(module) for module in modules]
    if missing := [module for module, path in zip(modules, waiting, strict=True) if path is None]:
        raise ModuleNotFoundError(f"no module {', '.join(missing)} in {SCRIPTS}")
    while waiting:
        path = waiting.pop()
        if path is None or path in reached or path in PLUMBING:
            continue
        reached.add(path)
        waiting += _read(path)[1]
    total = hashlib.sha256()
    for path in sorted(reached):
        total.update(f"{path.relative_to(SCRIPTS)} {_read(path)[0]}\n".encode())
    return total.hexdigest()[:16]


@functools.cache
def _read(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Digest of what a module does, or of a data file's bytes; and the files of ours that it imports or names."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest(), ()
    tree = ast.parse(path.read_text(encoding="utf-8"), path)
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
    files = [found for name in imported if (found := _file(name))]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), (*files, *named)


def _drop_docstring(node: ast.AST) -> None:
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body[0].value.value = None


def _file(module: str) -> Path | None:
    """The file of a module of ours; None for anything else."""
    base = SCRIPTS.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
