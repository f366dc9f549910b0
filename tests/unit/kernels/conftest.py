"""Random operands of the kernels, and Triton's interpreter, which runs them on a CPU.

The interpreter must be chosen before Triton is imported, and is of the whole process: ``TRITON_INTERPRET=1 pytest
tests/unit/kernels``. Without it these tests skip, but for those that compile or only count.
"""

import os

import numpy as np
import pytest


@pytest.fixture
def interpreted(monkeypatch):
    """Skip where kernels cannot run without a card."""
    pytest.importorskip("triton", reason="triton is not installed: make kernels")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("set TRITON_INTERPRET=1 to run kernels without a card: make kernels")
    from triton.runtime import interpreter

    monkeypatch.setattr(interpreter, "_convert_float", rounded_as_by_a_card(interpreter._convert_float))


def rounded_as_by_a_card(converted):
    """The interpreter's conversions with PyTorch's of E4M3.

    Its own loses the carry: it makes 1 of 1.97, and is wrong for one of twenty numbers. Of numbers beyond 448 PyTorch
    makes NaN where a card writes 448, so that a test sees them.
    """
    import torch
    from triton.language import float8e4nv

    def convert(values, before, after, rounding):
        if float8e4nv not in (before, after):
            return converted(values, before, after, rounding)
        source = torch.from_numpy(np.ascontiguousarray(values))
        narrow = source.view(torch.float8_e4m3fn) if before == float8e4nv else source.to(torch.float8_e4m3fn)
        if after == float8e4nv:
            return narrow.view(torch.uint8).numpy()
        return narrow.to(getattr(torch, f"float{after.primitive_bitwidth}")).numpy()

    return convert


@pytest.fixture(params=[1, 2])
def random(request):
    """Random numbers, and by them random shapes; the same each time."""
    return np.random.default_rng(request.param)
