"""The report compares columns: no module of it reads what a runtime's name is made of, or asks for one by its name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ceilings.runtimes.catalogue import RUNTIMES

REPORT = Path(__file__).parents[3] / "workflow_scripts/ceilings/report"
FILES = sorted(REPORT.rglob("*.py"))
EARLIER = {"earlier.py"}
"""The one module that knows the earlier suffix of the second cell of an A/A pair."""

PARSING = {"startswith", "endswith", "split", "rsplit", "partition", "removesuffix", "removeprefix", "replace"}
BANNED = {"_said", "said", "told", "found", "own", "some", "of"}


def names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} | {
        each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)
    }


def faults(source: str) -> list[str]:
    """What in a module parses a runtime's name or compares it with a literal."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in PARSING and "runtime" in names(called.value):
            wrong.append(ast.unparse(node))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            text = any(
                isinstance(each, ast.Constant) and isinstance(each.value, str) for s in sides for each in ast.walk(s)
            )
            if text and any("runtime" in names(side) for side in sides):
                wrong.append(ast.unparse(node))
        if isinstance(node, ast.Constant) and node.value in RUNTIMES:
            wrong.append(repr(node.value))
    return wrong


@pytest.mark.parametrize("path", [path for path in FILES if path.name not in EARLIER], ids=lambda path: path.name)
def test_no_module_reads_a_runtime_s_name(path):
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        'cell.runtime.startswith("torch-")',
        'graph = find(cell.runtime.removesuffix("-graph"))',
        'if "tensorrt" in cell.runtime: pass',
        'if cell.runtime == "x": pass',
        'CUDA = "onnxruntime-cuda"',
    ],
)
def test_what_it_looks_for(source):
    assert faults(source)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPORT)))
def test_names_are_standard_words(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
    used |= {each.arg for each in ast.walk(tree) if isinstance(each, ast.arg)}
    used |= {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.ClassDef)}
    assert not used & BANNED
