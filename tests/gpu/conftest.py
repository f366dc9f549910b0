"""Tests that need an NVIDIA GPU skip, with the reason, where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
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


@pytest.fixture
def hopper():
    """Skip where the card has another compute capability than that of our tiles."""
    from ceilings import gpu

    if (capability := gpu.visible().capability) != (9, 0):
        pytest.skip(f"our tiles are of compute capability 9.0, and this card has {capability[0]}.{capability[1]}")


@pytest.fixture(params=range(3))
def random(request):
    """Random numbers, and by them random shapes; the same each time."""
    return np.random.default_rng(request.param)
