"""What each kind of record holds: a module a kind, whose ``SCHEMA`` is its check. Standard library only."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

PARTS = {"__init__", "terms", "common"}
"""Modules here that are no kinds."""

KINDS = tuple(
    sorted(path.stem.replace("_", "-") for path in Path(__file__).parent.glob("*.py") if path.stem not in PARTS)
)
"""Every kind of record."""


def flaw(kind: str, content: Any) -> str | None:
    """What is wrong with the content of a record, in one line; None where nothing is."""
    module = importlib.import_module(f"ceilings.schemas.{kind.replace('-', '_')}")
    found: str | None = module.SCHEMA(content)
    return found and found.removeprefix(".").strip()
