"""The program that travels in each part."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]

MODULES = (
    *("__init__", "absent", "environment", "errors", "failure_kinds", "files", "foreign", "lifetime", "private"),
    *("offline/__init__", "offline/install", "offline/parts"),
)
"""What :mod:`ceilings.offline.install` imports, and that."""

START = """import sys
if sys.version_info < (3, 11):
    sys.exit("error: this is Python %d.%d; run it with 3.11 or newer, such as python3.12" % tuple(sys.version_info[:2]))
from ceilings.offline.install import main
main()
"""


def program() -> dict[str, str]:
    """Text of each module, by its name in a part."""
    names = {f"ceilings/{module}.py": PACKAGE / f"{module}.py" for module in MODULES}
    return {"__main__.py": START, **{name: path.read_text(encoding="utf-8") for name, path in names.items()}}
