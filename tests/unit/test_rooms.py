"""Imports go down only: a room imports the ground and the rooms listed above it."""

import ast
from pathlib import Path

import pytest

from ceilings.study import code

PACKAGE = code.SCRIPTS / "ceilings"
GROUND = (
    "absent",
    *("artifacts", "bytecode", "control_groups", "environment", "errors", "failure_kinds", "files", "foreign", "gpu"),
    *("host", "import_clock", "isolation", "leftovers", "lifetime", "options", "packages", "plugins", "private"),
    *("program", "provenance", "quantity", "records", "schemas", "slugs", "taxonomy", "trees", "turns"),
)
"""Modules that know nothing of inference; among themselves they may import each other."""

ROOMS = (
    "statistics",
    "cuda",
    "workload",
    "models",
    "graphs",
    "engines",
    "kernels",
    "runtimes",
    "measure",
    "serving",
    "traces",
    "limits",
    "study",
    "report",
    "offline",
)
"""In the order of docs/development.md."""

REPORT = ("catalogue", "text", "tables", "analysis", "render")
"""Rooms within the report, in their order."""


def imports(path: Path) -> set[str]:
    """Dotted names below ``ceilings`` that a file imports, modules and names in them alike."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("ceilings.") for name in found if name.startswith("ceilings.")}


def files():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_module_stands_in_a_room():
    tops = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in files()}
    assert tops == {*GROUND, *ROOMS}


@pytest.mark.parametrize("room", [*GROUND, *ROOMS])
def test_a_room_imports_no_room_below_it(room):
    allowed = {*GROUND, "SCHEMA_VERSION"} | set(ROOMS[: ROOMS.index(room) + 1] if room in ROOMS else ())
    for path in files():
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") == room:
            wrong = {name for name in imports(path) if name.split(".")[0] not in allowed}
            assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}"


@pytest.mark.parametrize("room", REPORT)
def test_rooms_of_the_report_keep_their_order(room):
    allowed = REPORT[: REPORT.index(room) + 1]
    for path in files():
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[:2] == ("report", room):
            wrong = {n for n in imports(path) if n.startswith("report.") and n.split(".")[1] not in allowed}
            assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}"


def test_no_two_modules_share_a_name():
    """But for those that mean the same in each room."""
    shared = {"__init__", "catalogue"}
    others = {PACKAGE / "report/render/plots", PACKAGE / "schemas"}  # named as the file, or kind of file, they are of
    names = [path.stem for path in files() if path.stem not in shared and path.parent not in others]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_no_two_files_of_tests_share_a_name():
    """Pytest imports them by name alone, and refuses the second when both are collected."""
    names = [path.name for path in Path(__file__).parents[1].rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
