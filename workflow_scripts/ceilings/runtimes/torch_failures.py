"""What PyTorch raises, as failures of the cell where it says something about the cell. vLLM raises the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ceilings.errors import CellFailure

COMPILERS = ("torch._inductor", "torch._dynamo")
"""Modules of the exceptions by which a compiler refuses a model."""


@contextlib.contextmanager
def as_cell_failures() -> Iterator[None]:
    """Turn memory that ran out, and what is not implemented or cannot be compiled, into ``CellFailure``."""
    import torch

    try:
        yield
    except CellFailure:
        raise
    except torch.OutOfMemoryError as error:
        raise CellFailure("out-of-memory", first_line(error)) from error
    except NotImplementedError as error:
        raise CellFailure("unsupported", first_line(error)) from error
    except RuntimeError as error:
        if "out of memory" in str(error).lower():
            raise CellFailure("out-of-memory", first_line(error)) from error
        if type(error).__module__.startswith(COMPILERS):
            raise CellFailure("unsupported", f"{type(error).__name__}: {first_line(error)}") from error
        raise


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut; its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
