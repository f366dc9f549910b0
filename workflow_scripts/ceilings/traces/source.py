"""What can record a capture here, or count kernels. Standard library only: read while the workflow is parsed."""

from __future__ import annotations

import shutil

from ceilings import packages

SOURCES = ("nsys", "cupti")
"""Nsight Systems, which records from outside of the process; CUPTI's Python bindings, which record from within."""


def missing(source: str) -> str | None:
    """What a source, or ``ncu`` for hardware counters, lacks here, with the remedy; None if nothing."""
    if source == "ncu":
        return None if shutil.which("ncu") else "ncu is not on PATH (install Nsight Compute)"
    if source == "nsys" and shutil.which("nsys") is None:
        return "nsys is not on PATH (install Nsight Systems)"
    package = "nvidia-nvtx" if source == "nsys" else "cupti-python"
    if packages.find(package) is None:
        return f"package {package} is not installed (pip install {package})"
    return None


def choose(wanted: str) -> tuple[str | None, str | None]:
    """The source of captures, and why there is none.

    Args:
        wanted: One of ``SOURCES``, or ``auto`` for the first that can be had.
    """
    lacking = {source: missing(source) for source in (SOURCES if wanted == "auto" else (wanted,))}
    first = next((source for source, lacks in lacking.items() if lacks is None), None)
    return first, None if first else "; ".join(filter(None, lacking.values()))
