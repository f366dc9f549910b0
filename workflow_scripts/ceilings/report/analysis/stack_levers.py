"""The levers that a stack of the catalogue has, and its runtimes with given levers."""

from __future__ import annotations

from collections.abc import Iterable

from ceilings.runtimes.catalogue import DEFAULT_LEVERS, RUNTIMES, Runtime


def takes(runtime: Runtime, *, generating: bool, precision: str = "") -> bool:
    """Whether a runtime runs models that generate, or those that do not; in a precision, if one is given."""
    if not (runtime.generator if generating else runtime.module):
        return False
    return not precision or not generating or precision in runtime.generates


def base_levers(stack: str) -> frozenset[str]:
    """The levers of a stack as it is: those of ``DEFAULT_LEVERS`` that it knows."""
    return frozenset[str]().union(*(one.levers for one in RUNTIMES.values() if one.stack == stack)) & DEFAULT_LEVERS


def runtime_of(stack: str, *levers: str, device: str = "cuda", precision: str = "fp32") -> str:
    """The runtime of a stack with these levers beside those that it has as it is: for a study to name."""
    wanted = base_levers(stack) | set(levers)
    return next(
        one.name
        for one in RUNTIMES.values()
        if (one.stack, one.device, one.levers) == (stack, device, wanted) and precision in one.precisions
    )


def runtimes_of(stack: str, *levers: Iterable[str], device: str = "cuda", precision: str = "fp32") -> list[str]:
    """A runtime for each set of levers."""
    return [runtime_of(stack, *one, device=device, precision=precision) for one in levers]
