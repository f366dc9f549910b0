#!/usr/bin/env python3
"""Draw the rooms of a checkout and their imports as a Mermaid graph: arrows of imports that go up are dotted."""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from pathlib import Path

ORDER = (
    *("statistics", "cuda", "workload", "models", "graphs", "engines", "runtimes"),
    *("measure", "traces", "limits", "study", "report"),
)
"""From the ground up. Modules beside the rooms are the ground, which every room may import, and are left out."""


def room(module: str) -> str | None:
    """The room of ``ceilings.ROOM.MODULE``; None for the ground and for what is not ours."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "ceilings" and parts[1] in ORDER else None


def imports(scripts: Path) -> Counter[tuple[str, str]]:
    """How many modules of one room import from another."""
    found: set[tuple[str, str, str]] = set()
    for path in sorted(scripts.joinpath("ceilings").rglob("*.py")):
        module = ".".join(path.relative_to(scripts).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                a, b = room(module), room(name)
                if a and b and a != b:
                    found.add((a, b, module))
    return Counter((a, b) for a, b, _ in found)


def mermaid(edges: Counter[tuple[str, str]]) -> str:
    """The graph: solid arrows go down, dotted ones up."""
    lines = ["graph BT"]
    for (a, b), count in sorted(edges.items()):
        up = ORDER.index(b) > ORDER.index(a)
        lines.append(f"    {a} {'-.->' if up else '-->'}|{count}| {b}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="?", type=Path, default=Path(__file__).parents[1] / "workflow_scripts")
    print(mermaid(imports(parser.parse_args().scripts)))
