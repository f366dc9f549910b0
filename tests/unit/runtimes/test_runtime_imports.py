"""A runtime's module shapes what is measured with it: it depends on no catalogue, and on nothing that measures."""

import ast
from pathlib import Path

import pytest

from ceilings import runtimes

FOLDER = Path(runtimes.__file__).parent
MODULES = sorted(path.name for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "catalogue", "settings"))
CATALOGUES = ("models", "runtimes", "measure", "report")
PLANNING = {*(f"ceilings.{room}.catalogue" for room in CATALOGUES), "ceilings.runtimes.settings"}


@pytest.mark.parametrize("name", MODULES)
def test_no_runtime_imports_a_catalogue_or_what_measures(name):
    imported = set()
    for node in ast.walk(ast.parse((FOLDER / name).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert any(module.startswith("ceilings.") for module in imported)
    assert not [module for module in imported if module in PLANNING or module.startswith("ceilings.measure")]
