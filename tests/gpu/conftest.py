"""Tests that need an NVIDIA GPU skip, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest


def why_not() -> str | None:
    """Why no test here can run; None if they can."""
    try:
        from ceilings.cuda import device as cuda
    except ImportError as error:
        return f"cuda.bindings is not installed ({error})"
    return cuda.problem()


def pytest_collection_modifyitems(items):
    own = [item for item in items if Path(__file__).parent in Path(item.fspath).parents]
    if own and (reason := why_not()):
        for item in own:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {reason}"))
