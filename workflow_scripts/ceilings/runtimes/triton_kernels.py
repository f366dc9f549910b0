"""What runtimes on kernels of ``ceilings.kernels`` have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import triton
from triton.runtime.errors import OutOfResources

from ceilings.errors import CellFailure

FACTS = {"mask": "attention reads it, all ones or not", "triton": triton.__version__}
"""What a record says of such a runtime beside what it says of PyTorch."""


@contextlib.contextmanager
def tiles_fit() -> Iterator[None]:
    """Turns a kernel that takes more of a multiprocessor than it has into a failure of its cell.

    Raises:
        CellFailure: The block launched such a kernel.
    """
    try:
        yield
    except OutOfResources as error:
        raise CellFailure("unsupported", f"a kernel's tile does not fit this GPU: {error}") from error
