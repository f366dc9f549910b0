"""Tests that need an NVIDIA GPU skip, with the reason, where there is none."""

from __future__ import annotations

import os
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
    here = f"{Path(__file__).parent}{os.sep}"
    own = [item for item in items if str(item.path).startswith(here)]
    if own and (reason := why_not()):
        for item in own:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {reason}"))
