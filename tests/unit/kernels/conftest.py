"""Random operands of the kernels, and Triton's interpreter, which runs them on a CPU.

The interpreter must be chosen before Triton is imported, and is of the whole process: ``TRITON_INTERPRET=1 pytest
tests/unit/kernels``. Without it these tests skip, but for those that compile or only count.
"""

import os

import numpy as np
import pytest


@pytest.fixture
def interpreted():
    """Skip where kernels cannot run without a card."""
    pytest.importorskip("triton", reason="triton is not installed: make kernels")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("set TRITON_INTERPRET=1 to run kernels without a card: make kernels")


@pytest.fixture(params=[1, 2])
def random(request):
    """Random numbers, and by them random shapes; the same each time."""
    return np.random.default_rng(request.param)
