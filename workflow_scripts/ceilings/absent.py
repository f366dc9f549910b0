"""A program that lacks a package says so in one line, with the command that installs it. Standard library only."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

PROGRAMS = Path(__file__).parents[1]
BENCHMARKS = PROGRAMS.parent / "benchmarks"


def message(error: ModuleNotFoundError) -> str | None:
    """The line; None for a module of this project: that is a bug, which keeps its traceback.

    >>> message(ModuleNotFoundError("No module named 'msgspec'", name="msgspec"))
    "the package 'msgspec' is not installed here; run `make venv` in the project, then `. .venv/bin/activate`"
    >>> message(ModuleNotFoundError("No module named 'triton'", name="triton")).partition("; ")[2].partition(",")[0]
    'run `make .venv/kernels` in the project'
    """
    package = (error.name or "").partition(".")[0]
    if not package or (PROGRAMS / package).exists() or package in sys.stdlib_module_names:
        return None
    if package == "triton":  # PyTorch's builds for CUDA bring it; of a CPU's none does
        return (
            "the package 'triton' is not installed here; run `make .venv/kernels` in the project, then "
            "`export PYTHONPATH=$PWD/.venv/kernels`"
        )
    return f"the package {package!r} is not installed here; run `make venv` in the project, then `. .venv/bin/activate`"


def explain() -> None:
    """Let a program that ends while it imports show the line; another process keeps its way."""
    if sys.argv and Path(sys.argv[0]).resolve().parent in (PROGRAMS, BENCHMARKS):
        sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    line = message(error) if isinstance(error, ModuleNotFoundError) else None
    if line:
        print(f"error: {line}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
